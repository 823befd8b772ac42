"""What ``scorenode conformance`` prints is what a peer finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
)
from pynetdicom import AllStoragePresentationContexts
from typer.testing import CliRunner

from node.cli.main import app
from node.config.file import load
from node.conformance import accepted_contexts, statement
from node.receive.storage_scp import TRANSFER_SYNTAXES
from pipelines.base import REJECTION_NOTE, SOP_CLASSES
from tests.peers import ct_image, part10, running_receiver
from tests.tools import run

EXAMPLE = Path(__file__).parents[2] / "docs" / "example.yaml"
REFUSED_SYNTAXES = [DeflatedExplicitVRLittleEndian, HTJ2KLossless, MPEG2MPML]
OTHER_CLASSES = [
    "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root FIND
    "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
    "1.2.826.0.1.3680043.8.498.999",  # nobody's
]
MOST_CONTEXTS = 128
SECRETS = ("redcap-token",)
Context = tuple[str, str]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the handbook, with what it names beside it."""
    path = tmp_path / EXAMPLE.name
    path.write_text(EXAMPLE.read_text())
    for name in SECRETS:
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o600)
    return path


def listed(text: str, heading: str) -> set[str]:
    """UIDs in the tables of a section."""
    part = text.split(heading, 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    return set(re.findall(r"\| (1\.2\.840\.10008[0-9.]*) \|", part))


def test_the_command_prints_the_statement_of_a_configuration(example: Path) -> None:
    done = CliRunner().invoke(app, ["conformance", "--config", str(example)])
    config = load(example)

    assert done.exit_code == 0
    assert done.stdout == statement(config)
    assert f"# DICOM Conformance Statement of {config.node.ae_title}" in done.stdout
    for peer in config.peers:
        assert f"| {peer} |" in done.stdout
    for rule in config.rules:
        assert f"| {rule.name} | sr | {rule.series.number} |" in done.stdout


def test_every_class_that_is_sent_is_listed(example: Path) -> None:
    text = statement(load(example))

    assert listed(text, "### N.5.3") == {*SOP_CLASSES.values(), REJECTION_NOTE}


def sweep(port: int, contexts: list[Context], folder: Path) -> set[Context]:
    """Which of these contexts, each with one transfer syntax, are accepted; by DCMTK."""
    syntaxes = sorted({syntax for _, syntax in contexts})
    names = {syntax: f"T{number}" for number, syntax in enumerate(syntaxes)}
    lines = ["[[TransferSyntaxes]]"]
    for syntax, name in names.items():
        lines += [f"[{name}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[ALL]"]
    for number, (abstract, syntax) in enumerate(contexts, start=1):
        lines.append(f"PresentationContext{number} = {abstract}\\{names[syntax]}")
    lines += ["[[Profiles]]", "[SWEEP]", "PresentationContexts = ALL"]
    profile = folder / "sweep.cfg"
    profile.write_text("\n".join(lines) + "\n")
    said = run(
        "storescu", "-d", "-xf", profile, "SWEEP", "-aet", "MODALITY", "-aec", "SCORENODE",
        "127.0.0.1", str(port), folder / "one.dcm",
    )  # fmt: skip
    answered = (said.stdout + said.stderr).split("BEGIN A-ASSOCIATE-AC")[-1]
    found = re.findall(r"Context ID: +(\d+) \((\w+)", answered)
    assert len(found) == len(contexts), said.stderr[-2000:]
    return {contexts[int(number) // 2] for number, verdict in found if verdict == "Accepted"}


@pytest.mark.slow
def test_a_sweep_finds_exactly_the_contexts_of_the_statement(example: Path, tmp_path: Path) -> None:
    text = statement(load(example))
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    syntaxes = [str(one) for one in (*TRANSFER_SYNTAXES, *REFUSED_SYNTAXES)]
    proposed = [(one, syntax) for one in (*classes, *OTHER_CLASSES) for syntax in syntaxes]
    part10(ct_image(), tmp_path / "one.dcm")

    accepted: set[Context] = set()
    with running_receiver(tmp_path) as node:
        for start in range(0, len(proposed), MOST_CONTEXTS):
            accepted |= sweep(node.port, proposed[start : start + MOST_CONTEXTS], tmp_path)

    assert accepted == set(accepted_contexts())
    said = listed(text, "### N.5.2")
    assert said == {one for one, _ in accepted} | {syntax for _, syntax in accepted}
