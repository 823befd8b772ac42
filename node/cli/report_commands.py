"""Commands about report templates: whether they are right, and what they would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import PROBLEM, USAGE, JsonOption, fail, report_app
from node.cli.output import console, print_json

TemplateArgument = Annotated[Path, typer.Argument(help="A report template in YAML.")]


@report_app.command("check")
def report_check(
    template: TemplateArgument,
    findings: Annotated[
        Path | None,
        typer.Option(
            "--findings",
            help="JSON of a model: paths are compared with it, "
            "in place of what the pipeline's models say.",
        ),
    ] = None,
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", help="Whose models say what the template reads.")
    ] = "haemorrhage",
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Do not compare paths with a model.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with a template, by line."""
    from node.config.rules import ANY_PACKAGE
    from pipelines.catalogue import PIPELINES
    from sr_templates.outputs import OUTPUTS, PACKAGED_OUTPUTS, outputs_of, view

    if pipeline not in PIPELINES:
        raise fail(f"There is no pipeline {pipeline}; there are: {', '.join(PIPELINES)}.", USAGE)
    outputs = PACKAGED_OUTPUTS if pipeline == ANY_PACKAGE else OUTPUTS[PIPELINES[pipeline].models]
    if findings is not None:
        outputs = outputs_of(view(_json(findings)))
    loaded, problems = _load(template, None if any_model else outputs)
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            console.print(str(problem), soft_wrap=True, markup=False, highlight=False)
        if loaded is not None:
            console.print(f"{template} is in order: {len(loaded.groups)} groups.", markup=False)
    if problems:
        raise typer.Exit(USAGE)


@report_app.command("render")
def report_render(
    template: TemplateArgument,
    findings: Annotated[
        Path, typer.Option("--findings", help="findings.json of a job, or another model's JSON.")
    ],
) -> None:
    """Print the content tree that a template makes of a model's output."""
    from sr_templates.described import TemplateMismatch
    from sr_templates.preview import preview

    loaded, problems = _load(template, None)
    if loaded is None:
        raise fail("\n".join(map(str, problems)), USAGE)
    try:
        text = preview(loaded, _json(findings))
    except TemplateMismatch as error:
        raise fail(f"{template} does not fit {findings}: {error}.", PROBLEM) from None
    console.print(text, soft_wrap=True, markup=False, highlight=False, end="")


def _load(path: Path, outputs: Any) -> tuple[Any, list[Any]]:
    from node.config.problems import ConfigError
    from node.config.report_template import load_template

    try:
        return load_template(path, outputs), []
    except ConfigError as error:
        return None, error.problems


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise fail(f"{path} cannot be read as JSON ({type(error).__name__}).", USAGE) from None
    if not isinstance(found, dict):
        raise fail(f"{path} must hold one JSON object.", USAGE)
    return found
