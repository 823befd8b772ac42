"""T1-weighted heads that never were: every fraction of grey matter, white matter and CSF known.

A head is drawn in the space of the ICBM152 maps: the logits of its tissues are disturbed at the
size of gyri, so that the truth is no mere warp of the maps a segmentation may know; then it is
posed, bent and sampled, and only there sharpened into one person's tissue, skull and scalp.

Random numbers come from independent streams: two scans of one seed are the same head with other
noise, bias and pose; a head that lost grey matter is otherwise the same head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Volume
from models.phantom_head import F32, MARGIN, SCALP_MM, STEP_MM, load_atlas, smooth_noise
from models.phantom_loss import hippocampi, loss_in_logits
from models.phantom_scan import CENTER, Scan, ScanGrid, degrade, places_of

SHARPNESS = 3.0
"""Logits of the mean maps are multiplied by this: 152 heads blur each other, one head does not."""
GAP_MM, SKULL_MM, DURA_MM = 2.0, 8.0, 1.0
_T1_OF_HU = (
    (-1000, -300, -120, -70, 5, 15, 35, 60, 300, 1500),
    (0, 0.05, 1, 1, 0.3, 0.3, 1, 1, 0, 0),
)


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue, white matter of a 3 T scan being 0.86.

    Parameters
    ----------
    gm, wm, csf, bone, marrow, fat, muscle : float
    dura : float
        Dura, falx and sagittal sinus.
    deep : float
        What deep grey matter has more than cortex.
    """

    gm: float = 0.60
    wm: float = 0.86
    csf: float = 0.24
    bone: float = 0.10
    marrow: float = 0.50
    fat: float = 0.90
    muscle: float = 0.45
    dura: float = 0.45
    deep: float = 0.08


CONTRASTS = {
    "t1_3t": Contrast(),
    "t1_15t": Contrast(gm=0.66, wm=0.84, csf=0.30, deep=0.06),
    "t1_gadolinium": Contrast(dura=1.6, marrow=0.75, muscle=0.8),
    "flair": Contrast(gm=0.72, wm=0.58, csf=0.10, dura=0.35, deep=-0.05),
    "t2": Contrast(gm=0.60, wm=0.42, csf=1.0, dura=0.2, muscle=0.25, deep=-0.06),
}
"""What is not T1-weighted, or was made after contrast medium, is here to be refused."""


@dataclass(frozen=True)
class HeadShape:
    """What a head is like, before it is scanned.

    Parameters
    ----------
    atrophy : float
        Logit by which CSF wins over grey and white matter everywhere; 0.2 is much.
    hippocampal_loss : float
        Part of the grey matter of both hippocampi that turned into CSF, 0 to 0.6.
    folds : float
        How much gyri differ from the mean head's; 1 as in people.
    """

    atrophy: float = 0.0
    hippocampal_loss: float = 0.0
    folds: float = 1.0


@dataclass(frozen=True, eq=False)
class T1Phantom:
    """A T1-weighted head and its truth, all on one grid.

    Parameters
    ----------
    volume : Volume
        Arbitrary units, white matter near 700.
    gm, wm, csf : NDArray[np.float32]
        True fraction of each voxel; CSF has the subarachnoid space too.
    hippocampus : NDArray[np.bool_]
        Where the region lies in which `HeadShape.hippocampal_loss` was applied.
    bias : NDArray[np.float32]
        What the signal was multiplied by.
    """

    volume: Volume
    gm: F32
    wm: F32
    csf: F32
    hippocampus: NDArray[np.bool_]
    bias: F32

    def millilitres(self, tissue: F32) -> float:
        """Volume of one of the truths."""
        return float(tissue.sum(dtype=np.float64)) * self.volume.voxel_ml

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Where grey and white matter are most of the voxel."""
        inside: NDArray[np.bool_] = self.gm + self.wm > 0.5
        return inside

    @property
    def hippocampal_ml(self) -> float:
        """True grey matter of both hippocampi."""
        return self.millilitres(self.gm * self.hippocampus)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A head in atlas space: `coefficients` are cubic splines of the three logits."""

    coefficients: NDArray[np.float32]
    wobble: F32
    hippocampus: F32
    scalp_mm: float
    marrow: float
    contrast: Contrast = field(default_factory=Contrast)


