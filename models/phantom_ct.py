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
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy
from models.base import Volume

KINDS = ("none", "iph", "ivh", "sdh", "edh", "sah")
"""No blood; intraparenchymal, intraventricular, subdural, epidural, subarachnoid haemorrhage."""

F32 = NDArray[np.float32]
FIELD_MM = (216.0, 240.0, 170.0)
"""Field of view from right to left, front to back, bottom to top."""
CENTER = np.array((0.0, -18.0, 8.0), np.float32)
"""Middle of the field of view, RAS+ mm; about it the head turns."""
STEP_MM = 2.0
MARGIN = 18
"""Voxels around the brain in the atlas: skull, scalp and face lie there."""
SAMPLE_MM = 5.0 / 3.0
"""Distance of the samples that a slice averages."""
SCALP_MM = 12.0
"""From brain to skin, before a phantom has its own."""
AIR, CSF, FAT, MUSCLE = -1000.0, 8.0, -85.0, 52.0
SMALLEST_ML = 1.5
"""A bleed drawn smaller than this is drawn again."""


@dataclass(frozen=True, eq=False)
class HeadPhantom:
    """A head CT and its truth.

    Parameters
    ----------
    volume : Volume
        Array of shape (columns, rows, slices) in HU; columns run to the patient's left, rows to
        the back, slices up.
    labels : NDArray[np.uint8]
        Same grid; 0 where there is no blood, else the index of `kind` in `KINDS`.
    kind : str
        One of `KINDS`.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    kind: str

    @property
    def volume_ml(self) -> float:
        """True volume of the haemorrhage, millilitres."""
        return float(np.count_nonzero(self.labels)) * self.volume.voxel_ml


def make_head_ct(
    seed: int,
    kind: str | None = None,
    spacing: tuple[float, float, float] = (0.9, 0.9, 5.0),
    noise: float | None = None,
) -> HeadPhantom:
    """Make one non-contrast head CT.

    Parameters
    ----------
    seed : int
        Same seed and arguments, same phantom.
    kind : str or None
        One of `KINDS`; None: any of them, each as likely.
    spacing : tuple of float
        Millimetres between columns, rows and slices; slices are as thick as their spacing.
    noise : float or None
        Standard deviation of the noise in HU; None: 2.5 to 6.

    Returns
    -------
    HeadPhantom

    Raises
    ------
    ValueError
        The kind is unknown, or a spacing is not a positive number.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if not all(0 < step < min(FIELD_MM) / 4 for step in spacing):
        raise ValueError(f"spacing {spacing} mm does not fit a head")
    streams = [np.random.default_rng([seed, stream]) for stream in range(5)]
    chosen = kind or KINDS[streams[0].integers(len(KINDS))]
    head = _draw_head(streams[1])
    blood = None if chosen == "none" else _draw_blood(streams[2], chosen, head)
    grid = _Grid(spacing)
    array, fraction = _scan(head, blood, _draw_pose(streams[3]), grid)
    _add_artefacts(array, grid, streams[4], noise)
    labels = (fraction > 0.5).astype(np.uint8) * np.uint8(KINDS.index(chosen))
    facts: dict[str, str | float | int | bool] = {"modality": "CT", "plane": "axial"}
    return HeadPhantom(Volume(array, grid.affine, facts=facts), labels, chosen)


