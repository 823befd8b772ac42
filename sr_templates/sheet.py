"""A page of pictures and text, and the Secondary Capture Image it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from sr_templates import stamp
from sr_templates.base import Maker, ObjectIdentity

WIDTH = 1024
MARGIN = 16
TOP = 128
"""Left empty: viewers put their own controls and texts there."""
BACKGROUND = (14, 17, 22)
PANEL = (28, 33, 41)
WHITE = (255, 255, 255)
GRAY = (176, 184, 196)
YELLOW = (255, 214, 10)

Color = tuple[int, int, int]


@dataclass
class Sheet:
    """A picture, and how far down it is filled."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    y: int

    @classmethod
    def empty(cls, height: int) -> Sheet:
        """Start a page of at most this height."""
        image = Image.new("RGB", (WIDTH, height), BACKGROUND)
        return cls(image, ImageDraw.Draw(image), TOP)

    def pixels(self) -> NDArray[np.uint8]:
        """Give the part that is filled, shape (rows, 1024, 3)."""
        return np.asarray(self.image.crop((0, 0, WIDTH, self.y)), np.uint8)

    def outlined(
        self, place: tuple[float, float], text: str, color: Color, size: int, anchor: str
    ) -> None:
        """Write text that stays legible on any picture."""
        self.draw.text(
            place, text, color, font(size, True), anchor, stroke_width=2, stroke_fill=(0, 0, 0)
        )


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the page's typeface."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


def fitting(text: str, size: int, width: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Largest font up to a size in which the text is no wider than `width`."""
    while size > 12 and font(size, bold).getlength(text) > width:
        size -= 1
    return font(size, bold)


def draw_caution(sheet: Sheet, maker: Maker) -> None:
    """Say in yellow what the model is not for."""
    text = stamp.caution(maker)
    if not text:
        return
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + 44)
    sheet.draw.rounded_rectangle(box, 8, YELLOW)
    middle = WIDTH // 2, sheet.y + 22
    sheet.draw.text(middle, text, (0, 0, 0), font(29, True), anchor="mm")
    sheet.y += 52


def draw_foot(sheet: Sheet, maker: Maker) -> None:
    """Say who made the page, and when."""
    made = f"{maker.at:%Y-%m-%d %H:%M %Z}".strip()
    foot = (
        f"{maker.model.family} {maker.model.version} ({maker.model.sha256[:8]})   ·   "
        f"scorenode {maker.software_version}   ·   {made}"
    )
    sheet.draw.text((MARGIN, sheet.y), foot, GRAY, fitting(foot, 20, WIDTH - 2 * MARGIN))
    sheet.y += 34


def secondary_capture(
    pixels: NDArray[np.uint8], sources: Sequence[Dataset], identity: ObjectIdentity, maker: Maker
) -> Dataset:
    """Write a page as a Secondary Capture Image.

    Parameters
    ----------
    pixels : NDArray[np.uint8]
        Shape (rows, columns, 3), RGB.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
    maker : Maker

    References
    ----------
    DICOM PS3.3 A.8.1.
    """
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