def make_t1_head(seed: int, shape: HeadShape | None = None, scan: Scan | None = None) -> T1Phantom:
    """Make one T1-weighted head, with face and neck.

    Parameters
    ----------
    seed : int
        Same seed and arguments, same phantom.
    shape : HeadShape or None
        None: an average one.
    scan : Scan or None
        How it is scanned; None: 1 mm, noise 3 %, bias 25 %.

    Returns
    -------
    T1Phantom
        Axes of the volume as `Scan.axes` says.

    Raises
    ------
    ValueError
        A spacing is not a positive number, a contrast is unknown, a loss is not 0 to 0.6.
    """
    scan, shape = scan or Scan(), shape or HeadShape()
    if scan.contrast not in CONTRASTS:
        raise ValueError(f"contrast {scan.contrast!r} is none of {', '.join(CONTRASTS)}")
    head = _draw(np.random.default_rng([seed, 1]), shape, CONTRASTS[scan.contrast])
    grid = ScanGrid(scan)
    bend = np.random.default_rng([seed, 2])
    signal, parts, inside = _sample_all(head, grid, bend)
    image = np.random.default_rng([seed, 3, scan.number])
    signal, bias = degrade(signal, scan, image)
    volume = Volume(grid.to_file(signal), grid.file_affine, facts={"modality": "MR"})
    gm, wm, csf, bias = (grid.to_file(one) for one in (*parts, bias))
    return T1Phantom(volume, gm, wm, csf, grid.to_file(inside.astype(np.float32)) > 0, bias)


def _draw(random: np.random.Generator, shape: HeadShape, contrast: Contrast) -> _Drawn:
    """Draw tissue logits, scalp and marrow of one head, in atlas space."""
    atlas = load_atlas()
    brain = np.clip(0.5 - atlas.inner / STEP_MM, 0, 1)
    gm, wm = atlas.gm, atlas.wm
    logits = np.log(np.stack([gm, wm, np.clip(brain - gm - wm, 0, 1)]) + 0.02)
    for tissue in (1, 2):
        fine = smooth_noise(random, atlas.shape, 1.25) - 0.6 * smooth_noise(random, atlas.shape, 3)
        logits[tissue] += 0.6 * shape.folds / fine.std() * fine
    logits[2] += shape.atrophy
    logits *= SHARPNESS
    region = hippocampi(atlas)
    if shape.hippocampal_loss:
        logits[2] += loss_in_logits(logits, region, shape.hippocampal_loss)
    splines = [ndimage.spline_filter(one, order=3, output=np.float32) for one in logits]
    return _Drawn(
        np.stack(splines),
        smooth_noise(random, atlas.shape, 4.0),
        region,
        scalp_mm=random.uniform(12.5, 16.5),
        marrow=random.uniform(0.7, 1.2),
        contrast=contrast,
    )


def _sample_all(
    head: _Drawn, grid: ScanGrid, random: np.random.Generator
) -> tuple[F32, tuple[F32, F32, F32], NDArray[np.bool_]]:
    """Return signal, the three fractions and the hippocampi, each voxel the mean of its samples."""
    signal, region = np.zeros((2, *grid.shape), np.float32)
    parts = np.zeros((3, *grid.shape), np.float32)
    places = places_of(grid, random)
    for k in range(grid.shape[2]):
        for plane in grid.planes_of(k):
            one, fractions, inside = _sample(head, places(plane))
            signal[:, :, k] += grid.mean_plane(one)
            region[:, :, k] += grid.mean_plane(inside)
            for tissue in range(3):
                parts[tissue, :, :, k] += grid.mean_plane(fractions[tissue])
    return signal, (parts[0], parts[1], parts[2]), region > 0.5


