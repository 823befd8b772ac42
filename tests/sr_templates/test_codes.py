"""Codes come from the tables of PS3.16, never from memory."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydicom.sr._concepts_dict import concepts as untyped

from models.base import Code
from sr_templates import codes

concepts: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = cast(Any, untyped)
ALL = sorted(
    {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, tuple)}
)


@pytest.mark.parametrize("code", ALL, ids=lambda code: "-".join(code[:2]))
def test_every_code_stands_in_ps3_16_with_its_meaning(code: Code) -> None:
    scheme, value, meaning = code
    if code in codes.OUTSIDE_PS3_16:
        assert not any(value in entries for entries in concepts.get(scheme, {}).values())
        return

    meanings = {entries[value][0] for entries in concepts[scheme].values() if value in entries}

    assert meaning in meanings


def test_the_tables_hold_only_listed_codes() -> None:
    tables = (codes.QUANTITIES, codes.UNITS, codes.METHODS, codes.PROCEDURES)

    used = {code for table in tables for code in table.values()} | set(codes.PRESENCES.values())

    assert used <= set(ALL)
    assert codes.QUANTITIES.keys() == codes.DIGITS.keys()


def test_an_unknown_quantity_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no code for the quantity 'volum'; known are .*volume"):
        codes.quantity("volum")


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no code for the unit 'litre'"):
        codes.unit("litre")


@pytest.mark.parametrize(
    ("modality", "body_part", "regions", "meaning"),
    [
        ("CT", "HEAD", (), "Computed tomography of head (procedure)"),
        ("CT", "brain ", (), "Computed tomography of head (procedure)"),
        ("CT", "", (codes.BRAIN,), "Computed tomography of head (procedure)"),
        ("CT", "", (("SCT", "10200004", "Liver"),), "CT unspecified body region"),
        ("CT", "CHEST", (), "CT unspecified body region"),
        ("MR", "HEAD", (codes.BRAIN,), "MRI unspecified body region"),
        ("PT", "HEAD", (), "Imaging procedure"),
    ],
)
def test_the_procedure_is_as_exact_as_the_source_and_the_model_allow(
    modality: str, body_part: str, regions: tuple[Code, ...], meaning: str
) -> None:
    assert codes.procedure(modality, body_part, regions).meaning == meaning


@pytest.mark.parametrize(
    ("meaning", "shown"),
    [
        ("Intracranial hemorrhage", "Intracranial haemorrhage"),
        ("Hemorrhage", "Haemorrhage"),
        ("Brain edema (disorder)", "Brain oedema"),
        ("Haemorrhage", "Haemorrhage"),
        ("Pneumothorax", "Pneumothorax"),
    ],
)
def test_a_reader_sees_british_spelling(meaning: str, shown: str) -> None:
    assert codes.display(("SCT", "1", meaning)) == shown