@dataclass(frozen=True, eq=False)
class _Atlas:
    """What all phantoms share, at 2 mm: maps padded by `MARGIN`, distances in millimetres.

    `inner` is the distance to the inner table (negative inside), `skin` to the skin (negative
    inside); `csf` the ventricles' probability; `places` the open grid of RAS+ coordinates.
    """

    gm: F32
    wm: F32
    inner: F32
    skin: F32
    ventricle: F32
    face: F32
    origin: F32
    places: tuple[F32, F32, F32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.gm.shape


@cache
def _atlas() -> _Atlas:
    anatomy = load_anatomy()
    brain = np.pad(anatomy.brain, MARGIN)
    gm, wm = _padded(anatomy.gm), _padded(anatomy.wm)
    origin = (anatomy.affine[:3, 3] - MARGIN * STEP_MM).astype(np.float32)
    axes = [origin[i] + STEP_MM * np.arange(n, dtype=np.float32) for i, n in enumerate(brain.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inner = _signed_distance(brain)
    hollow = (gm + wm < 0.5) & (inner < -14) & (np.abs(x) < 40) & (z > -15) & (z < 35)
    ventricle = ndimage.gaussian_filter(
        (ndimage.binary_dilation(hollow) & (gm + wm < 0.75) & brain).astype(np.float32), 0.5
    )
    head = (inner < SCALP_MM) | _face_outline(brain, x, y, z)
    skin = ndimage.gaussian_filter(_signed_distance(head), 1.5)
    return _Atlas(gm, wm, inner, skin, ventricle, _face(x, y, z), origin, (x, y, z))


def _padded(tissue: NDArray[np.uint8]) -> F32:
    probability: F32 = np.pad(tissue, MARGIN).astype(np.float32) / np.float32(255)
    return probability


def _signed_distance(inside: NDArray[np.bool_]) -> F32:
    """Millimetres to the surface, negative inside, without the steps of the voxels."""
    out = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    smooth: F32 = ndimage.gaussian_filter((out * STEP_MM).astype(np.float32), 0.8)
    return smooth


def _ellipsoid(
    center: tuple[float, float, float], radii: tuple[float, float, float], x: F32, y: F32, z: F32
) -> F32:
    """Depth below the surface of an ellipsoid, about millimetres, positive inside."""
    far = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), center, radii, strict=True)))
    depth: F32 = ((1 - far) * min(radii)).astype(np.float32)
    return depth


def _face_outline(brain: NDArray[np.bool_], x: F32, y: F32, z: F32) -> NDArray[np.bool_]:
    """Face and neck: where the head goes on below the brain."""
    level = int(np.argmin(np.abs(z.ravel() + 22)))
    outline = ndimage.binary_dilation(brain[:, :, level], iterations=5)[:, :, None] & (z < -20)
    outline &= y > -80 + 0.55 * (-30 - z)
    face = (x / 62) ** 2 + ((y - 20) / 72) ** 2 < 1
    nose = (x / 16) ** 2 + ((y - 80) / 26) ** 2 < 1
    below: NDArray[np.bool_] = outline | (face & (z < -14)) | (nose & (z < -32))
    return below


def _face(x: F32, y: F32, z: F32) -> F32:
    """HU of what lies below and before the brain: muscle, fat, eyes, sinuses, petrous bone."""
    hu = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), MUSCLE, np.float32)

    def put(
        center: tuple[float, float, float], radii: tuple[float, float, float], v: float
    ) -> None:
        for side in (1.0, -1.0) if center[0] else (1.0,):
            depth = _ellipsoid((side * center[0], *center[1:]), radii, x, y, z)
            part = np.clip(depth / STEP_MM + 0.5, 0, 1)
            hu[...] += part * (v - hu)

    put((34, 52, -34), (19, 26, 17), FAT)  # orbits
    put((34, 64, -34), (13, 12.5, 13), 12.0)  # eyes
    put((34, 45, -34), (3, 14, 3), 35.0)  # optic nerves
    put((0, 56, -36), (13, 26, 17), 420.0)  # ethmoid bone and its cells
    put((5.5, 56, -36), (4, 22, 13), AIR)
    put((0, 34, -42), (12, 10, 9), AIR)  # sphenoid sinus
    put((0, 82, -12), (13, 4, 7), AIR)  # frontal sinus
    put((30, 48, -68), (15, 17, 14), AIR)  # maxillary sinuses
    put((0, 22, -70), (10, 12, 16), AIR)  # pharynx
    put((28, -22, -38), (26, 9, 9), 1100.0)  # petrous bone
    put((55, -32, -42), (11, 15, 14), 600.0)  # mastoid and its cells
    put((54, -36, -44), (5, 8, 8), -650.0)
    put((50, -12, -38), (9, 2.5, 2.5), AIR)  # ear canals
    put((58, 30, -48), (4, 16, 5), 900.0)  # cheek bones
    return hu


