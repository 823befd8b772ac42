"""One page that says where a person lies between two prototypes, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import CasePrognosis, Findings, UsedFeature, Volume
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.planes import plane_pictures
from sr_templates.sheet import (
    GRAY,
    MARGIN,
    PANEL,
    TOP,
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

STABLE: Color = (64, 170, 150)
DECLINING: Color = (232, 140, 40)
VERDICTS: dict[str, Color] = {
    "stable": (22, 104, 92),
    "declining": (168, 84, 0),
    "undetermined": (84, 92, 106),
}
VERDICT, AXIS, ROW, HEADING, GAP = 190, 196, 62, 44, 8
MOST_FEATURES, MOST_REASONS = 8, 3
TILE = (WIDTH - 2 * MARGIN - 2 * GAP) // 3
LABEL_X, VALUE_X, RANGE_X, SHARE_X = MARGIN + 16, 420, 450, 752
RANGE_W, SHARE_W, SIGN_W = 262, 240, 74


def prognosis_page(findings: Findings, volume: Volume, maker: Maker) -> NDArray[np.uint8]:
    """Draw score, axis, planes and features.

    Parameters
    ----------
    findings : Findings
        With a `prognosis`; ``labels`` 1 is grey matter.
    volume : Volume
        On whose grid the labels lie.
    maker : Maker

    Returns
    -------
    NDArray[np.uint8]
        Shape (rows, 1024, 3), RGB, without anything that identifies the patient.
    """
    case = findings.prognosis
    if case is None:
        raise ValueError("the findings hold no prognosis")
    shown = _shown(case)
    height = TOP + VERDICT + 52 + AXIS + TILE + HEADING + ROW * len(shown) + 300
    sheet = Sheet.empty(height)
    _draw_verdict(sheet, case, maker)
    draw_caution(sheet, maker)
    _draw_axis(sheet, case)
    _draw_planes(sheet, findings, volume, case)
    _draw_features(sheet, case, shown)
    _draw_reasons(sheet, case)
    draw_foot(sheet, maker)
    return sheet.pixels()


def prognosis_capture(
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

    References
    ----------
    DICOM PS3.3 A.8.1.
    """
    return secondary_capture(prognosis_page(findings, volume, maker), sources, identity, maker)


def headline(case: CasePrognosis) -> str:
    """Say what a reader needs first."""
    match case.outcome:
        case "undetermined":
            return f"Score {case.projection:.2f}: undetermined"
        case "stable":
            return f"Score {case.projection:.2f}: {_like(case)} {case.stable}"
        case "declining":
            return f"Score {case.projection:.2f}: {_like(case)} {case.declining}"


def _like(case: CasePrognosis) -> str:
    """How surely a case is on its side: whether the interval stays there."""
    low, high = case.projection_interval
    return "more like" if low <= case.threshold <= high else "like"


def _shown(case: CasePrognosis) -> list[UsedFeature]:
    """Features that weigh most, in the order of the model."""
    heaviest = sorted(case.features, key=lambda one: -abs(one.contribution))[:MOST_FEATURES]
    return [one for one in case.features if one in heaviest]


def _draw_verdict(sheet: Sheet, case: CasePrognosis, maker: Maker) -> None:
    inner = WIDTH - 2 * MARGIN - 40
    low, high = case.projection_interval
    p_low, p_high = case.probability_interval
    probability = (
        f"probability of {case.declining} {case.probability:.2f} ({p_low:.2f} to {p_high:.2f})"
    )
    lines = (
        (f"{maker.model.title}, version {maker.model.version}", 12, 26, False),
        (headline(case), 46, 58, True),
        (f"95 % interval {low:.2f} to {high:.2f}   ·   {probability}", 124, 32, False),
    )
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + VERDICT - 8)
    sheet.draw.rounded_rectangle(box, 12, VERDICTS[case.outcome])
    for text, below, size, bold in lines:
        place = MARGIN + 20, sheet.y + below
        sheet.draw.text(place, text, WHITE, fitting(text, size, inner, bold))
    sheet.y += VERDICT


