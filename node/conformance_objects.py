"""The annexes of the conformance statement: every attribute of what we make, and its codes.

What we make is made for them: see `pipelines.created`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydicom.tag import BaseTag

from node.config.file import Config
from node.markdown import Row, table
from pipelines.base import REJECTION_NOTE, SOP_CLASSES
from pipelines.created import Attribute, content_of, created
from sr_templates import code_tables

HEAD = ("Attribute Name", "Tag", "VR", "VM", "Source", "Presence", "Value")
LONGEST_VALUE = 72
NAMES = {
    "sr": "Comprehensive SR: measurement report, or why there is none",
    "seg": "Segmentation, BINARY",
    "capture": "Secondary Capture: one page",
    "labelmap": "Label Map Segmentation",
    "sr3d": "Comprehensive 3D SR: measurement report",
    "outlines": "Comprehensive SR: outlines",
    "text": "Basic Text SR",
    "pdf": "Encapsulated PDF",
    "rtstruct": "RT Structure Set",
    "rejection note": "Key Object Selection Document: rejection note",
}
LEGEND = (
    ("COPIED", "from the images, or their series, study and patient"),
    ("GENERATED", "by us: found in the images, counted, or of the job (UIDs, dates, times)"),
    ("MODEL", "from the model that the rule runs"),
    ("CONFIGURATION", "from the key that stands under Value"),
    ("FIXED", "what stands under Value, or one of these"),
    ("ALWAYS", "there, with a value"),
    ("VNAP", "there; value not always present"),
    ("EMPTY", "there, without a value"),
    ("ANAP", "attribute not always present"),
)


def annexes(config: Config) -> tuple[Iterator[str], Iterator[str]]:
    """Return the lines of annexes A.A and A.B but for their headings."""
    return _objects(config), _codes()


def common_of(tables: Mapping[str, Sequence[Attribute]]) -> list[Attribute]:
    """Attributes that, with all that is in them, are the same in every kind of object."""
    first, *others = (_by_top(attributes) for attributes in tables.values())
    return [
        attribute
        for top, attributes in first.items()
        if all(other.get(top) == attributes for other in others)
        for attribute in attributes
    ]


def _by_top(attributes: Sequence[Attribute]) -> dict[BaseTag, list[Attribute]]:
    found: dict[BaseTag, list[Attribute]] = {}
    for attribute in attributes:
        found.setdefault(attribute.path[0], []).append(attribute)
    return found


def row(attribute: Attribute) -> Row:
    """Give the cells of an attribute."""
    value = attribute.value
    if len(value) > LONGEST_VALUE:
        value = f"{value[:LONGEST_VALUE]}..."
    return (
        attribute.name,
        attribute.path[-1],
        attribute.vr,
        attribute.vm,
        ", ".join(attribute.origins),
        attribute.presence,
        ", ".join(attribute.keys) or value,
    )


def _objects(config: Config) -> Iterator[str]:
    yield (
        "Standard SOP Classes, without private attributes. A `>` stands for each sequence that an "
        "attribute is in. The tables were made from objects that were made for them."
    )
    yield ""
    yield from table(("Word", "Means"), LEGEND)
    yield from table(
        ("Rule", "Result", "Series Number", "Made as"),
        (
            (rule.name, slot, label.number, NAMES[slot])
            for rule in config.rules
            for slot, label in rule.labels().items()
            if slot in SOP_CLASSES
        ),
    )
    tables = created()
    common = common_of(tables)
    yield "### A.A.1 Information Shared Across Multiple IODs"
    yield ""
    yield from table(HEAD, map(row, common))
    same = {attribute.path[0] for attribute in common}
    for number, (slot, attributes) in enumerate(tables.items(), start=2):
        uid = SOP_CLASSES.get(slot, REJECTION_NOTE)
        yield f"### A.A.{number} {NAMES[slot]}"
        yield ""
        yield f"Result `{slot}`, SOP Class {uid}; beside A.A.1:"
        yield ""
        yield from table(HEAD, (row(one) for one in attributes if one.path[0] not in same))


def _codes() -> Iterator[str]:
    yield "### Content of documents"
    yield ""
    rows: list[Row] = []
    for slot in created():
        content = content_of(slot)
        if content is not None:
            rows.append(
                (
                    slot,
                    ", ".join(f"TID {one}" for one in content.templates),
                    ", ".join(content.value_types),
                    ", ".join(content.relationships),
                )
            )
    yield from table(("Result", "Templates", "Value Types", "Relationship Types"), rows)
    yield "### Codes outside PS3.16"
    yield ""
    yield from table(
        ("Scheme", "Value", "Meaning", "Looked up in"),
        ((c.scheme, c.value, c.meaning, c.source) for c in code_tables.LOCAL_CODES),
    )
    yield (
        f"Private scheme {code_tables.PRIVATE}SCORENODE is identified in each object that uses it."
    )
