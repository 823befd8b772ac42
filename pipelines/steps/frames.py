"""What each image of a series says about itself: geometry, rescale, and what sets it apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from pipelines.base import NotScored
from pipelines.steps.geometry import FloatArray, Plane

SINGLE_FRAME = frozenset({uid.CTImageStorage, uid.MRImageStorage})
MULTI_FRAME = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
    }
)
MAX_SIDE = 8192
MAX_VOXELS = 1 << 29
"""Of one volume: 2 GiB as float32."""

HOUNSFIELD_TYPES = frozenset({"", "HU", "US"})
"""Rescale Types of a CT image in Hounsfield units; some scanners write US, "unspecified"."""

KINDS: tuple[tuple[str, str], ...] = (
    ("", "EchoTime"),
    ("", "InversionTime"),
    ("", "TemporalPositionIdentifier"),
    ("", "TriggerTime"),
    ("", "DiffusionBValue"),
    ("", "AcquisitionNumber"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "StackID"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
)
"""What tells images at the same position apart: functional group (empty: top level), keyword."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image: a single-frame instance, or one frame of a multi-frame instance.

    Parameters
    ----------
    sop_instance_uid : str
    index : int
        Place in its instance, from 0.
    rows, columns : int
    plane : Plane
    slope, intercept : float
        Of the modality transform.
    kind : mapping
        Values that set images at the same position apart, by DICOM keyword.
    """

    sop_instance_uid: str
    index: int
    rows: int
    columns: int
    plane: Plane
    slope: float
    intercept: float
    kind: Mapping[str, str]


def frames_of(datasets: Sequence[Dataset]) -> list[Frame]:
    """List the frames of a series, in the order of the datasets.

    Raises
    ------
    NotScored
        An instance is no CT or MR image with patient geometry, or they do not belong together.
    """
    for ds in datasets:
        _refuse_unfit_instance(ds)
    _refuse_mixed(datasets)
    count = sum(frame_count(ds) for ds in datasets)
    voxels = count * integer(datasets[0], "Rows") * integer(datasets[0], "Columns")
    if voxels > MAX_VOXELS:
        raise NotScored(
            "series_too_large", f"The volume would hold {voxels} voxels; at most {MAX_VOXELS}."
        )
    frames = [frame for ds in datasets for frame in _frames(ds)]
    _refuse_several_matrices(frames)
    return frames


def frame_count(ds: Dataset) -> int:
    """Return Number of Frames, 1 where the instance has none."""
    found = number(ds, "NumberOfFrames")
    return 1 if found is None else int(found)


def number(ds: Dataset, keyword: str) -> float | None:
    """Value of an attribute as a finite number; None where there is none."""
    found = numbers(ds, keyword, 1)
    return None if found is None else float(found[0])


def integer(ds: Dataset, keyword: str) -> int:
    """Value of an attribute that `_refuse_unfit_instance` has seen to be there."""
    return int(number(ds, keyword) or 0)


def numbers(ds: Dataset, keyword: str, count: int) -> FloatArray | None:
    """Values of an attribute as finite numbers; None where there are not exactly `count`."""
    try:
        found = np.array(ds.get(keyword), dtype=np.float64).reshape(-1)
    except Exception:  # noqa: BLE001 - a damaged value raises what it likes when looked at
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _refuse_unfit_instance(ds: Dataset) -> None:
    """Refuse what is no slice of a CT or MR volume, before anything of its size is believed."""
    name = f"Instance {ds.SOPInstanceUID}"
    sop_class = ds.SOPClassUID
    if sop_class not in SINGLE_FRAME | MULTI_FRAME:
        word = "no_images" if "Rows" not in ds else "unsupported_class"
        known = uid.UID(str(sop_class))
        raise NotScored(word, f"{name} is {known.name}, not a slice of a CT or MR volume.")
    if "PixelData" not in ds and ("FloatPixelData" in ds or "DoubleFloatPixelData" in ds):
        raise NotScored("unsupported_pixels", f"{name} holds floating point pixels.")
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        if number(ds, keyword) is None:
            raise NotScored("missing_attribute", f"{name} has no {keyword}.")
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    if not (2 <= rows <= MAX_SIDE and 2 <= columns <= MAX_SIDE):
        raise NotScored(
            "bad_matrix",
            f"{name} claims {rows} rows and {columns} columns; 2 to {MAX_SIDE} are read.",
        )
    if (number(ds, "SamplesPerPixel") or 1) != 1:
        raise NotScored(
            "multi_component",
            f"{name} has {integer(ds, 'SamplesPerPixel')} samples per pixel; a volume needs one.",
        )
    if str(ds.get("PhotometricInterpretation", "")) not in ("MONOCHROME1", "MONOCHROME2"):
        raise NotScored("multi_component", f"{name} is not MONOCHROME1 or MONOCHROME2.")
    _refuse_localizer(ds)
    frames = frame_count(ds)
    if frames < 1 or (frames > 1 and sop_class in SINGLE_FRAME):
        raise NotScored("bad_frame_count", f"{name} claims {frames} frames.")


def _refuse_localizer(ds: Dataset) -> None:
    types = [str(value).upper() for value in _values(ds, "ImageType")]
    for word, reason, what in (
        ("LOCALIZER", "localizer", "a localizer (scout)"),
        ("MOSAIC", "mosaic", "a mosaic of slices"),
    ):
        if word in types:
            raise NotScored(reason, f"Instance {ds.SOPInstanceUID} is {what}, not a slice.")


def _refuse_mixed(datasets: Sequence[Dataset]) -> None:
    for keyword, reason, what in (
        ("StudyInstanceUID", "mixed_series", "studies"),
        ("SeriesInstanceUID", "mixed_series", "series"),
        ("SOPClassUID", "mixed_class", "SOP classes"),
        ("FrameOfReferenceUID", "mixed_frame_of_reference", "frames of reference"),
        ("PhotometricInterpretation", "mixed_photometric", "photometric interpretations"),
    ):
        found = {str(ds.get(keyword, "")) for ds in datasets}
        if len(found) > 1:
            raise NotScored(
                reason, f"The images belong to {len(found)} {what}; one volume needs one."
            )
    if len(datasets) > 1 and datasets[0].SOPClassUID in MULTI_FRAME:
        raise NotScored(
            "several_volumes",
            f"The series holds {len(datasets)} multi-frame instances, with "
            f"{', '.join(str(frame_count(ds)) for ds in datasets[:8])} frames; one is scored.",
        )


def _refuse_several_matrices(frames: Sequence[Frame]) -> None:
    sizes = sorted({(frame.columns, frame.rows) for frame in frames})
    if len(sizes) > 1:
        shown = ", ".join(f"{columns} x {rows}" for columns, rows in sizes[:4])
        raise NotScored("mixed_matrix", f"The images have different sizes: {shown}.")


def _frames(ds: Dataset) -> Iterator[Frame]:
    if ds.SOPClassUID in SINGLE_FRAME:
        yield _frame(ds, 0, [ds])
        return
    shared = _items(ds, "SharedFunctionalGroupsSequence")[:1]
    per_frame = _items(ds, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) != frame_count(ds):
        raise NotScored(
            "bad_frame_count",
            f"Instance {ds.SOPInstanceUID} claims {frame_count(ds)} frames and describes "
            f"{len(per_frame)}.",
        )
    for index, groups in enumerate(per_frame):
        yield _frame(ds, index, [groups, *shared])


def _frame(ds: Dataset, index: int, levels: Sequence[Dataset]) -> Frame:
    """Build a frame from its functional groups, or from the data set itself."""
    name = f"Instance {ds.SOPInstanceUID}"
    if ds.SOPClassUID in MULTI_FRAME:
        name += f", frame {index + 1},"
    position = _needed(name, levels, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _needed(name, levels, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _needed(name, levels, "PixelMeasuresSequence", "PixelSpacing", 2)
    if not (spacing > 0).all():
        raise NotScored("bad_spacing", f"{name} has a Pixel Spacing that is not above zero.")
    slope, intercept = _rescale(name, ds, levels)
    return Frame(
        str(ds.SOPInstanceUID),
        index,
        integer(ds, "Rows"),
        integer(ds, "Columns"),
        Plane(position, orientation, spacing),
        slope,
        intercept,
        _kind(levels),
    )


def _needed(
    name: str, levels: Sequence[Dataset], group: str, keyword: str, count: int
) -> FloatArray:
    for level in _homes(levels, group):
        found = numbers(level, keyword, count)
        if found is not None:
            return found
    raise NotScored("missing_attribute", f"{name} has no {keyword} of {count} numbers.")


def _rescale(name: str, ds: Dataset, levels: Sequence[Dataset]) -> tuple[float, float]:
    """Slope and intercept of the modality transform, PS3.3 C.11.1."""
    homes = list(_homes(levels, "PixelValueTransformationSequence"))
    if any("ModalityLUTSequence" in home for home in homes):
        raise NotScored("modality_lut", f"{name} has a Modality LUT; only rescale is read.")
    is_ct = ds.get("Modality") == "CT"
    for home in homes:
        slope, intercept = number(home, "RescaleSlope"), number(home, "RescaleIntercept")
        if slope is None or intercept is None:
            continue
        if slope == 0:
            raise NotScored("bad_rescale", f"{name} has a Rescale Slope of 0.")
        if is_ct and str(home.get("RescaleType") or "").upper() not in HOUNSFIELD_TYPES:
            raise NotScored("not_hounsfield", f"{name} is not in Hounsfield units.")
        return slope, intercept
    if is_ct:
        raise NotScored("missing_attribute", f"{name} has no Rescale Slope and Intercept.")
    return 1.0, 0.0


def _kind(levels: Sequence[Dataset]) -> dict[str, str]:
    kind = {}
    for group, keyword in KINDS:
        for level in _homes(levels, group) if group else levels[:1]:
            if keyword in level:
                kind[keyword] = "\\".join(_word(value) for value in _values(level, keyword))
                break
    return kind


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _homes(levels: Sequence[Dataset], group: str) -> Iterator[Dataset]:
    """Where an attribute of a functional group may be: its items, or a single-frame data set."""
    for level in levels:
        yield from _items(level, group)
        if "PixelData" in level or "Rows" in level:
            yield level


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    try:
        return list(ds.get(keyword) or [])
    except TypeError:
        return []


def _values(ds: Dataset, keyword: str) -> list[object]:
    try:
        found = ds.get(keyword)
    except (ValueError, TypeError):
        return []
    if found is None or found == "":
        return []
    return [found] if isinstance(found, str | int | float) else list(found)
