"""What a model says, as one nested mapping that dotted paths lead into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from models.base import CasePrognosis
from sr_templates.described import (
    ITEM,
    OF_SEGMENTS,
    SEGMENTS,
    GroupLine,
    ReportTemplate,
    TemplateMismatch,
)


@dataclass(frozen=True)
class Outputs:
    """What a model declares to say.

    Parameters
    ----------
    values : frozenset of str
        Paths to single values.
    lists : mapping
        Path of a list to the paths in each of its items.
    families : tuple of str
        Beginnings of further paths, whose ends the model decides.
    open_lists : frozenset of str
        Lists whose items may hold more, as the model decides.
    marks : bool
        Whether it marks voxels, so that there may be a Segmentation.
    kinds : mapping
        What is at a path, as far as that is known: ``a number``, ``a text``, ``yes or no``. Of an
        item of a list the path begins with that of the list.
    """

    values: frozenset[str]
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    open_lists: frozenset[str] = frozenset()
    marks: bool = True
    kinds: Mapping[str, str] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether a path outside of lists is declared."""
        return path in self.values or path.startswith(self.families)


A_NUMBER, A_TEXT, YES_OR_NO = "a number", "a text", "yes or no"
SEGMENTATION_OUTPUTS = Outputs(
    frozenset({"present", "study.volume", "study.probability"}),
    {SEGMENTS: frozenset({"number", "label", "volume"})},
    kinds={
        "present": YES_OR_NO,
        **dict.fromkeys(("study.volume", "study.probability"), A_NUMBER),
        **dict.fromkeys((f"{SEGMENTS}.number", f"{SEGMENTS}.volume"), A_NUMBER),
        f"{SEGMENTS}.label": A_TEXT,
    },
)
"""What every packaged segmentation model says: see `models.base.Findings`."""
PACKAGED_OUTPUTS = replace(
    SEGMENTATION_OUTPUTS, families=("study.",), open_lists=frozenset({SEGMENTS})
)
"""What any package may say, while it is not known which one is meant."""


def outputs_of_package(
    numbers: Iterable[str],
    of_segments: Iterable[str],
    texts: Iterable[str] = (),
    *,
    marks: bool = True,
) -> Outputs:
    """Return what a package says whose manifest names further numbers, classes and texts.

    Parameters
    ----------
    numbers, of_segments : iterable of str
        Numbers of the whole study, and of single segments.
    texts : iterable of str
        Texts, classes among them.
    marks : bool
        Whether it marks voxels.
    """
    said = SEGMENTATION_OUTPUTS
    kinds = {
        **{f"study.{name}": A_NUMBER for name in numbers},
        **{f"study.{name}": A_TEXT for name in texts},
    }
    return Outputs(
        said.values.union(kinds),
        {SEGMENTS: said.lists[SEGMENTS].union(of_segments)},
        marks=marks,
        kinds={**said.kinds, **kinds, **{f"{SEGMENTS}.{name}": A_NUMBER for name in of_segments}},
    )


PROGNOSIS_OUTPUTS = Outputs(
    frozenset(["projection", "probability", "class", "threshold", "age_years", "population"]),
    {SEGMENTS: frozenset({"number", "label", "volume"})},
    ("inputs.", "volumes."),
    kinds={
        **dict.fromkeys(("projection", "probability", "threshold", "age_years"), A_NUMBER),
        **dict.fromkeys(("class", "population"), A_TEXT),
    },
)
"""What the pipeline dementia says: see `models.base.CasePrognosis`. ``class`` is stable,
progressive or undetermined; below ``inputs`` is each feature by name, with ``<name>_date`` and
``<name>_source``, unless it was not there; below ``volumes`` each region as ``<name>_ml``."""
NUMBER = frozenset({"name", "value", "segment"})
SEGMENT = frozenset({"number", "label"})
"""What each number and each segment of ``findings.json`` has."""
MARKS_NOTHING = (
    "The model marks nothing: none of its outputs is a mask or a map, so a {} group is never "
    "written. Write kind: image."
)
TOTALS = {"gm": "grey_matter", "wm": "white_matter", "icv": "intracranial"}
OUTPUTS: Mapping[str, Outputs] = {
    "segmentation": SEGMENTATION_OUTPUTS,
    "prognosis": PROGNOSIS_OUTPUTS,
}
"""By the kind of model that a pipeline runs."""


def view(data: Mapping[str, Any]) -> dict[str, Any]:
    """Give what ``findings.json`` holds the form that paths lead into.

    Numbers of the whole study, classes and texts become ``study.<name>``, numbers of a segment
    ``<name>`` in the item of its segment; what a prognosis says goes to the top. Everything else
    stays where it is.

    Parameters
    ----------
    data : mapping
        ``findings.json`` of a job, or the JSON of any other model.
    """
    seen = dict(data) | _of_prognosis(data.get("prognosis"))
    numbers = _items(data.get("numbers"), NUMBER)
    segments = _items(data.get(SEGMENTS), SEGMENT)
    if numbers is None or segments is None:
        return seen  # of another model, which may use the same words
    words = [data.get(key) for key in ("named_texts", "classes")]
    seen["study"] = {
        **{k: v for said in words if isinstance(said, Mapping) for k, v in said.items()},
        **{n["name"]: n["value"] for n in numbers if n["segment"] is None},
    }
    seen[SEGMENTS] = [
        {
            **{n["name"]: n["value"] for n in numbers if n["segment"] == segment["number"]},
            "number": segment["number"],
            "label": segment["label"],
        }
        for segment in segments
    ]
    return seen


