"""One page that says what the model found, for readers whose viewer shows neither SEG nor SR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Findings, Volume
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.sheet import (
    GRAY,
    MARGIN,
    PANEL,
    TOP,
    WHITE,
    WIDTH,
    YELLOW,
    Sheet,
    draw_caution,
    draw_foot,
    fitting,
    font,
    secondary_capture,
)
from sr_templates.tiles import View, chosen_slices, magnified, plain_tile, scout, tile, view_of
from sr_templates.wording import extent, is_anatomy, score, verdict, volume_text

BRAIN = (40.0, 80.0)
"""Window level and width for blood on head CT, HU."""
VERDICT = 212
"""Height of the verdict and the gap below it."""
COLUMNS, ROWS, GAP = 3, 2, 8
TILE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
SCOUT = (300, 212)
VERDICTS = {True: (214, 40, 57), False: (34, 120, 76), None: (176, 112, 0)}
"""Colour of the verdict: found, not found, undetermined or nothing to be alarmed by."""


def page(
    findings: Findings,
    volume: Volume,
    maker: Maker,
    *,
    window: tuple[float, float] | None = BRAIN,
    instance_numbers: Mapping[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Draw the verdict, the slices that show it, and where they lie.

    Parameters
    ----------
    findings : Findings
    volume : Volume
        On whose grid `findings.labels` lies.
    maker : Maker
    window : tuple of float or None
        Level and width; None: from the values of the volume.
    instance_numbers : mapping or None
        Instance Number of each slice, by index along the third axis; None: slices are counted.

    Returns
    -------
    NDArray[np.uint8]
        Shape (rows, 1024, 3), RGB, without anything that identifies the patient.
    """
    view = view_of(volume, window)
    count = COLUMNS * ROWS - (1 if _any(findings) else 0)
    slices, largest = chosen_slices(findings, volume, count)
    height = TOP + VERDICT + 52 + ROWS * (TILE + GAP) + SCOUT[1] + 66
    sheet = Sheet.empty(height)
    _draw_verdict(sheet, view, findings, maker, instance_numbers)
    draw_caution(sheet, maker)
    _draw_montage(sheet, view, findings, slices, largest, instance_numbers)
    _draw_strip(sheet, view, findings, slices, instance_numbers)
    draw_foot(sheet, maker)
    return sheet.pixels()


def capture(
    findings: Findings,
    volume: Volume,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
) -> Dataset:
    """Write the page as a Secondary Capture Image.

    Parameters
    ----------
    findings : Findings
    volume : Volume
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
    maker : Maker

    Returns
    -------
    Dataset

    References
    ----------
    DICOM PS3.3 A.8.1.
    """
    window = BRAIN if sources[0].get("Modality") == "CT" else None
    numbers = instance_numbers_of(volume, sources)
    pixels = page(findings, volume, maker, window=window, instance_numbers=numbers)
    return secondary_capture(pixels, sources, identity, maker)


def _any(findings: Findings) -> bool:
    return findings.labels is not None and bool(findings.labels.any())


def _holds(findings: Findings, segment: int) -> bool:
    return findings.labels is not None and bool(findings.mask(segment).any())


def _draw_verdict(
    sheet: Sheet,
    view: View,
    findings: Findings,
    maker: Maker,
    instance_numbers: Mapping[int, int] | None,
) -> None:
    inner = WIDTH - 2 * MARGIN - 40
    lines = (
        (f"{maker.model.title}, version {maker.model.version}", 12, 26, False),
        (verdict(findings, maker), 46, 58, True),
        (extent(view, findings, instance_numbers), 116, 42, True),
        (score(findings, maker), 168, 22, False),
    )
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + VERDICT - 8)
    alarm = None if is_anatomy(findings) else findings.present
    sheet.draw.rounded_rectangle(box, 12, VERDICTS[alarm])
    for text, below, size, bold in lines:
        place = MARGIN + 20, sheet.y + below
        sheet.draw.text(place, text, WHITE, fitting(text, size, inner, bold))
    sheet.y += VERDICT


