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

from node.config.file import load
from node.conformance import RECEIVED, SENT, accepted_contexts, overview, services
from node.conformance_entities import details
from node.receive.storage_scp import TRANSFER_SYNTAXES
from pipelines.base import REJECTION_NOTE, SOP_CLASSES
from tests.node.samples import example_in
from tests.peers import ct_image, part10, running_receiver
from tests.tools import run

REFUSED_SYNTAXES = [DeflatedExplicitVRLittleEndian, HTJ2KLossless, MPEG2MPML]
OTHER_CLASSES = [
    "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root FIND
    "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
    "1.2.826.0.1.3680043.8.498.999",  # nobody's
]
MOST_CONTEXTS = 128
Context = tuple[str, str]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the handbook, with what it names beside it."""
    return example_in(tmp_path)


@pytest.fixture
def text(example: Path) -> str:
    """The sections that need no objects."""
    config = load(example)
    return "\n".join([*overview(config), *services(config), *details(config)])


def section(text: str, heading: str) -> str:
    """What stands below a heading, as far as the next one of any level."""
    return text.split(f"# {heading}", 1)[1].split("\n#", 1)[0]


def rows(part: str) -> list[list[str]]:
    """Cells of the rows of all tables."""
    lines = (line for line in part.splitlines() if line.startswith("| "))
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]


@pytest.mark.parametrize("number", ["7.2.1", "7.2.2", "7.2.3"])
def test_every_entity_says_when_it_calls_and_whom_it_takes(text: str, number: str) -> None:
    for part in ("1 Sequencing", "2 Association P", "3 Association I", "4 Association A"):
        assert len(section(text, f"{number}.{part}").split("\n\n", 1)[1]) > 20


def test_every_class_that_is_sent_is_listed(text: str) -> None:
    made = {*SOP_CLASSES.values(), REJECTION_NOTE}

    assert {row[1] for row in rows(section(text, "1.1 ")) if row[-1] == "S"} == made
    assert {row[2] for row in rows(section(text, "5.2.5 ")) if len(row) == 3} - {
        "UID",
        "---",
    } == made


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
def test_a_sweep_finds_exactly_the_contexts_of_the_statement(text: str, tmp_path: Path) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    syntaxes = [str(one) for one in (*TRANSFER_SYNTAXES, *REFUSED_SYNTAXES)]
    proposed = [(one, syntax) for one in (*classes, *OTHER_CLASSES) for syntax in syntaxes]
    part10(ct_image(), tmp_path / "one.dcm")

    accepted: set[Context] = set()
    with running_receiver(tmp_path) as node:
        for start in range(0, len(proposed), MOST_CONTEXTS):
            accepted |= sweep(node.port, proposed[start : start + MOST_CONTEXTS], tmp_path)

    table = rows(section(text, "1.1 "))
    kept = {row[1]: row[2].split(", ") for row in table if len(row) == 7 and row[4] == "yes"}
    sets = {name: {row[2] for row in table if row[0] == name} for name in (RECEIVED, SENT)}
    said = {(uid, syntax) for uid, names in kept.items() for syntax in sets[names[0]]}
    assert accepted == said == set(accepted_contexts())