def _items(value: object, keys: frozenset[str]) -> list[Mapping[str, Any]] | None:
    """Items of a list that all have some keys; None where it is no such list."""
    if not isinstance(value, list):
        return None
    is_ours = all(isinstance(item, Mapping) and keys <= item.keys() for item in value)
    return value if is_ours else None


def _of_prognosis(case: object) -> dict[str, Any]:
    if not isinstance(case, Mapping) or not {f.name for f in fields(CasePrognosis)} <= case.keys():
        return {}
    inputs: dict[str, Any] = {}
    for feature in case["features"]:
        name = feature["name"]
        if feature["source"] != "imputed":
            inputs |= {name: feature["value"], f"{name}_source": feature["source"]}
        if feature["date"]:
            inputs[f"{name}_date"] = feature["date"]
    outcome = case["outcome"]
    return {
        **{key: case[key] for key in ("projection", "probability", "threshold", "age_years")},
        "class": "progressive" if outcome == "declining" else outcome,
        "population": case["population"],
        "inputs": inputs,
        "volumes": {
            f"{TOTALS.get(name, name)}_ml": value for name, value in case["volumes_ml"].items()
        },
    }


def outputs_of(sample: Mapping[str, Any]) -> Outputs:
    """Return the outputs that a sample of a model's output has."""
    values: dict[str, str] = {}
    lists: dict[str, dict[str, str]] = {}
    _collect(sample, "", values, lists)
    kinds = values | {
        f"{at}.{k}": kind for at, inside in lists.items() for k, kind in inside.items()
    }
    return Outputs(
        frozenset(values),
        {at: frozenset(inside) for at, inside in lists.items()},
        kinds={path: kind for path, kind in kinds.items() if kind},
    )


def _collect(
    value: Any, path: str, values: dict[str, str], lists: dict[str, dict[str, str]]
) -> None:
    """Note the kind of every value of a sample by its path, and those in each list."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, f"{path}.{key}" if path else str(key), values, lists)
    elif isinstance(value, list):
        inside: dict[str, str] = {}
        for item in value:
            if isinstance(item, Mapping):
                _collect(item, "", inside, {})
        lists[path] = inside
    else:
        kind = _kind(value)
        values[path] = kind if values.get(path, kind) == kind else ""


def _kind(value: object) -> str:
    """Say what a value of a sample is; empty where that does not tell what others are."""
    if isinstance(value, bool):
        return YES_OR_NO
    return A_NUMBER if isinstance(value, (int, float)) else A_TEXT if isinstance(value, str) else ""


def pick(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path.

    Raises
    ------
    TemplateMismatch
        There is none; the sentence says where the path ends and what there is.
    """
    found: Any = data
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else "a single value"
            raise TemplateMismatch(
                f"the model's output has no {path} ({part} is not there; there is: {there[:200]})"
            )
        found = found[part]
    return found


def undeclared(
    template: ReportTemplate, outputs: Outputs
) -> list[tuple[tuple[str | int, ...], str]]:
    """List the paths of a template that do not lead to what is wanted: where, and a sentence.

    Returns
    -------
    list of tuple
        Place in the template's file, and what is wrong with the path that is there.
    """
    found: list[tuple[tuple[str | int, ...], str]] = []
    for number, group in enumerate(template.groups):
        place = ("groups", number)
        if group.for_each and group.for_each not in outputs.lists:
            known = ", ".join(sorted(outputs.lists)) or "none"
            found.append(
                ((*place, "for_each"), f"The model has no list {group.for_each}; lists: {known}.")
            )
            continue
        if group.kind in OF_SEGMENTS and not outputs.marks:
            found.append(((*place, "kind"), MARKS_NOTHING.format(group.kind)))
        items = outputs.lists.get(group.for_each, frozenset())
        for line in _lines(group):
            inside = line.path.startswith(f"{ITEM}.")
            if not line.path or (inside and not group.for_each):
                continue  # there is no item; told where the file is read
            told = line.path.removeprefix(f"{ITEM}.")
            is_open = group.for_each in outputs.open_lists
            kind = outputs.kinds.get(f"{group.for_each}.{told}" if inside else told)
            if not (told in items or is_open if inside else outputs.has(line.path)):
                known = _listed(items if inside else (*outputs.values, *outputs.families))
                sentence = f"The model does not say {line.path}; here it says: {known}."
                found.append(((*place, *line.place), sentence))
            elif kind and line.wanted and kind != line.wanted:
                sentence = f"The model says {kind} at {line.path}; {line.wanted} is wanted here."
                found.append(((*place, *line.place), sentence))
    return found


class _Line(NamedTuple):
    """A path in a group: where it stands, and what must be there; empty: whatever it is."""

    place: tuple[str, int, str]
    path: str
    wanted: str


def _lines(group: GroupLine) -> Iterator[_Line]:
    for n, measurement in enumerate(group.measurements):
        yield _Line(("measurements", n, "value"), measurement.value, A_NUMBER)
        yield _Line(("measurements", n, "observed"), measurement.observed, "")
    for n, evaluation in enumerate(group.evaluations):
        yield _Line(("evaluations", n, "value"), evaluation.value, "")
    for n, text in enumerate(group.texts):
        yield _Line(("texts", n, "value"), text.value, A_TEXT)


def _listed(paths: Iterable[str]) -> str:
    """Name paths, and beginnings of paths, for a sentence."""
    return ", ".join(f"{path}..." if path.endswith(".") else path for path in sorted(paths)) or (
        "nothing"
    )