def _draw_montage(
    sheet: Sheet,
    view: View,
    findings: Findings,
    slices: Sequence[int],
    largest: int | None,
    instance_numbers: Mapping[int, int] | None,
) -> None:
    """Where something was found: first the largest slice, with labels and bare, then the rest."""
    places = _corners(sheet.y)
    for index in slices if largest is None else [largest, *(i for i in slices if i != largest)]:
        x, y = next(places)
        picture, rings = tile(view, findings, index, TILE)
        sheet.image.paste(picture, (x, y))
        for ring_x, ring_y, radius, color in rings:
            sheet.draw.circle((x + ring_x, y + ring_y), radius, outline=color, width=2)
        name = _name(index, view, instance_numbers)
        _label_tile(sheet, view, (x, y), (name, "largest" if index == largest else ""), index)
        if index == largest:
            sheet.draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=WHITE, width=3)
            _draw_bare(sheet, view, findings, next(places), name, index)
    rows = -(-(len(slices) + (largest is not None)) // COLUMNS)
    sheet.y += rows * (TILE + GAP)


def _corners(top: int) -> Iterator[tuple[int, int]]:
    """Upper left corners of the tiles, row by row."""
    for place in range(COLUMNS * ROWS):
        yield MARGIN + place % COLUMNS * (TILE + GAP), top + place // COLUMNS * (TILE + GAP)


def _draw_bare(
    sheet: Sheet, view: View, findings: Findings, corner: tuple[int, int], name: str, index: int
) -> None:
    """Draw the slice again without labels, so that a reader can judge the tissue under them."""
    closer = magnified(view, findings, index)
    sheet.image.paste(plain_tile(closer, index, TILE), corner)
    tag = "no overlay" if closer is view else "magnified"
    _label_tile(sheet, view, corner, (name, tag), index)


def _label_tile(
    sheet: Sheet, view: View, corner: tuple[int, int], names: tuple[str, str], index: int
) -> None:
    x, y = corner
    name, tag = names
    sheet.outlined((x + TILE - 10, y + 8), tag, WHITE, 22, "ra")
    left, right, _, _ = view.letters
    sheet.outlined((x + 10, y + 8), name, WHITE, 24, "la")
    sheet.outlined((x + 10, y + TILE - 8), _position(view, index), GRAY, 22, "ls")
    sheet.outlined((x + 8, y + TILE // 2), left, YELLOW, 26, "lm")
    sheet.outlined((x + TILE - 8, y + TILE // 2), right, YELLOW, 26, "rm")


def _name(index: int, view: View, instance_numbers: Mapping[int, int] | None) -> str:
    if instance_numbers and index in instance_numbers:
        return f"image {instance_numbers[index]}"
    return f"slice {index + 1}/{view.volume.array.shape[2]}"


def _position(view: View, index: int) -> str:
    """Place of the slice's middle along the axis it is nearest to, in DICOM's LPS millimetres."""
    columns, rows, _ = view.volume.array.shape
    in_plane = view.volume.affine[:3, :2] @ ((columns - 1) / 2, (rows - 1) / 2)
    middle = view.volume.origins[index] + in_plane
    axis = int(np.abs(view.volume.affine[:3, 2]).argmax())
    return f"{'xyz'[axis]} {middle[axis] * (1 if axis == 2 else -1):+.1f} mm"


def _draw_strip(
    sheet: Sheet,
    view: View,
    findings: Findings,
    slices: Sequence[int],
    instance_numbers: Mapping[int, int] | None,
) -> None:
    """Where the slices lie on the left, what the colours mean on the right."""
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + SCOUT[1] + 16)
    sheet.draw.rounded_rectangle(box, 8, PANEL)
    picture, middles = scout(view, findings, SCOUT)
    corner = MARGIN + 8, sheet.y + 8 + (SCOUT[1] - picture.height) // 2
    sheet.image.paste(picture, corner)
    end = corner[0] + picture.width
    for index in slices:
        y = corner[1] + round(middles[index])
        sheet.draw.line((corner[0], y, end + 8, y), YELLOW, 1)
    ends = sorted((slices[0], slices[-1]), key=lambda index: middles[index])
    for index, anchor in zip(ends, ("lb", "lt"), strict=True):
        name = _name(index, view, instance_numbers).split()[-1].partition("/")[0]
        y = corner[1] + round(middles[index]) + (4 if anchor == "lt" else -4)
        sheet.draw.text((end + 8, y), name, YELLOW, font(20, True), anchor)
    _draw_legend(sheet, findings, MARGIN + SCOUT[0] + 64)
    sheet.y += SCOUT[1] + 24


def _draw_legend(sheet: Sheet, findings: Findings, x: int) -> None:
    y = sheet.y + 16
    width = WIDTH - MARGIN - 16 - x
    found = _any(findings)
    heading = "Found" if found else "Looked for, not found"
    if not found and findings.present is None:
        heading = "Looked for"
    sheet.draw.text((x, y), heading, WHITE, font(24, True))
    room = SCOUT[1] - 80
    step = min(34, room // max(len(findings.segments), 1))
    for segment in findings.segments:
        y += step if segment is not findings.segments[0] else 38
        sheet.draw.rounded_rectangle((x, y + 2, x + 22, y + 22), 4, segment.color)
        text = segment.label
        here = _holds(findings, segment.number)
        color = WHITE if here or not found else GRAY
        sheet.draw.text((x + 34, y), text, color, fitting(text, 22, width - 180))
        if found:
            value = (volume_text(findings, segment.number) or "yes") if here else "none"
            sheet.draw.text((x + width, y), value, color, font(22, here), "ra")
    note = "Not found does not mean excluded." if not found else "Yellow lines: slices shown above."
    sheet.draw.text((x, sheet.y + SCOUT[1] - 22), note, GRAY, font(22))


def instance_numbers_of(volume: Volume, sources: Sequence[Dataset]) -> dict[int, int] | None:
    """Instance Number by slice, where every slice is an instance of its own."""
    known = {str(ds.SOPInstanceUID): ds.get("InstanceNumber") for ds in sources}
    uids = volume.source_instance_uids
    if len(set(uids)) != volume.array.shape[2]:
        return None
    numbers = {i: known[uid] for i, uid in enumerate(uids) if known.get(uid) is not None}
    return {index: int(number) for index, number in numbers.items()}
