"""The content tree of a document, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom.dataset import Dataset

from sr_templates.checks.coded import value_of


class Item(NamedTuple):
    """One content item, the position it has in the tree (``1.2.4``), and its parent."""

    position: str
    ds: Dataset
    parent: Dataset

    @property
    def where(self) -> str:
        """Name of the place for a sentence."""
        name = meaning(self.ds)
        return f"content item {self.position}" + (f" ({name})" if name else "")


def items(ds: Dataset, position: str = "1") -> Iterator[Item]:
    """Yield every content item below another, depth first."""
    for number, item in enumerate(ds.get("ContentSequence") or (), start=1):
        found = Item(f"{position}.{number}", item, ds)
        yield found
        yield from items(item, found.position)


def children(ds: Dataset, position: str = "1") -> Iterator[Item]:
    """Yield the content items directly below another."""
    for number, item in enumerate(ds.get("ContentSequence") or (), start=1):
        yield Item(f"{position}.{number}", item, ds)


def name(item: Dataset) -> str:
    """Code Value of the concept name, empty where there is none."""
    names = item.get("ConceptNameCodeSequence")
    return value_of(names[0]) if names else ""


def meaning(item: Dataset) -> str:
    """Code Meaning of the concept name, empty where there is none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeMeaning", "")) if names else ""


def code(item: Dataset) -> str:
    """Code Value of a CODE item's value, empty where there is none."""
    values = item.get("ConceptCodeSequence")
    return value_of(values[0]) if values else ""
