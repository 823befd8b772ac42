"""Commands about rules that are not in use yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import USAGE, ConfigOption, JsonOption, fail, load_config, rules_app, store
from node.cli.output import console, print_json


@rules_app.command("test")
def rules_test(
    new: Annotated[Path, typer.Argument(help="A configuration file with the new rules.")],
    against: Annotated[
        str, typer.Option(help="last:30d (series of this node), or a folder of DICOM files.")
    ] = "last:30d",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which series the rules of another file would treat differently."""
    from node.rule_trial import differences

    current, other = load_config(config), load_config(new)
    studies, remarks = _studies(against, config, current.rules, other.rules)
    today = datetime.now(UTC).astimezone().date()
    counted = _Counted(studies)
    found = list(differences(current.rules, other.rules, counted, today))
    if as_json:
        print_json({"series": counted.series, "differences": [asdict(one) for one in found]})
        return
    for remark in remarks:
        console.print(remark, highlight=False)
    _show(found)
    console.print(
        f"{counted.series} series in {counted.studies} studies: {len(found)} differences.",
        highlight=False,
    )


class _Counted:
    """Counts what passes through."""

    def __init__(self, studies: Iterable[Sequence[Any]]) -> None:
        self._source = studies
        self.studies = self.series = 0

    def __iter__(self) -> Any:
        for study in self._source:
            self.studies += 1
            self.series += len(study)
            yield study


def _studies(
    against: str, config: Path | None, old: Sequence[Any], new: Sequence[Any]
) -> tuple[Iterable[Sequence[Any]], list[str]]:
    from node.routing import header_keys

    keys = header_keys((*old, *new))
    if (folder := Path(against)).is_dir():
        from node.cli.folders import studies_of
        from node.completeness import CompletenessJudge

        judge = CompletenessJudge(load_config(config))
        found, passed_over = studies_of(folder, keys, judge)
        return found, [f"{passed_over} files are not DICOM and were passed over."] * (
            passed_over > 0
        )
    match = re.fullmatch(r"last:([0-9]+)([hdw])", against)
    if match is None:
        raise fail(f"There is no folder {against}. Write last:30d, or name a folder.", USAGE)
    hours = int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]]
    return _past(config, timedelta(hours=hours), keys), []


def _past(config: Path | None, since: timedelta, keys: frozenset[str]) -> Iterable[Sequence[Any]]:
    from node.past_series import past_studies
    from storage.objects import FileObjects

    objects = FileObjects(load_config(config).node.data_folder)
    with store(config) as database:
        yield from past_studies(database, objects, since, keys)


def _show(found: Sequence[Any]) -> None:
    from node.rule_trial import described

    study = ""
    for one in found:
        if one.study_instance_uid != study:
            study = one.study_instance_uid
            console.print(f"[bold]Study {study}[/]", highlight=False)
        console.print(
            f"  series {one.series_instance_uid}, rule {one.rule}", highlight=False, markup=False
        )
        for sign, style, treatment in (("-", "red", one.before), ("+", "green", one.after)):
            console.print(
                f"    {sign} {described(treatment)}",
                style=style, highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
