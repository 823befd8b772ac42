"""The tables of attributes say what is in results that were made in other ways than for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_description
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from typer.testing import CliRunner

from node.cli.main import app
from node.config.file import load
from node.conformance import SECTIONS, statement
from node.conformance_objects import LONGEST_VALUE
from pipelines.created import content_of, created, text_of
from sr_templates.part10 import to_bytes
from tests.node.samples import example_in
from tests.sr_templates.samples import Sample, samples

pytestmark = pytest.mark.slow

CONTENT = "Content Sequence"
Tables = dict[str, dict[tuple[str, ...], "Said"]]
"""By slot and place."""


@dataclass(frozen=True)
class Said:
    """A row of a table, and under which sequences it stands."""

    place: tuple[str, ...]
    vr: str
    sources: tuple[str, ...]
    presence: str
    value: str


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_in(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def text(example: Path) -> str:
    return statement(load(example))


@pytest.fixture(scope="module")
def tables(text: str) -> Tables:
    """Rows by slot, read from the text of the statement."""
    annex = text.split("\n## A.A ", 1)[1].split("\n## ", 1)[0]
    common, *others = re.split(r"\n### A\.A\.\d+ ", annex)[1:]
    shared = {said.place: said for said in _rows(common)}
    return {
        re.findall(r"Result `([^`]+)`", part)[0]: shared | {one.place: one for one in _rows(part)}
        for part in others
    }


def _rows(part: str) -> Iterator[Said]:
    above: list[str] = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 7 or not cells[1].startswith("("):
            continue
        name = cells[0].lstrip(">")
        above = [*above[: len(cells[0]) - len(name)], cells[1]]
        yield Said(tuple(above), cells[2], tuple(cells[4].split(", ")), cells[5], cells[6])


@pytest.fixture(scope="module")
def everything() -> list[Sample]:
    return [replace(one, ds=dcmread(BytesIO(to_bytes(one.ds)))) for one in samples()]


def walk(ds: Dataset, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], DataElement]]:
    for element in ds:
        place = (*above, str(element.tag))
        yield place, element
        if isinstance(element.value, Items) and dictionary_description(element.tag) != CONTENT:
            for item in element.value:
                yield from walk(item, place)


def test_the_command_prints_the_statement_of_a_configuration(example: Path, text: str) -> None:
    done = CliRunner().invoke(app, ["conformance", "--config", str(example)])
    config = load(example)

    assert done.exit_code == 0
    assert done.stdout == text
    assert f"# DICOM Conformance Statement of {config.node.ae_title}" in done.stdout
    for peer in config.peers:
        assert f"| {peer} |" in done.stdout
    for rule in config.rules:
        assert f"| {rule.name} | sr | {rule.series.number} |" in done.stdout


def test_sections_are_those_of_the_template_in_its_order(text: str) -> None:
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]

    assert headings == list(SECTIONS)
    for heading in (
        "1.1 Content and Transfer",
        "5.2.5 Storage Service",
        "5.2.6 Storage Commitment Service",
        "6.1 General Configuration Parameters",
        "6.2 Configuration of DIMSE Services",
        "7.2.1 Intake Application Entity",
        "7.2.1.2 Association Parameters",
        "7.3.2.5 Storage Service",
        "7.3.2.6 Storage Commitment Service",
        "A.A.1 Information Shared Across Multiple IODs",
    ):
        assert f"# {heading}\n" in text


def test_every_kind_of_object_has_a_sample_and_a_table(
    tables: Tables, everything: list[Sample]
) -> None:
    assert {one.slot for one in everything} == set(tables) == set(created())


def test_each_attribute_of_an_object_is_in_its_table_as_it_is_written(
    tables: Tables, everything: list[Sample]
) -> None:
    strange = {
        (one.slot, place, dictionary_description(element.tag), element.VR)
        for one in everything
        for place, element in walk(one.ds)
        if place not in tables[one.slot] or tables[one.slot][place].vr != element.VR
    }

    assert strange == set()


def test_what_the_table_says_is_always_there_is_there(
    tables: Tables, everything: list[Sample]
) -> None:
    wrong = set()
    for one in everything:
        found: dict[tuple[str, ...], list[DataElement]] = {}
        for place, element in walk(one.ds):
            found.setdefault(place, []).append(element)
        for place, said in tables[one.slot].items():
            above = sum(len(element.value) for element in found.get(place[:-1], ()))
            there = found.get(place, [])
            is_wrong = {
                "ALWAYS": len(there) < above or any(element.is_empty for element in there),
                "VNAP": len(there) < above,
                "EMPTY": not all(element.is_empty for element in there),
                "ANAP": False,
            }[said.presence]
            if is_wrong or (len(place) == 1 and said.presence != "ANAP" and not there):
                wrong.add((one.slot, place, said.presence))

    assert wrong == set()


def test_copied_values_are_those_of_the_images_and_fixed_ones_those_of_the_table(
    tables: Tables, everything: list[Sample]
) -> None:
    wrong = set()
    for one in everything:
        of_images = {text_of(element) for ds in one.images for _, element in walk(ds)} | {""}
        for place, element in walk(one.ds):
            said, text = tables[one.slot][place], text_of(element)
            if said.sources == ("COPIED",) and text not in of_images:
                wrong.add((one.slot, place, text[:40]))
            is_whole = len(said.value) < LONGEST_VALUE
            if said.sources == ("FIXED",) and is_whole and text not in said.value.split("; "):
                wrong.add((one.slot, place, text[:40]))

    assert wrong == set()


def test_templates_and_content_of_documents_are_told_from_real_ones() -> None:
    report, note = content_of("sr"), content_of("rejection note")

    assert report is not None
    assert note is not None
    assert set(report.templates) == {"1411", "1500", "1501"}
    assert {"NUM", "UIDREF"} <= set(report.value_types)
    assert note.templates == ("2010",)
    assert content_of("seg") is None
