"""Slices of a volume as small pictures, the way a radiologist wants to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.base import Findings, Segment, Volume, Voxels

AXIS_LETTERS = ("LR", "PA", "IS")
"""Ends of the RAS+ axes: negative, positive."""
SCREEN = {
    2: ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    1: ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    0: ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Where rightwards and downwards on the screen point in RAS+, by the axis across the slice."""
FILL = 0.22
CLOSEST_MM = 50.0
"""Side of the smallest field a magnified tile shows."""
SMALL_PX = 26
"""A lesion drawn smaller than this is ringed."""


@dataclass(frozen=True, eq=False)
class View:
    """How slices are turned for display.

    Parameters
    ----------
    volume : Volume
    swap : bool
        The row axis of the array runs along the screen's x.
    flip_x, flip_y : bool
    box : tuple of int
        First and last column and row, in display order, that hold the patient.
    window : tuple of float
        Level and width.
    """

    volume: Volume
    swap: bool
    flip_x: bool
    flip_y: bool
    box: tuple[int, int, int, int]
    window: tuple[float, float]

    def turned(self, plane: NDArray[np.generic]) -> NDArray[np.generic]:
        """Slice of shape (columns, rows) as a picture of shape (down, right)."""
        picture = plane if self.swap else plane.T
        picture = picture[:, ::-1] if self.flip_x else picture
        return picture[::-1] if self.flip_y else picture

    @property
    def axes(self) -> tuple[int, int]:
        """Array axes that run to the right and down."""
        return (1, 0) if self.swap else (0, 1)

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Pixel size to the right and down."""
        right, down = self.axes
        return float(self.volume.spacing[right]), float(self.volume.spacing[down])

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Patient directions at the left, right, upper and lower edge."""
        right, down = self.axes
        x = self.volume.affine[:3, right] * (-1 if self.flip_x else 1)
        y = self.volume.affine[:3, down] * (-1 if self.flip_y else 1)
        return _letter(-x), _letter(x), _letter(-y), _letter(y)


def view_of(volume: Volume, window: tuple[float, float] | None) -> View:
    """Choose the radiological view of a volume's own slices.

    Parameters
    ----------
    volume : Volume
    window : tuple of float or None
        Level and width in modality units; None: from the 1st to the 99.5th percentile.
    """
    across = int(np.abs(_cosines(volume)[:, 2]).argmax())
    right, down = (np.array(direction) for direction in SCREEN[across])
    cosines = _cosines(volume)
    swap = bool(abs(cosines[:, 1] @ right) > abs(cosines[:, 0] @ right))
    axis_x, axis_y = (1, 0) if swap else (0, 1)
    if window is None:
        low, high = np.percentile(volume.array, (1.0, 99.5))
        window = (float(low + high) / 2, float(max(high - low, 1e-3)))
    turned = View(
        volume=volume,
        swap=swap,
        flip_x=bool(cosines[:, axis_x] @ right < 0),
        flip_y=bool(cosines[:, axis_y] @ down < 0),
        box=(0, 0, 0, 0),
        window=window,
    )
    return replace(turned, box=_box(turned))


def _cosines(volume: Volume) -> NDArray[np.float64]:
    return np.asarray(volume.affine[:3, :3] / volume.spacing, np.float64)


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return AXIS_LETTERS[axis][int(direction[axis] > 0)]


def _box(view: View) -> tuple[int, int, int, int]:
    """Bounding box of what is not air, with a margin, in display columns and rows."""
    level, width = view.window
    shadow = view.turned(np.asarray((view.volume.array > level - width).any(axis=2)))
    if not shadow.any():
        shadow = np.ones_like(shadow)
    rows, columns = np.flatnonzero(shadow.any(axis=1)), np.flatnonzero(shadow.any(axis=0))
    margin_x, margin_y = (max(1, round(5.0 / mm)) for mm in view.pixel_mm)
    return (
        max(int(columns[0]) - margin_x, 0),
        min(int(columns[-1]) + margin_x, shadow.shape[1] - 1),
        max(int(rows[0]) - margin_y, 0),
        min(int(rows[-1]) + margin_y, shadow.shape[0] - 1),
    )


