"""A measurement report described by an administrator, as values: what to say of which output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from models.base import Code
from sr_templates.code_tables import LocalCode

Kind = Literal["image", "volume", "planar"]
IfMissing = Literal["refuse", "comment"]
KINDS: tuple[Kind, ...] = ("image", "volume", "planar")
OF_SEGMENTS = frozenset({"volume", "planar"})
"""Kinds of group that are written for the segments of the Segmentation."""
IF_MISSING: tuple[IfMissing, ...] = ("refuse", "comment")
QUALIFICATIONS = ("PRODUCT", "RESEARCH", "SERVICE")
ITEM = "item"
"""First word of a path into the item a group is repeated for."""
SEGMENTS = "segments"


class TemplateMismatch(ValueError):
    """Raised when a model's output does not hold what a template wants."""


@dataclass(frozen=True)
class MeasurementLine:
    """One NUM item: what it is called, where its value is, and its unit.

    Parameters
    ----------
    name : Code
    value : str
        Path into the model's output, such as ``study.volume`` or ``item.volume``.
    unit : Code
        UCUM.
    digits : int
        Decimal places.
    range : tuple of float or None
        Least and largest value; another refuses the report.
    method : Code or None
        Measurement Method.
    if_missing : str
        ``refuse``: no report without it; ``comment``: the report says that it is missing, and is
        PARTIAL.
    observed : str
        Path to the date (ISO 8601) of what was measured elsewhere, such as a test; may be empty.
    """

    name: Code
    value: str
    unit: Code
    digits: int = 3
    range: tuple[float, float] | None = None
    method: Code | None = None
    if_missing: IfMissing = "refuse"
    observed: str = ""


@dataclass(frozen=True)
class EvaluationLine:
    """One CODE item: `map` takes the output's value, as text, to a code."""

    name: Code
    value: str
    map: Mapping[str, Code]


@dataclass(frozen=True)
class TextLine:
    """One TEXT item: what it is called, where its text is, and what if it is missing."""

    name: Code
    value: str
    if_missing: IfMissing = "refuse"


@dataclass(frozen=True)
class GroupLine:
    """One Measurement Group, or one for each item of a list.

    Parameters
    ----------
    id : str
        Unique in the template; part of the tracking UIDs.
    kind : str
        ``image``: TID 1501; ``volume``: TID 1411, for the segments of the Segmentation;
        ``planar``: TID 1410, for the same, each outlined where it is largest.
    finding : Code
    tracking : str
        Tracking Identifier; of a ``volume`` or ``planar`` group it is the segment's.
    for_each : str
        Path to a list in the model's output; empty: one group.
    category, site : Code or None
    measurements : tuple of MeasurementLine
    evaluations : tuple of EvaluationLine
    texts : tuple of TextLine
    """

    id: str
    kind: Kind
    finding: Code
    tracking: str = ""
    for_each: str = ""
    category: Code | None = None
    site: Code | None = None
    measurements: tuple[MeasurementLine, ...] = ()
    evaluations: tuple[EvaluationLine, ...] = ()
    texts: tuple[TextLine, ...] = ()


@dataclass(frozen=True)
class PrivateScheme:
    """A site's own codes: designator that begins with 99, UID, organisation, value to meaning."""

    designator: str
    uid: str
    organisation: str
    codes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportTemplate:
    """A whole template.

    Parameters
    ----------
    name, version : str
    groups : tuple of GroupLine
    digest : str
        SHA-256 of the file; cited in every report.
    procedure : Code or None
        Procedure Reported; None: told from the images.
    qualification : str
        Content Qualification; empty: that of the model's intended use.
    statement : str
        Sentence for the reader, in the first group.
    private : PrivateScheme or None
    local_codes : tuple of LocalCode
        Codes outside the tables of PS3.16 that somebody looked up.
    image_library : bool
        Whether the report describes the images that its groups refer to.
    """

    name: str
    version: str
    groups: tuple[GroupLine, ...]
    digest: str
    procedure: Code | None = None
    qualification: str = ""
    statement: str = ""
    private: PrivateScheme | None = None
    local_codes: tuple[LocalCode, ...] = ()
    image_library: bool = False

    @property
    def reviewed(self) -> frozenset[Code]:
        """Codes that the checker takes although no table has them."""
        return frozenset((code.scheme, code.value, code.meaning) for code in self.local_codes)

    def to_json(self) -> dict[str, Any]:
        """Values for JSON, as a job keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReportTemplate:
        """Read what `to_json` wrote."""
        private = data["private"]
        return cls(
            **{
                **data,
                "groups": tuple(_group(item) for item in data["groups"]),
                "procedure": _code(data["procedure"]),
                "private": PrivateScheme(**private) if private else None,
                "local_codes": tuple(LocalCode(**item) for item in data["local_codes"]),
            }
        )


def _group(data: Mapping[str, Any]) -> GroupLine:
    codes = {key: _code(data[key]) for key in ("finding", "category", "site")}
    return GroupLine(
        **{
            **data,
            **codes,
            "measurements": tuple(_measurement(item) for item in data["measurements"]),
            "evaluations": tuple(_evaluation(item) for item in data["evaluations"]),
            "texts": tuple(_text(item) for item in data.get("texts", ())),
        }
    )


def _measurement(data: Mapping[str, Any]) -> MeasurementLine:
    codes = {key: _code(data[key]) for key in ("name", "unit", "method")}
    limits = data["range"]
    return MeasurementLine(**{**data, **codes, "range": tuple(limits) if limits else None})


def _evaluation(data: Mapping[str, Any]) -> EvaluationLine:
    known = {word: _some(_code(item)) for word, item in data["map"].items()}
    return EvaluationLine(_some(_code(data["name"])), data["value"], known)


def _text(data: Mapping[str, Any]) -> TextLine:
    return TextLine(**{**data, "name": _some(_code(data["name"]))})


def _code(item: Sequence[str] | None) -> Code | None:
    if item is None:
        return None
    scheme, value, meaning = item
    return scheme, value, meaning


def _some(code: Code | None) -> Code:
    if code is None:
        raise ValueError("a code of a template is missing")
    return code
