"""A notice as a page, for viewers that show no SR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sr_templates.base import Maker, ObjectIdentity
from sr_templates.codes import display
from sr_templates.notice import MARKS, MEANINGS, STATEMENTS, Notice
from sr_templates.sheet import (
    GRAY,
    MARGIN,
    WHITE,
    WIDTH,
    YELLOW,
    Color,
    Sheet,
    draw_caution,
    draw_foot,
    fitting,
    font,
    secondary_capture,
)

ORANGE, GREEN = (176, 112, 0), (34, 120, 76)
TALLEST = 2400


def notice_capture(
    notice: Notice, sources: Sequence[Dataset], identity: ObjectIdentity, maker: Maker
) -> Dataset:
    """Write a notice as a Secondary Capture Image.

    Parameters
    ----------
    notice : Notice
    sources : sequence of Dataset
        As `normalised` or `fit_sources` returns them.
    identity : ObjectIdentity
    maker : Maker
    """
    description = f"{MARKS[notice.status]}: {identity.series_description}"
    marked = replace(identity, series_description=description)
    return secondary_capture(notice_page(notice, maker), sources, marked, maker)


def notice_page(notice: Notice, maker: Maker) -> NDArray[np.uint8]:
    """Draw the sentences of a notice; shape (rows, 1024, 3), RGB."""
    sheet = Sheet.empty(TALLEST)
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + 130)
    sheet.draw.rounded_rectangle(box, 12, GREEN if notice.status == "scored" else ORANGE)
    inner = WIDTH - 2 * MARGIN - 40
    what = display(maker.model.finding)
    title = f"{maker.model.title}, version {maker.model.version}"
    for text, below, size in ((title, 14, 26), (f"{what}: {MARKS[notice.status]}", 56, 46)):
        place = MARGIN + 20, sheet.y + below
        sheet.draw.text(place, text, WHITE, fitting(text, size, inner, size > 26))
    sheet.y += 146
    draw_caution(sheet, maker)
    sheet.y += 12
    for text, color in (
        (STATEMENTS[notice.status].format(what=what, minutes=notice.minutes), WHITE),
        (notice.sentence, WHITE),
        (MEANINGS[notice.status], YELLOW),
        (notice.advice, WHITE),
        (f"Reason code: {notice.reason}" if notice.reason else "", GRAY),
    ):
        _draw_paragraph(sheet, text, color)
    draw_foot(sheet, maker)
    return sheet.pixels()


def _draw_paragraph(sheet: Sheet, text: str, color: Color) -> None:
    """Write a text of any length, line by line; a page has an end."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font(26).getlength(longer) > WIDTH - 2 * MARGIN - 40:
            _draw_line(sheet, line, color)
            longer = word
        line = longer
    if line:
        _draw_line(sheet, line, color)
        sheet.y += 16


def _draw_line(sheet: Sheet, line: str, color: Color) -> None:
    if sheet.y < TALLEST - 100:
        sheet.draw.text((MARGIN + 20, sheet.y), line, color, font(26))
        sheet.y += 36
