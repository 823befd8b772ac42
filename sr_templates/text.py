"""Structured reports as text, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID

INDENT = "  "


def render(sr: Dataset) -> str:
    """Write the content tree of an SR document, one content item a line.

    Parameters
    ----------
    sr : Dataset
        An SR document of any template; it is read with nothing but the Standard's attributes.

    Returns
    -------
    str
        Names, values, units and references, indented by depth; no patient's name or ID.
    """
    lines = [series_line(sr), _flags(sr), "", *_tree(sr, 0)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_tree(root: Dataset) -> str:
    """Write a content tree that is in no document yet.

    Parameters
    ----------
    root : Dataset
        The CONTAINER at its top.
    """
    return "\n".join(line.rstrip() for line in _tree(root, 0)) + "\n"


def series_line(ds: Dataset) -> str:
    """Say in one line what an instance is: modality, series, and how much of it there is."""
    parts = [
        str(ds.get("Modality", "?")),
        f"series {ds.get('SeriesNumber', '?')}",
        str(ds.get("SeriesDescription", "")),
        _extent(ds),
    ]
    return "  ".join(part for part in parts if part)


def _extent(ds: Dataset) -> str:
    frames = int(ds.get("NumberOfFrames") or 0)
    segments = len(ds.get("SegmentSequence") or ())
    sizes = []
    if segments:
        sizes.append(_count(segments, "segment"))
    if frames:
        sizes.append(_count(frames, "frame"))
    if ds.get("Rows"):
        sizes.append(f"{ds.Columns} x {ds.Rows}")
    return ", ".join(sizes)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _flags(sr: Dataset) -> str:
    flags = ("CompletionFlag", "VerificationFlag", "PreliminaryFlag", "ContentQualification")
    return ", ".join(str(sr[flag].value).lower() for flag in flags if sr.get(flag))


def _tree(item: Dataset, depth: int) -> Iterator[str]:
    yield INDENT * depth + _line(item)
    for child in item.get("ContentSequence") or ():
        yield from _tree(child, depth + 1)


def _line(item: Dataset) -> str:
    name, value = _name(item), _value(item)
    if name and value:
        return f"{name}: {value}"
    return name or value


def _name(item: Dataset) -> str:
    name = _meaning(item, "ConceptNameCodeSequence")
    template = item.get("ContentTemplateSequence")
    if template:
        return f"{name} (TID {template[0].get('TemplateIdentifier', '?')})"
    return name


def _value(item: Dataset) -> str:
    """Value of a content item, by its Value Type (PS3.3 C.17.3.2.1)."""
    match item.get("ValueType"):
        case "CONTAINER":
            return ""
        case "TEXT":
            return str(item.get("TextValue", ""))
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            return _number(item)
        case "UIDREF":
            return str(item.get("UID", ""))
        case "DATE" | "TIME" | "DATETIME" as kind:
            return str(item.get({"DATE": "Date", "TIME": "Time"}.get(kind, "DateTime"), ""))
        case "PNAME":
            return str(item.get("PersonName", ""))
        case "IMAGE" | "COMPOSITE" | "WAVEFORM":
            return _reference(item)
        case "SCOORD" | "SCOORD3D":
            points = len(item.get("GraphicData") or ()) // (2 if item.ValueType == "SCOORD" else 3)
            return f"{item.get('GraphicType', '')} of {_count(points, 'point')}"
        case "TCOORD":
            return str(item.get("TemporalRangeType", ""))
    return _by_reference(item)


def _by_reference(item: Dataset) -> str:
    target = item.get("ReferencedContentItemIdentifier")
    return "" if target is None else f"see item {'.'.join(str(part) for part in target)}"


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        reason = _meaning(item, "NumericValueQualifierCodeSequence")
        return f"no value ({reason})" if reason else "no value"
    unit = measured[0].get("MeasurementUnitsCodeSequence")
    symbol = str(unit[0].get("CodeValue", "")) if unit else ""
    return f"{measured[0].get('NumericValue', '')} {'' if symbol == '1' else symbol}".strip()


def _reference(item: Dataset) -> str:
    references = item.get("ReferencedSOPSequence")
    if not references:
        return "(nothing)"
    reference = references[0]
    text = f"{UID(reference.ReferencedSOPClassUID).name} {reference.ReferencedSOPInstanceUID}"
    for keyword, noun in (
        ("ReferencedSegmentNumber", "segment"),
        ("ReferencedFrameNumber", "frame"),
    ):
        if reference.get(keyword):
            text += f", {noun} {reference[keyword].value}"
    return text


def _meaning(item: Dataset, keyword: str) -> str:
    code = item.get(keyword)
    return str(code[0].get("CodeMeaning", "")) if code else ""
