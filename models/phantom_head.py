"""Heads to be scanned: tissue, skull and face in the space of the ICBM152 maps, at 2 mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy

F32 = NDArray[np.float32]
STEP_MM = 2.0
MARGIN = 18
"""Voxels around the brain in the atlas: skull, scalp and face lie there."""
SCALP_MM = 12.0
"""From brain to skin, before a phantom has its own."""
AIR, CSF, FAT, MUSCLE = -1000.0, 8.0, -85.0, 52.0


@dataclass(frozen=True, eq=False)
class Atlas:
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
        """Voxels along each axis."""
        return self.gm.shape


@cache
def load_atlas() -> Atlas:
    """Make the atlas, once in a process."""
    anatomy = load_anatomy()
    brain = np.pad(anatomy.brain, MARGIN)
    gm, wm = _padded(anatomy.gm), _padded(anatomy.wm)
    origin = (anatomy.affine[:3, 3] - MARGIN * STEP_MM).astype(np.float32)
    axes = [origin[i] + STEP_MM * np.arange(n, dtype=np.float32) for i, n in enumerate(brain.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inner = _signed_distance(brain)
    hollow = (gm + wm < 0.5) & (inner < -14) & (np.abs(x) < 40) & (z > -15) & (z < 35)
    hollow &= (np.abs(x) > 10) | (y > -28)  # behind the third ventricle lies a cistern
    ventricle = ndimage.gaussian_filter(
        (ndimage.binary_dilation(hollow) & (gm + wm < 0.75) & brain).astype(np.float32), 0.5
    )
    head = (inner < SCALP_MM) | _face_outline(brain, x, y, z)
    skin = ndimage.gaussian_filter(_signed_distance(head), 1.5)
    return Atlas(gm, wm, inner, skin, ventricle, _face(x, y, z), origin, (x, y, z))


def _padded(tissue: NDArray[np.uint8]) -> F32:
    probability: F32 = np.pad(tissue, MARGIN).astype(np.float32) / np.float32(255)
    return probability


def _signed_distance(inside: NDArray[np.bool_]) -> F32:
    """Millimetres to the surface, negative inside, without the steps of the voxels."""
    out = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    smooth: F32 = ndimage.gaussian_filter((out * STEP_MM).astype(np.float32), 0.8)
    return smooth


def ellipsoid(
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
    nose = (x / 15) ** 2 + ((y - 80) / 18) ** 2 < 1
    below: NDArray[np.bool_] = outline | (face & (z < -14)) | (nose & (z < -32))
    return below


def _face(x: F32, y: F32, z: F32) -> F32:
    """HU of what lies below and before the brain: muscle, fat, eyes, sinuses, petrous bone."""
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    bundles = smooth_noise(np.random.default_rng(152), shape, 2.6)
    hu: F32 = FAT + (MUSCLE - FAT) * np.clip(0.5 + 2 * (bundles + 0.75), 0, 1)

    def put(
        center: tuple[float, float, float], radii: tuple[float, float, float], v: float
    ) -> None:
        for side in (1.0, -1.0) if center[0] else (1.0,):
            depth = ellipsoid((side * center[0], *center[1:]), radii, x, y, z)
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
class Head:
    """One head in atlas space: `soft` in HU at 2 mm, and the numbers of its shell.

    `inner` is the distance to its own inner table, as that of the atlas.
    """

    soft: F32
    inner: F32
    csf: F32
    wobble: F32
    gap_mm: float
    table_mm: float
    outer_mm: float
    bone_hu: float
    diploe_hu: float
    scalp_mm: float
    falx_hu: float


def draw_head(random: np.random.Generator) -> Head:
    """Draw one head: its folds, atrophy, calcifications, and the thickness of its shell."""
    atlas = load_atlas()
    wobble = smooth_noise(random, atlas.shape, 4.0)
    soft, csf = _draw_tissue(random, atlas)
    _put_calcium(random, soft, atlas)
    gap = random.uniform(-2.5, 3.0)  # below zero the cortex lies against the skull
    table = random.uniform(1.6, 2.4)
    outer = gap + random.uniform(5.5, 11.0)
    return Head(
        soft=soft,
        inner=draw_inner_table(random, atlas, gap),
        csf=csf,
        wobble=wobble,
        gap_mm=gap,
        table_mm=table,
        outer_mm=outer,
        bone_hu=random.uniform(1100, 1600),
        diploe_hu=random.uniform(450, 750),
        scalp_mm=max(random.uniform(12.5, 16.5), outer + 3.0),
        falx_hu=random.uniform(42, 60),
    )


RIDGES = (
    ((9.0, 8.0, -19.0), (50.0, 19.0, -15.0), 4.0),  # lesser wing of the sphenoid
    ((11.0, -19.0, -34.0), (58.0, -43.0, -25.0), 5.5),  # petrous bone
    ((0.0, -4.0, -26.0), (0.0, -15.0, -52.0), 5.0),  # clivus
    ((0.0, 48.0, -25.0), (0.0, 62.0, -15.0), 3.5),  # crista galli
    ((16.0, 42.0, -27.0), (36.0, 36.0, -26.0), 7.0),  # roof of the orbit
    ((0.0, -99.0, -14.0), (0.0, -92.0, -26.0), 5.0),  # internal occipital protuberance
)
"""Where bone rises into the skull: ends in RAS+ mm, on the right or in the middle, and mm."""
UNEVEN_MM = (0.9, 0.4, 1.4)
"""Of the inner table: hollows of a hand's breadth, impressions of gyri, and these at the base."""