def _draw_axis(sheet: Sheet, case: CasePrognosis) -> None:
    """Draw the way from one prototype to the other, and where the case lies on it."""
    box = (MARGIN, sheet.y, WIDTH - MARGIN, sheet.y + AXIS - GAP)
    sheet.draw.rounded_rectangle(box, 8, PANEL)
    low, high = case.projection_interval
    places = (low, high, case.projection, case.threshold)
    first, last = min(-0.5, min(places) - 0.15), max(1.5, max(places) + 0.15)
    left, right = MARGIN + 40, WIDTH - MARGIN - 40

    def x(at: float) -> float:
        return left + (at - first) / (last - first) * (right - left)

    line = sheet.y + 92
    border = x(case.threshold)
    sheet.draw.line((left, line, border, line), STABLE, 12)
    sheet.draw.line((border, line, right, line), DECLINING, 12)
    for at, name, color in (
        (0.0, case.stable, STABLE),
        (1.0, case.declining, DECLINING),
    ):
        sheet.draw.line((x(at), line - 18, x(at), line + 22), color, 4)
        sheet.draw.text((x(at), line + 28), f"{at:g}", color, font(26, True), "ma")
        letters = fitting(name, 26, 320, True)
        half = letters.getlength(name) / 2 + 8
        middle = min(max(x(at), MARGIN + half), WIDTH - MARGIN - half)
        sheet.draw.text((middle, line + 58), name, color, letters, "ma")
    sheet.draw.line((border, line - 14, border, line + 22), WHITE, 3)
    sheet.draw.text((border, line + 28), f"{case.threshold:g}", WHITE, font(24), "ma")
    sheet.draw.line((x(low), line, x(high), line), WHITE, 6)
    for end in (low, high):
        sheet.draw.line((x(end), line - 12, x(end), line + 12), WHITE, 5)
    middle = x(case.projection)
    sheet.draw.circle((middle, line), 17, WHITE, (0, 0, 0), 4)
    sheet.draw.text((middle, line - 26), f"{case.projection:.2f}", WHITE, font(36, True), "ms")
    sheet.y += AXIS


def _draw_planes(sheet: Sheet, findings: Findings, volume: Volume, case: CasePrognosis) -> None:
    """Draw grey matter over the head in three planes."""
    grey = findings.segments[0]
    for place, (picture, letters) in enumerate(plane_pictures(findings, volume, grey, TILE)):
        corner = MARGIN + place * (TILE + GAP), sheet.y
        sheet.image.paste(picture, corner)
        left, right = letters
        middle = sheet.y + TILE // 2
        sheet.outlined((corner[0] + 8, middle), left, YELLOW, 26, "lm")
        sheet.outlined((corner[0] + TILE - 8, middle), right, YELLOW, 26, "rm")
    volumes = case.volumes_ml
    total, icv = f"grey matter {volumes['gm']:.0f} ml", f"inside of skull {volumes['icv']:.0f} ml"
    sheet.outlined((MARGIN + 10, sheet.y + TILE - 8), total, grey.color, 24, "ls")
    sheet.outlined((WIDTH - MARGIN - 10, sheet.y + TILE - 8), icv, WHITE, 24, "rs")
    sheet.y += TILE + GAP


def _draw_features(sheet: Sheet, case: CasePrognosis, shown: Sequence[UsedFeature]) -> None:
    bottom = sheet.y + HEADING + ROW * len(shown) + 8
    sheet.draw.rounded_rectangle((MARGIN, sheet.y, WIDTH - MARGIN, bottom), 8, PANEL)
    headings = (
        (LABEL_X, "Used", "la"),
        (RANGE_X + RANGE_W / 2, f"range of {case.stable}", "ma"),
        (SHARE_X + SHARE_W / 2, "share in the score", "ma"),
    )
    for x, text, anchor in headings:
        sheet.draw.text((x, sheet.y + 8), text, GRAY, fitting(text, 24, 270), anchor)
    ends = [one.contribution for one in shown]
    reach = min(0.0, *ends), max(0.0, *ends)
    for number, one in enumerate(shown):
        _draw_feature(sheet, case, one, sheet.y + HEADING + ROW * number, reach)
    sheet.y = bottom + GAP


