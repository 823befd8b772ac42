"""One page that says what the model found, for readers whose viewer shows neither SEG nor SR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from models.base import Findings, Volume
from sr_templates import stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.codes import display
from sr_templates.notice import MARKS, MEANINGS, STATEMENTS, Notice
from sr_templates.tiles import View, chosen_slices, magnified, plain_tile, scout, tile, view_of
from sr_templates.wording import extent, score, verdict, volume_text

BRAIN = (40.0, 80.0)
"""Window level and width for blood on head CT, HU."""
WIDTH = 1024
MARGIN = 16
TOP = 48
"""Left empty: viewers put their own controls there."""
VERDICT = 212
"""Height of the verdict and the gap below it."""
COLUMNS, ROWS, GAP = 3, 2, 8
TILE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
SCOUT = (300, 212)
BACKGROUND = (14, 17, 22)
PANEL = (28, 33, 41)
WHITE = (255, 255, 255)
GRAY = (176, 184, 196)
YELLOW = (255, 214, 10)
VERDICTS = {True: (214, 40, 57), False: (34, 120, 76), None: (176, 112, 0)}
"""Colour of the verdict: found, not found, undetermined."""


@dataclass
class _Page:
    """A picture, and how far down it is filled."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    y: int


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
    image = Image.new("RGB", (WIDTH, height), BACKGROUND)
    sheet = _Page(image, ImageDraw.Draw(image), TOP)
    _draw_verdict(sheet, view, findings, maker, instance_numbers)
    _draw_caution(sheet, maker)
    _draw_montage(sheet, view, findings, slices, largest, instance_numbers)
    _draw_strip(sheet, view, findings, slices, instance_numbers)
    _draw_foot(sheet, maker)
    return np.asarray(image.crop((0, 0, WIDTH, sheet.y)), np.uint8)


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
    numbers = _instance_numbers(volume, sources)
    pixels = page(findings, volume, maker, window=window, instance_numbers=numbers)
    return _as_capture(pixels, sources, identity, maker)