@dataclass(frozen=True, eq=False)
class _Head:
    """One head in atlas space: `soft` in HU at 2 mm, and the numbers of its shell."""

    soft: F32
    csf: F32
    wobble: F32
    gap_mm: float
    table_mm: float
    outer_mm: float
    bone_hu: float
    diploe_hu: float
    scalp_mm: float
    falx_hu: float


def _draw_head(random: np.random.Generator) -> _Head:
    atlas = _atlas()
    wobble = _smooth_noise(random, atlas.shape, 4.0)
    soft, csf = _draw_tissue(random, atlas)
    _put_calcium(random, soft, atlas)
    gap = random.uniform(1.5, 3.0)
    return _Head(
        soft=soft,
        csf=csf,
        wobble=wobble,
        gap_mm=gap,
        table_mm=random.uniform(1.6, 2.4),
        outer_mm=gap + random.uniform(5.5, 8.0),
        bone_hu=random.uniform(1100, 1600),
        diploe_hu=random.uniform(450, 750),
        scalp_mm=random.uniform(12.5, 16.5),
        falx_hu=random.uniform(42, 60),
    )


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> F32:
    """Noise of unit standard deviation, smooth over `sigma` voxels."""
    noise = random.standard_normal(shape, dtype=np.float32)
    smooth: F32 = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    smooth /= smooth.std()
    return smooth


def _draw_tissue(random: np.random.Generator, atlas: _Atlas) -> tuple[F32, F32]:
    """Return HU of everything soft, and the fraction of CSF.

    The mean maps are blurred by the 152 heads that made them: sharpened, and disturbed at the
    size of gyri, they look like one head again.
    """
    inside = atlas.inner < 0.5
    folds = [_smooth_noise(random, atlas.shape, s)[inside] for s in (1.3, 1.3)]
    atrophy = random.uniform(-0.35, 0.45)
    gm, wm = atlas.gm[inside], atlas.wm[inside]
    logits = np.log(np.stack([gm, wm, np.clip(1 - gm - wm, 0, 1)]) + 0.02)
    logits[1] += 0.30 * folds[0]
    logits[2] += 0.35 * folds[1] + atrophy
    parts = np.exp(2.4 * (logits - logits.max(axis=0)))
    parts /= parts.sum(axis=0)
    hu = (random.normal(37.5, 0.8), random.normal(28.5, 0.8), random.normal(CSF, 1.5))
    soft = atlas.face.copy()
    soft[(atlas.inner < 14) & (atlas.places[2] > -20)] = CSF
    soft[inside] = sum(value * part for value, part in zip(hu, parts, strict=True))
    csf = np.zeros_like(soft)
    csf[inside] = parts[2]
    return soft, csf


def _put_calcium(random: np.random.Generator, soft: F32, atlas: _Atlas) -> None:
    """Pineal gland always, choroid plexus often: as bright as blood and brighter."""
    spots = [(0.0, -28.0, 2.0)]
    if random.random() < 0.6:
        spots += [(-20.0, -34.0, 14.0), (20.0, -34.0, 14.0)]
    for spot in spots:
        moved = tuple(np.asarray(spot) + random.normal(0, 1.2, 3))
        radius = random.uniform(1.8, 3.8)
        depth = _ellipsoid(moved, (radius, radius, radius), *atlas.places)
        part = np.clip(depth / STEP_MM + 0.5, 0, 1)
        soft += part * (random.uniform(90, 260) - soft)


@dataclass(frozen=True, eq=False)
class _Blood:
    """A haemorrhage in atlas space: depth below its surface in mm, positive inside, and HU."""

    depth: F32
    hu: F32
    oedema: F32 | None = None
    oedema_hu: float = 21.0