def _sample(head: _Drawn, places: F32) -> tuple[F32, F32, F32]:
    """Signal, fractions of three tissues, and part in the hippocampi, at points of the atlas."""
    atlas = load_atlas()
    size = places.shape[1:]
    signal, region, parts = (
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
        np.zeros((3, *size), np.float32),
    )
    voxels = (places - atlas.origin[:, None, None]) / np.float32(STEP_MM)
    skin = _look_up(atlas.skin, voxels) + np.float32(SCALP_MM - head.scalp_mm)
    here = skin < 1
    if not here.any():
        return signal, parts, region
    voxels, where, skin = voxels[:, here], places[:, here], skin[here]
    inner = _look_up(atlas.inner, voxels)
    outside = _outside(head, voxels, inner, skin)
    own = np.zeros((3, inner.size), np.float32)
    near = inner < 1
    own[:, near] = _tissue(head, voxels[:, near]) * _edge(-inner[near])
    gap = _edge(GAP_MM - inner) - _edge(-inner)
    sheet = _dura(where, inner)
    own[2] += gap
    own *= 1 - sheet
    c = head.contrast
    grey = c.gm + c.deep * _deep(where)
    inside = own[0] * grey + own[1] * c.wm + own[2] * c.csf
    covered = _edge(GAP_MM - inner)
    signal[here] = inside + covered * sheet * c.dura + (1 - covered) * outside
    parts[:, here] = own
    region[here] = _look_up(head.hippocampus, voxels)
    return signal, parts, region


def _tissue(head: _Drawn, voxels: F32) -> F32:
    """Fractions of grey matter, white matter and CSF, shape (3, n)."""
    logits = np.stack(
        [
            ndimage.map_coordinates(one, voxels, order=3, mode="nearest", prefilter=False)
            for one in head.coefficients
        ]
    )
    parts: F32 = np.exp(logits - logits.max(axis=0))
    parts /= parts.sum(axis=0)
    return parts


def _outside(head: _Drawn, voxels: F32, inner: F32, skin: F32) -> F32:
    """Signal of dura, skull, scalp and face."""
    atlas, c = load_atlas(), head.contrast
    wobble = _look_up(head.wobble, voxels)
    hu = _look_up(atlas.face, voxels)
    low, high = np.float32(c.bone), np.float32(c.muscle)
    face = np.interp(hu, *_T1_OF_HU).astype(np.float32) * np.where(hu < 0, c.fat, high)
    face = np.maximum(face, low * (hu > -250)).astype(np.float32)
    scalp = _edge(14 - inner, 2.0) * (voxels[2] > MARGIN + 22)
    face += scalp * (np.where(wobble > 0.8, high, np.float32(c.fat) * 0.85) - face)
    outer = SKULL_MM + 0.5 * wobble
    bone = _edge(np.minimum(inner - GAP_MM, outer - inner))
    spongy = _edge(np.minimum(inner - GAP_MM, outer - inner) - 2.0, 1.0) * head.marrow
    face += bone * (low + spongy * (np.float32(c.marrow) - low) - face)
    dura = _edge(np.minimum(inner - GAP_MM, GAP_MM + DURA_MM - inner))
    face += dura * (np.float32(c.dura) - face)
    face *= _edge(-skin)
    return face


def _dura(where: F32, inner: F32) -> F32:
    """Part of a voxel that is falx or sagittal sinus."""
    x, y, z = where
    around = ((y + 12) / 62) ** 2 + ((z - 8) / 34) ** 2
    sheet = _edge(np.minimum(0.5 - np.abs(x), (around - 1) * 30))
    sinus = _edge(np.minimum(3.4 + 0.45 * inner - np.abs(x), inner + 7))
    part: F32 = (np.maximum(sheet, sinus) * (z > -2) * (inner < GAP_MM)).astype(np.float32)
    return part


def _deep(where: F32) -> F32:
    """How deep grey matter is: 1 in thalamus and putamen, 0 in cortex."""
    middle, size = np.array((0, -8, 5), np.float32), np.array((28, 26, 16), np.float32)
    deep: F32 = np.exp(-((((where.T - middle) / size) ** 2).sum(axis=-1)))
    return deep


def _look_up(values: F32, voxels: F32) -> F32:
    found: F32 = ndimage.map_coordinates(
        values, voxels, order=1, mode="nearest", output=np.float32, prefilter=False
    )
    return found


def _edge(depth: F32, width_mm: float = 1.0) -> F32:
    """From depth below a surface to the fraction inside, over an edge `width_mm` wide."""
    part: F32 = np.clip(depth / np.float32(width_mm) + np.float32(0.5), 0, 1)
    return part


__all__ = ["CENTER", "CONTRASTS", "Contrast", "HeadShape", "Scan", "T1Phantom", "make_t1_head"]