def chosen_slices(findings: Findings, volume: Volume, count: int) -> tuple[list[int], int | None]:
    """Choose the slices to show, and say which holds the largest part of the finding.

    With labelled voxels: the largest slice of each segment, then slices spread evenly over the
    labelled volume, then their neighbours. Without: slices spread over what is not air.

    Returns
    -------
    list of int
        Indices along the third axis, ascending; fewer than `count` only in a thin volume.
    int or None
    """
    slices = volume.array.shape[2]
    count = min(count, slices)
    labels = findings.labels
    if labels is None or not labels.any():
        solid = np.flatnonzero((volume.array > -300).mean(axis=(0, 1)) > 0.02)
        first, last = (solid[0], solid[-1]) if len(solid) >= count else (0, slices - 1)
        places = np.linspace(first, last, count + 2)[1:-1] if len(solid) > count + 2 else None
        if places is None:
            places = np.linspace(first, last, count)
        return _filled([round(place) for place in places], count, slices), None
    area = np.count_nonzero(labels, axis=(0, 1))
    largest = int(area.argmax())
    kinds = np.unique(labels[labels > 0])
    areas = [np.count_nonzero(labels == number, axis=(0, 1)) for number in kinds]
    wanted = [largest, *(int(own.argmax()) for own in areas)]
    shares = (np.arange(count) + 0.5) / count
    wanted += np.searchsorted(np.cumsum(area) / area.sum(), shares).tolist()
    return _filled(wanted, count, slices), largest


def _filled(wanted: Sequence[int], count: int, slices: int) -> list[int]:
    """Return the first distinct ones of `wanted`, completed by the slices next to the first."""
    ordered = list(dict.fromkeys(wanted))[:count]
    by_distance = sorted(range(slices), key=lambda index: (abs(index - wanted[0]), index))
    ordered += [index for index in by_distance if index not in ordered]
    return sorted(ordered[:count])


def tile(
    view: View, findings: Findings, index: int, size: int
) -> tuple[Image.Image, list[tuple[float, float, float, tuple[int, int, int]]]]:
    """Draw one slice with its labels, small ones ringed.

    Parameters
    ----------
    view : View
    findings : Findings
    index : int
        Slice, along the third axis.
    size : int
        Width and height of the tile, pixels.

    Returns
    -------
    Image
        RGB.
    list of tuple
        Rings to draw around what is small in every slice: x, y, radius, colour.
    """
    gray = _resized(view, _windowed(view, view.volume.array[:, :, index]), size)
    picture = np.repeat(np.asarray(gray, np.float32)[:, :, None], 3, axis=2)
    rings = []
    for segment in findings.segments:
        mask = _mask(view, findings, segment, index, size)
        if mask is None:
            continue
        _paint(picture, mask, segment.color)
        shadow = _mask(view, findings, segment, None, size)
        rings += [(*ring, segment.color) for ring in _small_ones(mask, shadow)]
    return Image.fromarray(picture.round().astype(np.uint8)), rings


def magnified(view: View, findings: Findings, index: int) -> View:
    """Look closer at the labels of one slice: 2.5 times their extent, at least 50 mm."""
    if findings.labels is None or not findings.labels[:, :, index].any():
        return view
    mask = view.turned(findings.labels[:, :, index] > 0)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    mm_x, mm_y = view.pixel_mm
    extent = max((columns[-1] - columns[0] + 1) * mm_x, (rows[-1] - rows[0] + 1) * mm_y)
    side = max(2.5 * float(extent), CLOSEST_MM)
    left, right, top, bottom = view.box
    if side > 0.8 * max((right - left) * mm_x, (bottom - top) * mm_y):
        return view
    x, y = (columns[0] + columns[-1]) // 2, (rows[0] + rows[-1]) // 2
    half_x, half_y = round(side / mm_x / 2), round(side / mm_y / 2)
    box = (
        max(int(x) - half_x, 0),
        min(int(x) + half_x, mask.shape[1] - 1),
        max(int(y) - half_y, 0),
        min(int(y) + half_y, mask.shape[0] - 1),
    )
    return replace(view, box=box)


def plain_tile(view: View, index: int, size: int) -> Image.Image:
    """Draw one slice without labels, RGB."""
    return _resized(view, _windowed(view, view.volume.array[:, :, index]), size).convert("RGB")


