"""What each image of a series says about itself: geometry, rescale, and what sets it apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
MAX_FRAMES = 1 << 16
"""Of one instance."""

HOUNSFIELD_TYPES = frozenset({"", "HU", "US"})
"""Rescale Types of a CT image in Hounsfield units; some scanners write US, "unspecified"."""

SORTS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
    "PhotometricInterpretation",
    "SeriesNumber",
)
"""Attributes, one value each, that images of one volume share."""

KINDS: tuple[tuple[str, str], ...] = (
    ("", "EchoTime"),
    ("", "EchoNumbers"),
    ("", "InversionTime"),
    ("", "TemporalPositionIdentifier"),
    ("", "TriggerTime"),
    ("", "DiffusionBValue"),
    ("", "DiffusionGradientOrientation"),
    ("", "ImageType"),
    ("", "AcquisitionNumber"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
)
"""What tells images at the same position apart: functional group (empty: top level), keyword."""


@dataclass(frozen=True)
class Tile:
    """Part of a frame that holds one slice of a mosaic: its first row and column."""

    row: int
    column: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One image: a single-frame instance, a frame of a multi-frame one, or a tile of a mosaic.

    Parameters
    ----------
    sop_instance_uid : str
    index : int
        Place of the frame in its instance, from 0.
    rows, columns : int
        Of the image; of the tile in a mosaic.
    plane : Plane
    slope, intercept : float
        Of the modality transform.
    sort : mapping
        Values that images of one volume share, by DICOM keyword.
    kind : mapping
        Values that set images at the same position apart, by DICOM keyword.
    rank : tuple of int
        Order of acquisition: Acquisition Number, Instance Number, frame.
    tile : Tile or None
        None: the image is all of the frame.
    instance : int
        Place of the instance in its series, from 0.
    """

    sop_instance_uid: str
    index: int
    rows: int
    columns: int
    plane: Plane
    slope: float
    intercept: float
    sort: Mapping[str, str]
    kind: Mapping[str, str]
    rank: tuple[int, ...] = (0, 0, 0)
    tile: Tile | None = None
    instance: int = field(default=0)

    def next_to(self, uid: str, plane: Plane, rank: tuple[int, ...], instance: int) -> Frame:
        """Return what an instance holds that differs from this one's in nothing but these."""
        return Frame(
            uid,
            self.index,
            self.rows,
            self.columns,
            plane,
            self.slope,
            self.intercept,
            self.sort,
            self.kind,
            rank,
            self.tile,
            instance,
        )


def image_frames(ds: Dataset, instance: int = 0) -> list[Frame]:
    """List the images of one instance; a mosaic is one of them, see `mosaic.mosaic_frames`.

    Parameters
    ----------
    ds : Dataset
        With or without its pixels.
    instance : int
        Its place in the series.

    Raises
    ------
    NotScored
        The instance is no CT or MR image with patient geometry.

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module; C.7.6.16, Multi-frame Functional Groups.
    """
    refuse_unfit_instance(ds)
    return list(_frames(ds, instance))


def is_mosaic(ds: Dataset) -> bool:
    """Tell whether the slices of a volume lie side by side in one Siemens image."""
    return "MOSAIC" in _image_type(ds)


def frame_count(ds: Dataset) -> int:
    """Return Number of Frames, 1 where the instance has none."""
    found = number(ds, "NumberOfFrames")
    return 1 if found is None else int(found)


def number(ds: Dataset, keyword: str) -> float | None:
    """Value of an attribute as a finite number; None where there is none."""
    found = numbers(ds, keyword, 1)
    return None if found is None else float(found[0])


def integer(ds: Dataset, keyword: str) -> int:
    """Value of an attribute that `refuse_unfit_instance` has seen to be there."""
    return int(number(ds, keyword) or 0)


def numbers(ds: Dataset, keyword: str, count: int) -> FloatArray | None:
    """Values of an attribute as finite numbers; None where there are not exactly `count`."""
    try:
        found = np.array(ds.get(keyword), dtype=np.float64).reshape(-1)
    except Exception:  # noqa: BLE001 - a damaged value raises what it likes when looked at
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def refuse_unfit_instance(ds: Dataset) -> None:
    """Refuse what is no slice of a CT or MR volume, before anything of its size is believed."""
    name = f"Instance {ds.SOPInstanceUID}"
    sop_class = ds.SOPClassUID
    if sop_class not in SINGLE_FRAME | MULTI_FRAME:
        word = "no_images" if "Rows" not in ds else "unsupported_class"
        known = uid.UID(str(sop_class))
        shown = known.name if known.name != known else "of an unknown SOP class"
        raise NotScored(word, f"{name} is {shown}, not a slice of a CT or MR volume.")
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
    if "LOCALIZER" in _image_type(ds):
        raise NotScored("localizer", f"{name} is a localizer (scout), not a slice.")
    frames = frame_count(ds)
    if not 1 <= frames <= MAX_FRAMES or (frames > 1 and sop_class in SINGLE_FRAME):
        raise NotScored("bad_frame_count", f"{name} claims {frames} frames.")
    if frames * rows * columns > MAX_VOXELS:
        raise NotScored(
            "series_too_large",
            f"{name} claims {frames * rows * columns} voxels; at most {MAX_VOXELS} are read.",
        )


def _image_type(ds: Dataset) -> list[str]:
    return [str(value).strip().upper() for value in _values(ds, "ImageType")]


def _frames(ds: Dataset, instance: int) -> Iterator[Frame]:
    if ds.SOPClassUID in SINGLE_FRAME:
        yield _frame(ds, 0, [ds], instance)
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
        yield _frame(ds, index, [groups, *shared], instance)


def _frame(ds: Dataset, index: int, levels: Sequence[Dataset], instance: int) -> Frame:
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
        sop_instance_uid=str(ds.SOPInstanceUID),
        index=index,
        rows=integer(ds, "Rows"),
        columns=integer(ds, "Columns"),
        plane=Plane(position, orientation, spacing),
        slope=slope,
        intercept=intercept,
        sort=_sort(ds, levels),
        kind=_kind(levels),
        rank=(integer(ds, "AcquisitionNumber"), integer(ds, "InstanceNumber"), index),
        instance=instance,
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


def _sort(ds: Dataset, levels: Sequence[Dataset]) -> dict[str, str]:
    sort = {keyword: str(ds.get(keyword, "") or "") for keyword in SORTS}
    sort["ImageType"] = "\\".join(_image_type(ds)[:3])
    if ds.SOPClassUID in MULTI_FRAME:
        sort["SOPInstanceUID"] = str(ds.get("ConcatenationUID") or ds.SOPInstanceUID)
        found = (home.get("StackID") for home in _homes(levels, "FrameContentSequence"))
        sort["StackID"] = str(next((value for value in found if value), ""))
    return sort


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