def _as_capture(
    pixels: NDArray[np.uint8], sources: Sequence[Dataset], identity: ObjectIdentity, maker: Maker
) -> Dataset:
    reference = stamp.anonymous(sources[:1])[0]
    general = stamp.general(reference, identity, maker)
    equipment = general.pop("contributing_equipment")
    result = SCImage.from_ref_dataset(
        reference,
        pixels,
        "RGB",
        8,
        "PATIENT",
        patient_orientation=("L", "P"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        contributing_equipment=equipment,
        specific_character_set="ISO_IR 192",
        **general,
    )
    _finish(result, sources, maker)
    return result


def _any(findings: Findings) -> bool:
    return findings.labels is not None and bool(findings.labels.any())


def _holds(findings: Findings, segment: int) -> bool:
    return findings.labels is not None and bool((findings.labels == segment).any())


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


def _fitting(text: str, size: int, width: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Largest font up to a size in which the text is no wider than `width`."""
    while size > 12 and _font(size, bold).getlength(text) > width:
        size -= 1
    return _font(size, bold)


def _draw_verdict(
    sheet: _Page,
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
    sheet.draw.rounded_rectangle(box, 12, VERDICTS[findings.present])
    for text, below, size, bold in lines:
        place = MARGIN + 20, sheet.y + below
        sheet.draw.text(place, text, WHITE, _fitting(text, size, inner, bold))
    sheet.y += VERDICT


def _draw_caution(sheet: _Page, maker: Maker) -> None:
    text = stamp.caution(maker)
    if not text:
        return
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + 44)
    sheet.draw.rounded_rectangle(box, 8, YELLOW)
    middle = WIDTH // 2, sheet.y + 22
    sheet.draw.text(middle, text, (0, 0, 0), _font(29, True), anchor="mm")
    sheet.y += 52


def _draw_montage(
    sheet: _Page,
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
    sheet: _Page, view: View, findings: Findings, corner: tuple[int, int], name: str, index: int
) -> None:
    """Draw the slice again without labels, so that a reader can judge the tissue under them."""
    closer = magnified(view, findings, index)
    sheet.image.paste(plain_tile(closer, index, TILE), corner)
    tag = "no overlay" if closer is view else "magnified"
    _label_tile(sheet, view, corner, (name, tag), index)


def _label_tile(
    sheet: _Page, view: View, corner: tuple[int, int], names: tuple[str, str], index: int
) -> None:
    x, y = corner
    name, tag = names
    _text(sheet, (x + TILE - 10, y + 8), tag, WHITE, 22, "ra")
    left, right, _, _ = view.letters
    _text(sheet, (x + 10, y + 8), name, WHITE, 24, "la")
    _text(sheet, (x + 10, y + TILE - 8), _position(view, index), GRAY, 22, "ls")
    _text(sheet, (x + 8, y + TILE // 2), left, YELLOW, 26, "lm")
    _text(sheet, (x + TILE - 8, y + TILE // 2), right, YELLOW, 26, "rm")


def _text(
    sheet: _Page,
    place: tuple[int, int],
    text: str,
    color: tuple[int, int, int],
    size: int,
    anchor: str,
) -> None:
    """Write text that stays legible on any picture."""
    sheet.draw.text(
        place, text, color, _font(size, True), anchor, stroke_width=2, stroke_fill=(0, 0, 0)
    )


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
    sheet: _Page,
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
        sheet.draw.text((end + 8, y), name, YELLOW, _font(20, True), anchor)
    _draw_legend(sheet, findings, MARGIN + SCOUT[0] + 64)
    sheet.y += SCOUT[1] + 24


def _draw_foot(sheet: _Page, maker: Maker) -> None:
    made = f"{maker.at:%Y-%m-%d %H:%M %Z}".strip()
    foot = (
        f"{maker.model.family} {maker.model.version} ({maker.model.sha256[:8]})   ·   "
        f"scorenode {maker.software_version}   ·   {made}"
    )
    sheet.draw.text((MARGIN, sheet.y), foot, GRAY, _fitting(foot, 20, WIDTH - 2 * MARGIN))
    sheet.y += 34


def _draw_legend(sheet: _Page, findings: Findings, x: int) -> None:
    y = sheet.y + 16
    width = WIDTH - MARGIN - 16 - x
    found = _any(findings)
    heading = "Found" if found else "Looked for, not found"
    if not found and findings.present is None:
        heading = "Looked for"
    sheet.draw.text((x, y), heading, WHITE, _font(24, True))
    room = SCOUT[1] - 80
    step = min(34, room // max(len(findings.segments), 1))
    for segment in findings.segments:
        y += step if segment is not findings.segments[0] else 38
        sheet.draw.rounded_rectangle((x, y + 2, x + 22, y + 22), 4, segment.color)
        text = segment.label
        here = _holds(findings, segment.number)
        color = WHITE if here or not found else GRAY
        sheet.draw.text((x + 34, y), text, color, _fitting(text, 22, width - 180))
        if found:
            value = (volume_text(findings, segment.number) or "yes") if here else "none"
            sheet.draw.text((x + width, y), value, color, _font(22, here), "ra")
    note = "Not found does not mean excluded." if not found else "Yellow lines: slices shown above."
    sheet.draw.text((x, sheet.y + SCOUT[1] - 22), note, GRAY, _font(22))


def _instance_numbers(volume: Volume, sources: Sequence[Dataset]) -> dict[int, int] | None:
    """Instance Number by slice, where every slice is an instance of its own."""
    known = {str(ds.SOPInstanceUID): ds.get("InstanceNumber") for ds in sources}
    uids = volume.source_instance_uids
    if len(set(uids)) != volume.array.shape[2]:
        return None
    numbers = {i: known[uid] for i, uid in enumerate(uids) if known.get(uid) is not None}
    return {index: int(number) for index, number in numbers.items()}


def _finish(result: Dataset, sources: Sequence[Dataset], maker: Maker) -> None:
    stamp.stamp(result, sources[0], maker)
    result.DateOfSecondaryCapture = result.ContentDate
    result.TimeOfSecondaryCapture = result.ContentTime
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = "NO"
    result.DerivationDescription = f"{maker.model.family} {maker.model.version}: summary page"
    caution = stamp.caution(maker)
    if caution:
        result.ImageComments = caution
    result.PatientOrientation = None
    if "BodyPartExamined" not in result:  # Type 2C: nothing then says that the part is not paired
        result.Laterality = sources[0].get("Laterality", "")


def notice_capture(
    notice: Notice, sources: Sequence[Dataset], identity: ObjectIdentity, maker: Maker
) -> Dataset:
    """Write a notice as a page, for viewers that show no SR.

    Parameters
    ----------
    notice : Notice
    sources : sequence of Dataset
        As `normalised` or `fit_sources` returns them.
    identity : ObjectIdentity
    maker : Maker
    """
    marked = replace(
        identity, series_description=f"{MARKS[notice.status]}: {identity.series_description}"
    )
    return _as_capture(notice_page(notice, maker), sources, marked, maker)


def notice_page(notice: Notice, maker: Maker) -> NDArray[np.uint8]:
    """Draw the sentences of a notice; shape (rows, 1024, 3), RGB."""
    image = Image.new("RGB", (WIDTH, 1600), BACKGROUND)
    sheet = _Page(image, ImageDraw.Draw(image), TOP)
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + 130)
    sheet.draw.rounded_rectangle(box, 12, VERDICTS[False if notice.status == "scored" else None])
    inner = WIDTH - 2 * MARGIN - 40
    what = display(maker.model.finding)
    title = f"{maker.model.title}, version {maker.model.version}"
    for text, below, size in ((title, 14, 26), (f"{what}: {MARKS[notice.status]}", 56, 46)):
        place = MARGIN + 20, sheet.y + below
        sheet.draw.text(place, text, WHITE, _fitting(text, size, inner, size > 26))
    sheet.y += 146
    _draw_caution(sheet, maker)
    sheet.y += 12
    reason = f"Reason code: {notice.reason}" if notice.reason else ""
    for text, color in (
        (STATEMENTS[notice.status].format(what=what, minutes=notice.minutes), WHITE),
        (notice.sentence, WHITE),
        (MEANINGS[notice.status], YELLOW),
        (notice.advice, WHITE),
        (reason, GRAY),
    ):
        _draw_paragraph(sheet, text, color)
    _draw_foot(sheet, maker)
    return np.asarray(image.crop((0, 0, WIDTH, sheet.y)), np.uint8)


def _draw_paragraph(sheet: _Page, text: str, color: tuple[int, int, int]) -> None:
    """Write a text of any length, line by line."""
    font, line = _font(26), ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > WIDTH - 2 * MARGIN - 40:
            sheet.draw.text((MARGIN + 20, sheet.y), line, color, font)
            sheet.y += 36
            longer = word
        line = longer
    if line:
        sheet.draw.text((MARGIN + 20, sheet.y), line, color, font)
        sheet.y += 52
