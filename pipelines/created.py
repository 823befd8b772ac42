"""The attributes of each kind of object we make, found by making it under many circumstances.

A table kept by hand drifts. Here the code that builds results builds them: once, and once more for
each thing that can differ. What an attribute follows is where its value comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydicom.datadict import dictionary_description, dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from pipelines.specimens import BASE, FURTHER, VARIED, Made, Origin, images_of, objects

Presence = Literal["ALWAYS", "VNAP", "EMPTY", "ANAP"]
CONTENT_SEQUENCE = 0x0040A730
"""Holds the content tree, which templates describe, not tables of attributes."""
Place = tuple[BaseTag, ...]
"""Tags from the top of the object to an attribute."""
Flat = Mapping[Place, Sequence[DataElement]]
"""Elements by place; one in a sequence as often as there are items that have it."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of one kind of object.

    Parameters
    ----------
    path : tuple of BaseTag
        Tags of the sequences it is in, outermost first, and its own.
    vr : str
        As it is written.
    presence : str
        ``ALWAYS`` with a value, ``VNAP`` value not always present, ``EMPTY``, ``ANAP`` attribute
        not always present.
    origins : tuple of str
        Where its value comes from.
    keys : tuple of str
        Keys of the configuration that decide it, or have a part in it.
    value : str
        Its value where that is fixed.
    """

    path: Place
    vr: str
    presence: Presence
    origins: tuple[Origin, ...]
    keys: tuple[str, ...] = ()
    value: str = ""

    @property
    def name(self) -> str:
        """Name of PS3.6, after a ``>`` for each sequence it is in."""
        return ">" * (len(self.path) - 1) + dictionary_description(self.path[-1])

    @property
    def vm(self) -> str:
        """Value Multiplicity of PS3.6."""
        return dictionary_VM(self.path[-1])


@dataclass(frozen=True)
class Content:
    """What the content tree of an SR document holds.

    Parameters
    ----------
    templates : tuple of str
        Template Identifiers of PS3.16 that its containers name.
    value_types, relationships : tuple of str
        Defined Terms of PS3.3 C.17.3.
    """

    templates: tuple[str, ...]
    value_types: tuple[str, ...]
    relationships: tuple[str, ...]


@lru_cache
def created() -> Mapping[str, tuple[Attribute, ...]]:
    """Attributes of every kind of result, in the order of their tags; by slot.

    What is in Content Sequence is left out: see `content_of`.
    """
    base, varied, further = _made()
    images = {letter: _values_of_images(letter) for letter in ("A", "B")}
    found = {}
    for slot, ds in base.items():
        many = {name: flat(made[slot]) for name, made in varied.items()}
        others = [flat(made[slot]) for made in further if slot in made]
        found[slot] = tuple(_attributes(flat(ds), many, others, images))
    return found


@lru_cache
def content_of(slot: str) -> Content | None:
    """Say what the content tree of a kind of result holds; None for what is no document."""
    base, varied, further = _made()
    everything = [made[slot] for made in (base, *varied.values(), *further) if slot in made]
    items = [item for ds in everything for item in _items(ds)]
    if not any("ContentSequence" in ds for ds in everything):
        return None
    named = [item.get("ContentTemplateSequence", [Dataset()])[0] for item in items]
    return Content(
        _terms(named, "TemplateIdentifier"),
        _terms(items, "ValueType"),
        _terms(items, "RelationshipType"),
    )


def _items(ds: Dataset) -> Iterator[Dataset]:
    yield ds
    for item in ds.get("ContentSequence", ()):
        yield from _items(item)


def _terms(items: Sequence[Dataset], keyword: str) -> tuple[str, ...]:
    return tuple(sorted({str(item.get(keyword)) for item in items if item.get(keyword)}))


@lru_cache
def _made() -> tuple[Made, dict[str, Made], list[Made]]:
    """Objects as they are, as they are when one thing is varied, and further ones."""
    varied = {name: objects(there) for name, (there, _) in VARIED.items()}
    return objects(BASE), varied, [objects(there) for there in FURTHER]


def flat(ds: Dataset) -> Flat:
    """Every element of an object but those of its content tree."""
    found: dict[Place, list[DataElement]] = {}
    for path, element in _walk(ds, ()):
        found.setdefault(path, []).append(element)
    return found


def _walk(ds: Dataset, above: Place) -> Iterator[tuple[Place, DataElement]]:
    for element in ds:
        path = (*above, element.tag)
        yield path, element
        if isinstance(element.value, Items) and element.tag != CONTENT_SEQUENCE:
            for item in element.value:
                yield from _walk(item, path)


def _attributes(
    base: Flat, varied: Mapping[str, Flat], others: Sequence[Flat], images: Mapping[str, set[str]]
) -> Iterator[Attribute]:
    everything = [base, *varied.values(), *others]
    for path in sorted({path for one in everything for path in one}):
        seen = [one.get(path, ()) for one in everything]
        element = next(elements[0] for elements in seen if elements)
        followed = [name for name, one in varied.items() if _texts(one, path) != _texts(base, path)]
        presence = _presence(path, everything)
        if isinstance(element.value, Items):
            yield Attribute(path, "SQ", presence, ())
            continue
        origins = {VARIED[name][1] for name in followed}
        if "images" in followed:
            origins = _origins_in_images(base, varied, path, images, origins)
        texts = dict.fromkeys(text for one in everything for text in _texts(one, path) if text)
        fixed = "" if followed else "; ".join(texts)
        keys = tuple(name for name in followed if VARIED[name][1] == "CONFIGURATION")
        yield Attribute(
            path, element.VR, presence, tuple(sorted(origins)) or ("FIXED",), keys, fixed
        )


def _texts(one: Flat, path: Place) -> list[str]:
    """Texts of the values of an attribute in all items, each once."""
    return list(dict.fromkeys(text_of(element) for element in one.get(path, ())))


def text_of(element: DataElement) -> str:
    """Text of a value, by which values are compared; numbers without needless digits."""
    if element.is_empty or isinstance(element.value, Items):
        return ""
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    if element.VR in ("DS", "FD", "FL"):
        values = [f"{float(value):.7g}" for value in values]
    return "\\".join(map(str, values))


def _presence(path: Place, everything: Sequence[Flat]) -> Presence:
    """Tell whether an attribute is there wherever the item is that it belongs in."""
    empty = set()
    for one in everything:
        there = one.get(path, ())
        if len(there) < _places(one, path):
            return "ANAP"
        empty |= {element.is_empty for element in there}
    if empty == {True}:
        return "EMPTY"
    return "VNAP" if True in empty else "ALWAYS"


def _places(one: Flat, path: Place) -> int:
    """How many items an attribute could be in; the object itself is one."""
    above = path[:-1]
    return sum(len(element.value) for element in one.get(above, ())) if above else 1


def _origins_in_images(
    base: Flat,
    varied: Mapping[str, Flat],
    path: Place,
    images: Mapping[str, set[str]],
    origins: set[Origin],
) -> set[Origin]:
    """Origins of what changes with the images: copied where all that changes stands in them."""
    before, after = set(_texts(base, path)), set(_texts(varied["images"], path))
    if not (before - after <= images["A"] | {""} and after - before <= images["B"] | {""}):
        return origins - {"COPIED"} | {"GENERATED"}
    others = set(_texts(varied["findings"], path)) | before
    if others <= images["A"] | {""}:
        return {"COPIED"}
    return origins | {"FIXED"} if before & after else origins


def _values_of_images(letter: str) -> set[str]:
    """Texts of all values in the images, to find them in a result."""
    sources, _ = images_of(letter)
    flats = [flat(ds) for ds in sources]
    return {text for one in flats for path in one for text in _texts(one, path)}
