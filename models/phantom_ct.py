"""Head CT that never was: made from mean anatomy and chance, with every bleeding voxel known.

A phantom is drawn in the space of the ICBM152 maps (`models.anatomy`), as HU of soft tissue, as
distances to the skull and to the skin, and as depth in the haemorrhage; then it is posed, bent and
averaged over the thickness of each slice, and only there made into bone, scalp and air, so that
edges are as sharp as the pixels.

Random numbers come from independent streams: two phantoms of one seed and different kinds are the
same head, in the same pose, under the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Volume
from models.phantom_blood import Blood, draw_blood
from models.phantom_head import (
    AIR,
    F32,
    FAT,
    MARGIN,
    MUSCLE,
    SCALP_MM,
    STEP_MM,
    Head,
    draw_head,
    load_atlas,
)
from models.phantom_optics import blur, draw_optics

KINDS = ("none", "iph", "ivh", "sdh", "edh", "sah")
"""No blood; intraparenchymal, intraventricular, subdural, epidural, subarachnoid haemorrhage."""

FIELD_MM = (216.0, 240.0, 170.0)
"""Field of view from right to left, front to back, bottom to top."""
CENTER = np.array((0.0, -18.0, 8.0), np.float32)
"""Middle of the field of view, RAS+ mm; about it the head turns."""
MOST_TILT = 30.0
"""Degrees."""
SAMPLE_MM = 5.0 / 3.0
"""Distance of the samples that a slice averages."""
BONE_SHARED_HU = 120.0
"""Blood reaches 100 HU, and bone brightens what is near by up to 20; brighter, a voxel is bone to
whoever outlines blood, even if half of it is blood."""


@dataclass(frozen=True, eq=False)
class HeadPhantom:
    """A head CT and its truth.

    Parameters
    ----------
    volume : Volume
        Array of shape (columns, rows, slices) in HU; columns run to the patient's left, rows to
        the back, slices up.
    labels : NDArray[np.uint8]
        Same grid; where more than half is blood that can be told from bone, the index of `kind`
        in `KINDS`, else 0.
    kind : str
        One of `KINDS`.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    kind: str

    @property
    def volume_ml(self) -> float:
        """Volume of the haemorrhage that can be told from bone, millilitres."""
        return float(np.count_nonzero(self.labels)) * self.volume.voxel_ml


