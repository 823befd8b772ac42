"""Haemorrhages of a head phantom, by kind, drawn in the space of the ICBM152 maps at 2 mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantom_head import F32, STEP_MM, Atlas, Head, ellipsoid, load_atlas, smooth_noise

SMALLEST_ML, OFF_BONE_MM = 1.5, 2.0
"""A bleed with less than this, so far from bone that it can be told from it, is drawn again."""
SLICE_VOXELS = 3
"""Counted is what is more than half blood in the mean over so many: over a slice."""
DRAWS = 50
BASAL_CISTERNS = ((0, -5, -18), (-40, 0, -4), (40, 0, -4), (0, 30, 0))
"""Suprasellar, both Sylvian, between the frontal lobes: RAS+ mm, where most aneurysms bleed."""
SELLA = ((0.0, -5.0, -22.0), (34.0, 34.0, 26.0))
"""Middle and radii, RAS+ mm: here cisterns lie against bone, and blood in them does so too."""
NO_FILM_MM = 2.5
"""Elsewhere subarachnoid blood keeps this far from the inner table: a film along it would be
subdural, and as thin as this it is not seen beside bone."""
CLOT_ML = 0.25
"""Smaller spaces, which nothing connects to others, hold no clot."""
CONVEXITY = ((-35, -30, 40), (35, -30, 40), (-42, 10, 25), (42, 10, 25))


@dataclass(frozen=True, eq=False)
class Blood:
    """A haemorrhage in atlas space: depth below its surface in mm, positive inside, and HU."""

    depth: F32
    hu: F32
    oedema: F32 | None = None
    oedema_hu: float = 21.0


def draw_blood(random: np.random.Generator, kind: str, head: Head) -> Blood:
    """Draw a haemorrhage of at least `SMALLEST_ML` in a head.

    Parameters
    ----------
    random : Generator
    kind : str
        ``iph``, ``ivh``, ``sdh``, ``edh`` or ``sah``.
    head : Head

    Raises
    ------
    RuntimeError
        No draw of many was large enough, which has never been seen.
    """
    atlas = load_atlas()
    draw = {"iph": _iph, "ivh": _ivh, "sdh": _sdh, "edh": _edh, "sah": _sah}[kind]
    for _ in range(DRAWS):
        blood = draw(random, head, atlas)
        share = np.clip(blood.depth + 0.5, 0, 1) * (head.inner < min(head.gap_mm, 0) - OFF_BONE_MM)
        seen = ndimage.uniform_filter1d(share, SLICE_VOXELS, axis=2) > 0.5
        if np.count_nonzero(seen) * STEP_MM**3 >= SMALLEST_ML * 1000:
            return blood
    raise RuntimeError(f"none of {DRAWS} draws of {kind} reached {SMALLEST_ML} ml")


def _texture(random: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> F32:
    hu: F32 = random.uniform(low, high) + 4 * smooth_noise(random, shape, 1.5)
    return hu.astype(np.float32)


def _outside_ventricles(atlas: Atlas) -> F32:
    return (0.5 - atlas.ventricle) * 2 * STEP_MM


def _iph(random: np.random.Generator, head: Head, atlas: Atlas) -> Blood:
    """Irregular ellipsoid of 3 to 60 ml deep in grey or white matter, with a rim of oedema."""
    z = atlas.places[2]
    deep = (atlas.inner < -16) & (atlas.ventricle < 0.1) & (atlas.gm + atlas.wm > 0.8)
    candidates = np.argwhere(deep & (z > -12) & (z < 48))
    center = atlas.origin + STEP_MM * candidates[random.integers(len(candidates))]
    radius = (np.exp(random.uniform(np.log(3), np.log(60))) * 1000 * 0.75 / np.pi) ** (1 / 3)
    radii = tuple(radius * np.exp(random.normal(0, 0.16, 3)))
    ball = ellipsoid(tuple(center), radii, *atlas.places) + 0.13 * radius * head.wobble
    depth = np.minimum(np.minimum(ball, -2 - head.inner), _outside_ventricles(atlas))
    swollen = np.minimum(ball + random.uniform(2.5, 8), -1 - head.inner)
    oedema = np.minimum(swollen, _outside_ventricles(atlas))
    return Blood(
        depth, _texture(random, atlas.shape, 58, 82), oedema, float(random.uniform(18, 24))
    )


def _ivh(random: np.random.Generator, head: Head, atlas: Atlas) -> Blood:
    """Blood that has sunk to the back of the ventricles, of both sides or of one."""
    x, y, _ = atlas.places
    hollow = atlas.ventricle > 0.5
    back = np.quantile(np.broadcast_to(y, atlas.shape)[hollow], random.uniform(0.3, 0.8))
    depth = np.minimum((atlas.ventricle - 0.4) * 2 * STEP_MM, back - y + 3 * head.wobble)
    if random.random() < 0.5:
        depth = np.minimum(depth, random.choice([-1, 1]) * x + 3)
    return Blood(depth, _texture(random, atlas.shape, 56, 80))


def _sdh(random: np.random.Generator, head: Head, atlas: Atlas) -> Blood:
    """Crescent along one hemisphere; older ones are less bright."""
    along = (random.uniform(-40, 30), random.uniform(15, 45))
    extent = (random.uniform(40, 65), random.uniform(25, 40))
    thick = random.uniform(5, 14)
    hu = (48, 60) if random.random() < 0.4 else (56, 80)
    profile = thick * np.clip(1 - _away(atlas, along, extent) ** 4, 0, 1)
    return _under_skull(random, head, atlas, profile, hu)


def _edh(random: np.random.Generator, head: Head, atlas: Atlas) -> Blood:
    """Lens between the skull and the dura."""
    along = (random.uniform(-50, 40), random.uniform(5, 45))
    extent = (random.uniform(22, 34), random.uniform(18, 30))
    profile = random.uniform(9, 22) * np.clip(1 - _away(atlas, along, extent) ** 2, 0, 1)
    return _under_skull(random, head, atlas, profile, (58, 82))


def _away(atlas: Atlas, along: tuple[float, float], extent: tuple[float, float]) -> F32:
    _, y, z = atlas.places
    far: F32 = np.sqrt(((y - along[0]) / extent[0]) ** 2 + ((z - along[1]) / extent[1]) ** 2)
    return far


def _under_skull(
    random: np.random.Generator, head: Head, atlas: Atlas, profile: F32, hu: tuple[float, float]
) -> Blood:
    """Fill from the inner table inwards, as deep as `profile`, on one side."""
    side = random.choice([-1, 1])
    thick = profile - 1.2
    below = np.minimum(head.inner - min(head.gap_mm, 0.0), 0)
    depth = np.minimum(thick + below, side * atlas.places[0] - 6)
    depth = np.minimum(depth, head.gap_mm + 0.3 - head.inner)
    return Blood(depth.astype(np.float32), _texture(random, atlas.shape, *hu))


def _sah(random: np.random.Generator, head: Head, atlas: Atlas) -> Blood:
    """Blood that fills and widens cisterns and fissures at the base, or sulci around one place.

    Two of three are like those of an aneurysm: clots thicker than 1 mm in the basal cisterns
    (Fisher's grade 3), which reach far; the others, like those of an injury, lie in the sulci of
    a few gyri. Neither makes a film along the inner table.
    """
    if random.random() < 2 / 3:
        places, reach, swell = BASAL_CISTERNS, random.uniform(34, 60), random.uniform(0.8, 2.0)
        fill = random.uniform(0.22, 0.34)
    else:
        places, reach, swell = CONVEXITY, random.uniform(26, 40), random.uniform(0.5, 1.1)
        fill = random.uniform(0.16, 0.26)
    center = np.asarray(places[random.integers(len(places))]) + random.normal(0, 6, 3)
    radii = tuple(reach * np.array((0.95, 1.1, 0.8)))
    near = ellipsoid(tuple(center), radii, *atlas.places) + 3 * head.wobble
    off_bone = min(head.gap_mm, 0.0) - NO_FILM_MM - head.inner
    off_bone = np.maximum(off_bone, ellipsoid(*SELLA, *atlas.places))
    spaces = (head.csf > fill) & (near > 0) & (atlas.ventricle < 0.5) & (off_bone > NO_FILM_MM)
    depth = np.minimum(swell - _distance(_connected(spaces)), near)
    depth = np.minimum(np.minimum(depth, _outside_ventricles(atlas)), off_bone)
    depth = np.minimum(depth, 1 - head.inner)
    return Blood(depth.astype(np.float32), _texture(random, atlas.shape, 52, 70))


def _connected(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep parts of at least `CLOT_ML`."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel()) * STEP_MM**3 / 1000
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= CLOT_ML)[parts]
    return kept


def _distance(mask: NDArray[np.bool_]) -> F32:
    """Millimetres to the surface, negative inside: a sheet of one voxel stays one."""
    out = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    smooth: F32 = ndimage.gaussian_filter((out * STEP_MM).astype(np.float32), 0.4)
    return smooth