def _draw_feature(
    sheet: Sheet, case: CasePrognosis, one: UsedFeature, top: int, reach: tuple[float, float]
) -> None:
    value = _value(one)
    room = VALUE_X - LABEL_X - int(font(28, True).getlength(value)) - 12
    sheet.draw.text((LABEL_X, top), one.label, WHITE, fitting(one.label, 28, room, True))
    note = provenance(case, one)
    color = YELLOW if one.source == "imputed" else GRAY
    sheet.draw.text((LABEL_X, top + 33), note, color, fitting(note, 22, VALUE_X - LABEL_X))
    sheet.draw.text((VALUE_X, top), value, WHITE, font(28, True), "ra")
    _draw_range(sheet, one, top + 24)
    _draw_share(sheet, one, top + 24, reach)


def _draw_range(sheet: Sheet, one: UsedFeature, y: int) -> None:
    """Draw the range of stable people as a band, and the case as a dot."""
    if one.usual is None:
        return
    low, high = one.usual
    first, last = min(low, one.value), max(high, one.value)
    reach = max(last - first, 1e-9)
    first, last = first - 0.15 * reach, last + 0.15 * reach

    def x(at: float) -> float:
        return RANGE_X + (at - first) / (last - first) * RANGE_W

    sheet.draw.line((RANGE_X, y, RANGE_X + RANGE_W, y), (70, 78, 90), 3)
    sheet.draw.rounded_rectangle((x(low), y - 11, x(high), y + 11), 5, STABLE)
    sheet.draw.circle((x(one.value), y), 10, WHITE, (0, 0, 0), 3)


def _draw_share(sheet: Sheet, one: UsedFeature, y: int, reach: tuple[float, float]) -> None:
    """Draw a bar, to the right where it pulls towards decline."""
    low, high = reach
    rooms = (SIGN_W if low < 0 else 8, SIGN_W if high > 0 else 8)
    scale = (SHARE_W - sum(rooms)) / max(high - low, 1e-6)
    zero = SHARE_X + rooms[0] - low * scale
    end = zero + one.contribution * scale
    is_pulling = one.contribution > 0
    box = (min(zero, end), y - 11, max(zero, end), y + 11)
    sheet.draw.rectangle(box, DECLINING if is_pulling else STABLE)
    sheet.draw.line((zero, y - 20, zero, y + 20), GRAY, 2)
    place = (end + 6, y) if is_pulling else (end - 6, y)
    anchor = "lm" if is_pulling else "rm"
    sheet.draw.text(place, f"{one.contribution:+.2f}", WHITE, font(24), anchor)


def _draw_reasons(sheet: Sheet, case: CasePrognosis) -> None:
    lines = [reason.sentence for reason in case.reasons[:MOST_REASONS]]
    rest = len(case.features) - MOST_FEATURES
    if rest > 0:
        lines.append(f"{rest} more values weigh less; they are in the report.")
    for text in lines:
        place = MARGIN + 8, sheet.y + 2
        sheet.draw.text(place, text, YELLOW, fitting(text, 26, WIDTH - 2 * MARGIN - 16, True))
        sheet.y += 36
    note = "A place on a scale, no diagnosis. Ranges: central 95 % of stable people in training."
    sheet.draw.text((MARGIN + 8, sheet.y + 2), note, GRAY, fitting(note, 24, WIDTH - 2 * MARGIN))
    sheet.y += 38


def provenance(case: CasePrognosis, one: UsedFeature) -> str:
    """Say where a value is from, in a few words."""
    match one.source:
        case "image":
            ml = sum(case.volumes_ml[region] for region in one.regions)
            return f"grey matter {ml:.1f} ml, of skull's inside"
        case "imputed":
            return "not available: filled in"
        case _:
            return f"{one.date}, {one.source}" if one.date else one.source


def _value(one: UsedFeature) -> str:
    digits = 0 if one.unit == "{score}" and one.value == round(one.value) else 2
    if one.unit == "%":
        digits = 3
    unit = "" if one.unit.startswith("{") or one.unit == "1" else f" {one.unit}"
    return f"{one.value:.{digits}f}{unit}"