def make_head_ct(
    seed: int,
    kind: str | None = None,
    spacing: tuple[float, float, float] = (0.9, 0.9, 5.0),
    noise: float | None = None,
    tilt: float = 0.0,
    thickness: float | None = None,
) -> HeadPhantom:
    """Make one non-contrast head CT.

    Parameters
    ----------
    seed : int
        Same seed and arguments, same phantom.
    kind : str or None
        One of `KINDS`; None: any of them, each once in every six seeds from a multiple of six.
    spacing : tuple of float
        Millimetres between columns, rows and slices.
    noise : float or None
        Standard deviation of the noise in HU; None: 2.5 to 6.
    tilt : float
        Of the gantry, degrees: slices are turned about the axis from ear to ear, positive with
        the front edge up, and follow each other along the table all the same.
    thickness : float or None
        Millimetres that a slice averages, to the nearest sample on both sides; thicker than their
        spacing are slices that overlap, or were interpolated. None: as thick as their spacing.

    Returns
    -------
    HeadPhantom

    Raises
    ------
    ValueError
        The kind is unknown, a spacing is not a positive number, or the tilt is above 30 degrees.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if not all(0 < step < min(FIELD_MM) / 4 for step in spacing):
        raise ValueError(f"spacing {spacing} mm does not fit a head")
    if not abs(tilt) <= MOST_TILT:
        raise ValueError(f"a gantry tilts by up to {MOST_TILT:g} degrees, not by {tilt}")
    build, bleed, place, image, optics = (np.random.default_rng([seed, n]) for n in range(1, 6))
    chosen = kind or _any_kind(seed)
    head = draw_head(build)
    blood = None if chosen == "none" else draw_blood(bleed, chosen, head)
    grid = _Grid(spacing, tilt, thickness or spacing[2])
    array, fraction = _scan(head, blood, _draw_pose(place), grid)
    blur(array, spacing, draw_optics(optics))
    seen = (fraction > 0.5) & (array < BONE_SHARED_HU)
    labels = seen.astype(np.uint8) * np.uint8(KINDS.index(chosen))
    _add_artefacts(array, grid, image, noise)
    facts: dict[str, str | float | int | bool] = {"modality": "CT", "plane": "axial"}
    return HeadPhantom(Volume(array, grid.affine, facts=facts), labels, chosen)


class _Grid:
    """Voxel centres of the scan: columns to the left, rows to the back, slices up.

    `slope` is how far a slice rises for each millimetre to the front, as sine and cosine.
    """

    def __init__(self, spacing: tuple[float, float, float], tilt: float, thickness: float) -> None:
        self.spacing = spacing
        self.parts = max(round(spacing[2] / SAMPLE_MM), 1)
        self.beyond = max(round(self.parts * (thickness / spacing[2] - 1) / 2), 0)
        self.shape = tuple(int(field / step) for field, step in zip(FIELD_MM, spacing, strict=True))
        self.slope = float(np.sin(np.deg2rad(tilt))), float(np.cos(np.deg2rad(tilt)))
        self.steps = np.diag([-spacing[0], -spacing[1], spacing[2]])
        middle = (np.array(self.shape) - 1) / 2
        self.start = CENTER - self.steps @ middle
        self.affine = np.eye(4)
        self.affine[:3, :3] = self.steps
        self.affine[1:3, 1] = -spacing[1] * self.slope[1], -spacing[1] * self.slope[0]
        self.affine[:3, 3] = CENTER - self.affine[:3, :3] @ middle

    def axis(self, number: int, parts: int = 1, beyond: int = 0) -> F32:
        """RAS+ coordinates along one axis, of `parts` samples in each voxel, before the tilt.

        `beyond` samples more at either end.
        """
        count = self.shape[number] * parts
        index = (np.arange(-beyond, count + beyond) + 0.5) / parts - 0.5
        place: F32 = self.start[number] + self.steps[number, number] * index
        return place.astype(np.float32)


WAVES = 4


def _any_kind(seed: int) -> str:
    block, place = divmod(seed, len(KINDS))
    return KINDS[np.random.default_rng([block, 0]).permutation(len(KINDS))[place]]


@dataclass(frozen=True, eq=False)
class _Pose:
    """From scanner to atlas: turn and scale, shift, and smooth bending.

    `bend` has shape (3, 4, 4, 4): amplitudes in mm of products of cosines over the field of view.
    """

    matrix: F32
    shift: F32
    bend: F32


def _draw_pose(random: np.random.Generator) -> _Pose:
    pitch, roll, yaw = np.deg2rad(random.normal(0, (5, 4, 4)))
    turn = _turn(1, 2, pitch) @ _turn(0, 2, roll) @ _turn(0, 1, yaw)
    order = sum(np.meshgrid(*[np.arange(WAVES) ** 2] * 3, indexing="ij"))
    bend = random.standard_normal((3, WAVES, WAVES, WAVES)) * 1.6 / (1 + order / 2)
    return _Pose(
        matrix=(turn * random.uniform(0.98, 1.14)).astype(np.float32),
        shift=random.normal(0, (3, 3, 3)).astype(np.float32),
        bend=bend.astype(np.float32),
    )


def _turn(first: int, second: int, angle: float) -> NDArray[np.float64]:
    turn = np.eye(3)
    turn[[first, second], [first, second]] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


def _waves(axis: F32, center: float, field: float) -> F32:
    """Cosines along one axis, shape (`WAVES`, n)."""
    phase = np.pi * ((axis - center) / field + 0.5)
    waves: F32 = np.cos(np.arange(WAVES, dtype=np.float32)[:, None] * phase)
    return waves


def _scan(head: Head, blood: Blood | None, pose: _Pose, grid: _Grid) -> tuple[F32, F32]:
    """Return HU and the fraction of blood, both averaged over each slice."""
    array = np.zeros(grid.shape, np.float32, order="F")
    fraction = np.zeros(grid.shape, np.float32, order="F")
    places = _Places(pose, grid)
    parts, thick = grid.parts, grid.parts + 2 * grid.beyond
    for plane in range(grid.shape[2] * parts + 2 * grid.beyond):
        hu, share = _sample(head, blood, places.of(plane))
        first = max((plane - thick) // parts + 1, 0)
        for k in range(first, min(plane // parts + 1, grid.shape[2])):
            array[:, :, k] += hu / thick
            fraction[:, :, k] += share / thick
    return array, fraction


class _Places:
    """Atlas coordinates of one plane of samples at a time."""

    def __init__(self, pose: _Pose, grid: _Grid) -> None:
        self.pose = pose
        self.slope = grid.slope
        axes = [grid.axis(0), grid.axis(1), grid.axis(2, grid.parts, grid.beyond)]
        self.waves = [_waves(axes[i], float(CENTER[i]), FIELD_MM[i]) for i in range(3)]
        self.away = [axis - CENTER[i] for i, axis in enumerate(axes)]

    def of(self, plane: int) -> F32:
        """Coordinates of shape (3, columns, rows)."""
        sine, cosine = self.slope
        x, along, up = self.away[0][:, None], self.away[1][None, :], self.away[2][plane]
        y, z = cosine * along, up + sine * along
        bend = np.tensordot(self.pose.bend, self.waves[2][:, plane], 1)
        bent = self.waves[0].T @ bend @ self.waves[1]
        turn, start = self.pose.matrix, CENTER + self.pose.shift
        straight = [t[0] * x + t[1] * y + (t[2] * z + s) for t, s in zip(turn, start, strict=True)]
        places: F32 = np.stack(straight)
        places += bent
        return places


def _sample(head: Head, blood: Blood | None, places: F32) -> tuple[F32, F32]:
    """HU and fraction of blood at points of the atlas, shape (columns, rows)."""
    atlas = load_atlas()
    hu = np.full(places.shape[1:], AIR, np.float32)
    share = np.zeros_like(hu)
    every = Points.among((places - atlas.origin[:, None, None]) / np.float32(STEP_MM), atlas.shape)
    skin = every.of(atlas.skin) + np.float32(SCALP_MM - head.scalp_mm)
    inside = skin < 1
    if not inside.any():
        return hu, share
    points, where, skin = every.only(inside), places[:, inside], skin[inside]
    inner, tissue = points.of(head.inner), points.of(head.soft)
    _put_falx(tissue, head, where, inner)
    bleeding = np.zeros_like(tissue)
    if blood is not None:
        bleeding = _put_blood(tissue, blood, points)
    bone = _put_shell(tissue, head, points, inner, skin)
    hu[inside], share[inside] = tissue, bleeding * (1 - bone)
    return hu, share


@dataclass(frozen=True, eq=False)
class Points:
    """Points among the voxels of maps of one shape: where they lie is found once for all maps.

    Three times as fast as `scipy.ndimage.map_coordinates` of order 1 for each map, with the same
    result within the rounding of float32.

    Parameters
    ----------
    voxels : NDArray[np.float32]
        Where they lie, shape (3, ...).
    first : NDArray[np.int64]
        Voxel before each of them, in a flat map.
    part : NDArray[np.float32]
        How far it is on its way to the next voxel along each axis, 0 to 1; shape (3, ...).
    steps : tuple of int
        From a voxel to the next along each axis, in a flat map.
    """

    voxels: F32
    first: NDArray[np.int64]
    part: F32
    steps: tuple[int, int, int]

    @classmethod
    def among(cls, voxels: F32, shape: tuple[int, ...]) -> Points:
        """Find points in maps of at least two voxels along each axis; outside is as the border."""
        steps = shape[1] * shape[2], shape[2], 1
        last = np.array(shape).reshape(3, *(1,) * (voxels.ndim - 1)) - 2
        low = np.clip(voxels.astype(np.int64), 0, last)
        first = low[0] * steps[0] + low[1] * steps[1] + low[2]
        return cls(voxels, first, np.clip(voxels - low, 0, 1).astype(np.float32), steps)

    def only(self, chosen: NDArray[np.bool_]) -> Points:
        """Choose some of them."""
        return Points(self.voxels[:, chosen], self.first[chosen], self.part[:, chosen], self.steps)

    def of(self, field: F32) -> F32:
        """Look up a map, by trilinear interpolation."""
        return self._along(0, field.ravel(), 0)

    def _along(self, axis: int, values: F32, beyond: int) -> F32:
        if axis == 3:
            taken: F32 = values.take(self.first + beyond)
            return taken
        low = self._along(axis + 1, values, beyond)
        low += self.part[axis] * (self._along(axis + 1, values, beyond + self.steps[axis]) - low)
        return low


def _edge(depth: F32, width_mm: float = 1.0) -> F32:
    """From depth below a surface to the fraction inside, over an edge `width_mm` wide."""
    part: F32 = np.clip(depth / np.float32(width_mm) + np.float32(0.5), 0, 1)
    return part


def _put_falx(tissue: F32, head: Head, where: F32, inner: F32) -> None:
    """Put falx and tentorium, with the sagittal and transverse sinuses along their edges."""
    x, y, z = where
    around = ((y + 12) / 62) ** 2 + ((z - 8) / 34) ** 2
    sheet = _edge(np.minimum(0.9 - np.abs(x), (around - 1) * 30))
    sinus = _edge(np.minimum(3.8 + 0.45 * inner - np.abs(x), inner + 8))
    part = np.maximum(sheet, sinus) * (z > -2)
    far = np.hypot(x, y + 45)
    tent = _edge(np.minimum(0.8 - np.abs(z - 2 + 0.38 * far), far - 18))
    groove = _edge(np.minimum(4.0 - np.abs(z + 22), inner + 6))
    part = np.maximum(part, np.maximum(tent, groove) * (y < -40)) * (inner < 1)
    tissue += part * (np.float32(head.falx_hu) - tissue)


def _put_blood(tissue: F32, blood: Blood, points: Points) -> F32:
    """Put oedema and blood, and return the fraction of blood."""
    if blood.oedema is not None:
        swollen = _edge(points.of(blood.oedema), 2.0)
        tissue += 0.7 * swollen * (np.float32(blood.oedema_hu) - tissue)
    share = _edge(points.of(blood.depth))
    some = share > 0
    tissue[some] += share[some] * (points.only(some).of(blood.hu) - tissue[some])
    return share


def _put_shell(tissue: F32, head: Head, points: Points, inner: F32, skin: F32) -> F32:
    """Put skull with its diploe, scalp, skin and air outside; return the fraction of bone."""
    outside = inner > head.gap_mm - 0.5
    deep, cover = inner[outside], skin[outside]
    near = points.only(outside)
    wobble = near.of(head.wobble)
    own = tissue[outside]
    scalp = _edge(14 - deep, 2.0) * (near.voxels[2] > MARGIN + 22)
    scalp *= deep > (head.gap_mm + head.outer_mm) / 2
    own += scalp * (np.where(wobble > 0.8, MUSCLE, FAT) - own)
    own += _edge(cover + 6.5, 3.0) * (FAT - own)
    own += _edge(cover + 2.2) * (40 - own)
    outer = head.outer_mm + 0.8 * wobble
    bone = _edge(np.minimum(deep - head.gap_mm, outer - deep))
    spongy = _edge(np.minimum(deep - head.gap_mm, outer - deep) - head.table_mm, 1.5)
    shell = head.bone_hu + spongy * (head.diploe_hu + 120 * wobble - head.bone_hu)
    own += bone * (shell - own)
    own += _edge(cover) * (AIR - own)
    tissue[outside] = own
    fraction = np.zeros_like(tissue)
    fraction[outside] = bone
    return fraction


def _add_artefacts(
    array: F32, grid: _Grid, random: np.random.Generator, noise: float | None
) -> None:
    """Add correlated noise, cupping, and in half of the scans a streak between petrous bones."""
    level = random.uniform(2.5, 6) if noise is None else noise
    x, y = grid.axis(0)[:, None], grid.axis(1)[None, :]
    bow = random.normal(0, 3) * ((x / 110) ** 2 + ((y - CENTER[1]) / 120) ** 2 - 0.5)
    for k in range(array.shape[2]):
        grain = random.standard_normal(array.shape[:2], dtype=np.float32)
        grain = ndimage.gaussian_filter(grain, 0.6)
        image = array[:, :, k]
        image += np.float32(level) / grain.std() * grain + bow * (image > -200)
    if random.random() < 0.5:
        height = grid.axis(2) - random.uniform(-52, -25)
        across = np.exp(-(((y + 22 + 0.1 * x) / 6) ** 2)) * (np.abs(x) < 70)
        along = random.uniform(-14, 14) * np.exp(-((height / 5) ** 2))
        array += (across[:, :, None] * along).astype(np.float32)