def draw_inner_table(random: np.random.Generator, atlas: Atlas, gap_mm: float) -> F32:
    """Distance to the inner table of one head, negative inside: uneven, with ridges at the base."""
    wide, fine = smooth_noise(random, atlas.shape, 6.0), smooth_noise(random, atlas.shape, 2.2)
    base = np.clip((-atlas.places[2] - 2) / 14, 0, 1)
    inner = atlas.inner + UNEVEN_MM[0] * wide
    inner += (UNEVEN_MM[1] + (UNEVEN_MM[2] - UNEVEN_MM[1]) * base) * fine
    for first, last, radius in RIDGES:
        for side in (1.0, -1.0) if last[0] else (1.0,):
            ends = [
                np.asarray(end) * (side, 1, 1) + random.normal(0, 2.5, 3) for end in (first, last)
            ]
            _raise(inner, ends[0], ends[1], radius * random.uniform(0.5, 1.3), gap_mm, atlas)
    return inner.astype(np.float32)


def _raise(
    inner: F32,
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    radius: float,
    gap_mm: float,
    atlas: Atlas,
) -> None:
    """Put bone around a line, in place."""
    low, high = np.minimum(first, last) - radius - 4, np.maximum(first, last) + radius + 4
    box = tuple(
        slice(*np.clip(np.rint((np.array(ends) - start) / STEP_MM), 0, n).astype(int))
        for ends, start, n in zip(
            zip(low, high, strict=True), atlas.origin, inner.shape, strict=True
        )
    )
    axes = [np.moveaxis(place, i, 0).ravel()[box[i]] for i, place in enumerate(atlas.places)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - first
    along = last - first
    share = np.clip(points @ along / (along @ along), 0, 1)
    away = np.linalg.norm(points - share[..., None] * along, axis=-1)
    inner[box] = np.maximum(inner[box], gap_mm + radius - away)


def smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> F32:
    """Noise of unit standard deviation, smooth over `sigma` voxels."""
    noise = random.standard_normal(shape, dtype=np.float32)
    smooth: F32 = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    smooth /= smooth.std()
    return smooth


def _draw_tissue(random: np.random.Generator, atlas: Atlas) -> tuple[F32, F32]:
    """Return HU of everything soft, and the fraction of CSF.

    The mean maps are blurred by the 152 heads that made them: sharpened, and disturbed at the
    size of gyri, they look like one head again.
    """
    inside = atlas.inner < 0.5
    folds = [smooth_noise(random, atlas.shape, s)[inside] for s in (1.3, 1.3)]
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


def _put_calcium(random: np.random.Generator, soft: F32, atlas: Atlas) -> None:
    """Pineal gland always, choroid plexus often: as bright as blood and brighter."""
    spots = [(0.0, -28.0, 2.0)]
    if random.random() < 0.6:
        spots += [(-20.0, -34.0, 14.0), (20.0, -34.0, 14.0)]
    for spot in spots:
        moved = tuple(np.asarray(spot) + random.normal(0, 1.2, 3))
        radius = random.uniform(1.8, 3.8)
        depth = ellipsoid(moved, (radius, radius, radius), *atlas.places)
        part = np.clip(depth / STEP_MM + 0.5, 0, 1)
        soft += part * (random.uniform(90, 260) - soft)