def _draw_blood(random: np.random.Generator, kind: str, head: _Head) -> _Blood:
    atlas = _atlas()
    draw = {"iph": _iph, "ivh": _ivh, "sdh": _sdh, "edh": _edh, "sah": _sah}[kind]
    while True:
        blood = draw(random, head, atlas)
        if np.count_nonzero(blood.depth > 0) * STEP_MM**3 >= SMALLEST_ML * 1000:
            return blood


def _texture(random: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> F32:
    hu: F32 = random.uniform(low, high) + 4 * _smooth_noise(random, shape, 1.5)
    return hu.astype(np.float32)


def _outside_ventricles(atlas: _Atlas) -> F32:
    return (0.5 - atlas.ventricle) * 2 * STEP_MM


def _iph(random: np.random.Generator, head: _Head, atlas: _Atlas) -> _Blood:
    """Irregular ellipsoid of 3 to 60 ml deep in grey or white matter, with a rim of oedema."""
    z = atlas.places[2]
    deep = (atlas.inner < -16) & (atlas.ventricle < 0.1) & (atlas.gm + atlas.wm > 0.8)
    candidates = np.argwhere(deep & (z > -12) & (z < 48))
    center = atlas.origin + STEP_MM * candidates[random.integers(len(candidates))]
    radius = (np.exp(random.uniform(np.log(3), np.log(60))) * 1000 * 0.75 / np.pi) ** (1 / 3)
    radii = tuple(radius * np.exp(random.normal(0, 0.16, 3)))
    ball = _ellipsoid(tuple(center), radii, *atlas.places) + 0.13 * radius * head.wobble
    depth = np.minimum(np.minimum(ball, -2 - atlas.inner), _outside_ventricles(atlas))
    swollen = np.minimum(ball + random.uniform(2.5, 8), -1 - atlas.inner)
    oedema = np.minimum(swollen, _outside_ventricles(atlas))
    return _Blood(
        depth, _texture(random, atlas.shape, 58, 82), oedema, float(random.uniform(18, 24))
    )


def _ivh(random: np.random.Generator, head: _Head, atlas: _Atlas) -> _Blood:
    """Blood that has sunk to the back of the ventricles, of both sides or of one."""
    x, y, _ = atlas.places
    hollow = atlas.ventricle > 0.5
    back = np.quantile(np.broadcast_to(y, atlas.shape)[hollow], random.uniform(0.3, 0.8))
    depth = np.minimum((atlas.ventricle - 0.4) * 2 * STEP_MM, back - y + 3 * head.wobble)
    if random.random() < 0.5:
        depth = np.minimum(depth, random.choice([-1, 1]) * x + 3)
    return _Blood(depth, _texture(random, atlas.shape, 56, 80))


def _sdh(random: np.random.Generator, head: _Head, atlas: _Atlas) -> _Blood:
    """Crescent along one hemisphere; older ones are less bright."""
    along = (random.uniform(-40, 30), random.uniform(15, 45))
    extent = (random.uniform(40, 65), random.uniform(25, 40))
    thick = random.uniform(5, 14)
    hu = (48, 60) if random.random() < 0.4 else (56, 80)
    profile = thick * np.clip(1 - _away(atlas, along, extent) ** 4, 0, 1)
    return _under_skull(random, head, atlas, profile, hu)


def _edh(random: np.random.Generator, head: _Head, atlas: _Atlas) -> _Blood:
    """Lens between the skull and the dura."""
    along = (random.uniform(-50, 40), random.uniform(5, 45))
    extent = (random.uniform(22, 34), random.uniform(18, 30))
    profile = random.uniform(9, 22) * np.clip(1 - _away(atlas, along, extent) ** 2, 0, 1)
    return _under_skull(random, head, atlas, profile, (58, 82))


def _away(atlas: _Atlas, along: tuple[float, float], extent: tuple[float, float]) -> F32:
    _, y, z = atlas.places
    far: F32 = np.sqrt(((y - along[0]) / extent[0]) ** 2 + ((z - along[1]) / extent[1]) ** 2)
    return far


def _under_skull(
    random: np.random.Generator, head: _Head, atlas: _Atlas, profile: F32, hu: tuple[float, float]
) -> _Blood:
    """Fill from the inner table inwards, as deep as `profile`, on one side."""
    side = random.choice([-1, 1])
    depth = np.minimum(profile - 1.2 + atlas.inner, side * atlas.places[0] - 6)
    depth = np.minimum(depth, head.gap_mm + 0.3 - atlas.inner)
    return _Blood(depth.astype(np.float32), _texture(random, atlas.shape, *hu))


def _sah(random: np.random.Generator, head: _Head, atlas: _Atlas) -> _Blood:
    """Blood in sulci, fissures and cisterns around one place."""
    places = ((-42, 0, 2), (42, 0, 2), (0, -5, -18), (-35, -30, 40), (35, -30, 40), (0, 35, 15))
    center = np.asarray(places[random.integers(len(places))]) + random.normal(0, 6, 3)
    near = _ellipsoid(tuple(center), (32.0, 38.0, 28.0), *atlas.places) + 3 * head.wobble
    depth = np.minimum((head.csf - 0.4) * 2 * STEP_MM, near)
    depth = np.minimum(np.minimum(depth, _outside_ventricles(atlas)), 1 - atlas.inner)
    return _Blood(depth.astype(np.float32), _texture(random, atlas.shape, 50, 68))


class _Grid:
    """Voxel centres of the scan: columns to the left, rows to the back, slices up."""

    def __init__(self, spacing: tuple[float, float, float]) -> None:
        self.spacing = spacing
        self.shape = tuple(int(field / step) for field, step in zip(FIELD_MM, spacing, strict=True))
        self.affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        middle = (np.array(self.shape) - 1) / 2
        self.affine[:3, 3] = CENTER - self.affine[:3, :3] @ middle

    def axis(self, number: int, parts: int = 1) -> F32:
        """RAS+ coordinates along one axis, of `parts` samples in each voxel."""
        count = self.shape[number] * parts
        index = (np.arange(count) + 0.5) / parts - 0.5
        place: F32 = self.affine[number, 3] + self.affine[number, number] * index
        return place.astype(np.float32)


WAVES = 4


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


def _scan(head: _Head, blood: _Blood | None, pose: _Pose, grid: _Grid) -> tuple[F32, F32]:
    """Return HU and the fraction of blood, both averaged over each slice."""
    parts = max(round(grid.spacing[2] / SAMPLE_MM), 1)
    array = np.empty(grid.shape, np.float32, order="F")
    fraction = np.zeros(grid.shape, np.float32, order="F")
    places = _Places(pose, grid, parts)
    for k in range(grid.shape[2]):
        samples = [_sample(head, blood, places.of(k * parts + part)) for part in range(parts)]
        array[:, :, k] = sum(hu for hu, _ in samples) / parts
        fraction[:, :, k] = sum(share for _, share in samples) / parts
    return array, fraction


class _Places:
    """Atlas coordinates of one plane of samples at a time."""

    def __init__(self, pose: _Pose, grid: _Grid, parts: int) -> None:
        self.pose = pose
        axes = [grid.axis(0), grid.axis(1), grid.axis(2, parts)]
        self.waves = [_waves(axes[i], float(CENTER[i]), FIELD_MM[i]) for i in range(3)]
        self.away = [axis - CENTER[i] for i, axis in enumerate(axes)]

    def of(self, plane: int) -> F32:
        """Coordinates of shape (3, columns, rows)."""
        x, y, z = self.away[0][:, None], self.away[1][None, :], self.away[2][plane]
        bend = np.tensordot(self.pose.bend, self.waves[2][:, plane], 1)
        bent = self.waves[0].T @ bend @ self.waves[1]
        turn, start = self.pose.matrix, CENTER + self.pose.shift
        straight = [t[0] * x + t[1] * y + (t[2] * z + s) for t, s in zip(turn, start, strict=True)]
        places: F32 = np.stack(straight) + bent
        return places


def _sample(head: _Head, blood: _Blood | None, places: F32) -> tuple[F32, F32]:
    """HU and fraction of blood at points of the atlas, shape (columns, rows)."""
    atlas = _atlas()
    voxels = (places - atlas.origin[:, None, None]) / np.float32(STEP_MM)
    hu = np.full(places.shape[1:], AIR, np.float32)
    share = np.zeros_like(hu)
    skin = _look_up(atlas.skin, voxels) + np.float32(SCALP_MM - head.scalp_mm)
    inside = skin < 1
    if not inside.any():
        return hu, share
    voxels, where, skin = voxels[:, inside], places[:, inside], skin[inside]
    inner = _look_up(atlas.inner, voxels)
    tissue = _look_up(head.soft, voxels)
    _put_falx(tissue, head, where, inner)
    if blood is not None:
        share[inside] = _put_blood(tissue, blood, voxels, inner)
    _put_shell(tissue, head, voxels, inner, skin)
    hu[inside] = tissue
    return hu, share


def _look_up(field: F32, voxels: F32) -> F32:
    found: F32 = ndimage.map_coordinates(
        field, voxels, order=1, mode="nearest", output=np.float32, prefilter=False
    )
    return found


def _edge(depth: F32, width_mm: float = 1.0) -> F32:
    """From depth below a surface to the fraction inside, over an edge `width_mm` wide."""
    part: F32 = np.clip(depth / np.float32(width_mm) + np.float32(0.5), 0, 1)
    return part


def _put_falx(tissue: F32, head: _Head, where: F32, inner: F32) -> None:
    """Falx between the hemispheres, and the sagittal sinus along its upper edge."""
    x, y, z = where
    around = ((y + 12) / 62) ** 2 + ((z - 8) / 34) ** 2
    sheet = _edge(np.minimum(0.9 - np.abs(x), (around - 1) * 30))
    sinus = _edge(np.minimum(3.8 + 0.45 * inner - np.abs(x), inner + 8))
    part = np.maximum(sheet, sinus) * (z > -2) * (inner < 1)
    tissue += part * (np.float32(head.falx_hu) - tissue)


def _put_blood(tissue: F32, blood: _Blood, voxels: F32, inner: F32) -> F32:
    """Put oedema and blood, and return the fraction of blood."""
    if blood.oedema is not None:
        swollen = _edge(_look_up(blood.oedema, voxels), 2.0)
        tissue += 0.7 * swollen * (np.float32(blood.oedema_hu) - tissue)
    share = _edge(_look_up(blood.depth, voxels))
    some = share > 0
    tissue[some] += share[some] * (_look_up(blood.hu, voxels[:, some]) - tissue[some])
    return share


def _put_shell(tissue: F32, head: _Head, voxels: F32, inner: F32, skin: F32) -> None:
    """Skull with its diploe, fat and muscle of the scalp, skin, and air outside."""
    outside = inner > head.gap_mm
    deep, cover = inner[outside], skin[outside]
    wobble = _look_up(head.wobble, voxels[:, outside])
    own = tissue[outside]
    scalp = _edge(14 - deep, 2.0) * (voxels[2, outside] > MARGIN + 22)
    own += scalp * (np.where(wobble > 0.8, MUSCLE, FAT) - own)
    own += _edge(cover + 2.2) * (40 - own)
    outer = head.outer_mm + 0.5 * wobble
    bone = _edge(np.minimum(deep - head.gap_mm, outer - deep))
    spongy = _edge(np.minimum(deep - head.gap_mm, outer - deep) - head.table_mm, 1.5)
    shell = head.bone_hu + spongy * (head.diploe_hu + 120 * wobble - head.bone_hu)
    own += bone * (shell - own)
    own += _edge(cover) * (AIR - own)
    tissue[outside] = own


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