def _windowed(view: View, plane: Voxels) -> NDArray[np.uint8]:
    level, width = view.window
    scaled = np.clip((plane - (level - width / 2)) / width, 0.0, 1.0) * 255
    return np.asarray(scaled.round(), np.uint8)


def _resized(view: View, plane: NDArray[np.uint8], size: int) -> Image.Image:
    """Cut to the box and scale to the tile, with square pixels, centred on black."""
    left, right, top, bottom = view.box
    cut = Image.fromarray(
        np.ascontiguousarray(view.turned(plane)[top : bottom + 1, left : right + 1])
    )
    mm = cut.width * view.pixel_mm[0], cut.height * view.pixel_mm[1]
    scale = size / max(mm)
    width, height = (max(1, round(length * scale)) for length in mm)
    tile_image = Image.new("L", (size, size))
    place = (size - width) // 2, (size - height) // 2
    tile_image.paste(cut.resize((width, height), Image.Resampling.BICUBIC), place)
    return tile_image


def _mask(
    view: View, findings: Findings, segment: Segment, index: int | None, size: int
) -> NDArray[np.bool_] | None:
    """Voxels of a segment in one slice, or in any slice when `index` is None, as tile pixels."""
    if findings.labels is None:
        return None
    voxels = findings.mask(segment.number)
    plane = np.asarray(voxels.any(axis=2) if index is None else voxels[:, :, index], bool)
    if not plane.any():
        return None
    return np.asarray(_resized(view, plane.astype(np.uint8) * 255, size)) > 127


def _paint(
    picture: NDArray[np.float32], mask: NDArray[np.bool_], color: tuple[int, int, int]
) -> None:
    """Tint the inside, and draw the border just outside of it so that it hides nothing."""
    picture[mask] = picture[mask] * (1 - FILL) + np.array(color, np.float32) * FILL
    border = ndimage.binary_dilation(mask, iterations=2) & ~mask
    picture[border] = color


def _small_ones(
    mask: NDArray[np.bool_], shadow: NDArray[np.bool_] | None
) -> list[tuple[float, float, float]]:
    """Centre and radius of a ring around each component that `shadow`, too, shows as small."""
    labelled, _ = ndimage.label(mask if shadow is None else shadow, np.ones((3, 3)))
    rings = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
        extent = max(rows.stop - rows.start, columns.stop - columns.start)
        if extent < SMALL_PX and mask[labelled == number].any():
            center = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
            rings.append((*center, extent / 2 + 16.0))
    return rings


def scout(view: View, findings: Findings, size: tuple[int, int]) -> tuple[Image.Image, list[float]]:
    """Draw the volume seen from the side, labels projected onto it.

    Parameters
    ----------
    view : View
    findings : Findings
    size : tuple of int
        Largest width and height, pixels.

    Returns
    -------
    Image
        RGB; the patient's head, right side or front is up, as the slices are stacked.
    list of float
        y of the middle of each slice.
    """
    right, down = view.axes
    depth = np.clip(view.volume.array, -1000, 1500).mean(axis=right)
    depth = np.sqrt(np.clip(depth - np.percentile(depth, 2), 0, None))
    gray = (depth / max(float(depth.max()), 1e-6) * 200).T
    gray = gray[:, ::-1] if view.flip_y else gray
    picture = np.repeat(gray[:, :, None], 3, axis=2)
    for segment in findings.segments if findings.labels is not None else ():
        shadow = np.asarray(findings.mask(segment.number).any(axis=right)).T
        shadow = shadow[:, ::-1] if view.flip_y else shadow
        picture[shadow] = picture[shadow] * 0.35 + np.array(segment.color) * 0.65
    upwards = view.volume.affine[int(np.abs(_cosines(view.volume)[:, 2]).argmax()), 2] > 0
    picture = picture[::-1] if upwards else picture
    slices = picture.shape[0]
    mm = picture.shape[1] * view.volume.spacing[down], slices * view.volume.spacing[2]
    scale = min(size[0] / mm[0], size[1] / mm[1])
    pixels = max(1, round(mm[0] * scale)), max(1, round(mm[1] * scale))
    image = Image.fromarray(np.ascontiguousarray(picture.round().astype(np.uint8)))
    middles = [(index + 0.5) / slices * pixels[1] for index in range(slices)]
    middles = middles[::-1] if upwards else middles
    return image.resize(pixels, Image.Resampling.BICUBIC), middles
