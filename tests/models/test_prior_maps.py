"""A site's own tissue maps: what is no such map is refused, and what is one is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy
from models.base import BrokenPackage
from models.gmlvq_config import BadTable, TrainingConfig, load_training_config
from models.grey_matter import segment_tissues
from models.phantom_t1 import Scan, make_t1_head
from models.prior_maps import BadPriors, load_priors, prior_files
from models.prognosis_package import load_prognosis
from models.prognosis_training import train_prognosis
from models.tissue_fit import Effort
from models.tissue_priors import CLASSES, Priors, default_priors
from pipelines.steps.nifti import save_nifti

F32 = NDArray[np.float32]
FAST = Effort(coarse_mm=10.0, middle_mm=5.0, fine_mm=5.0, rounds=(15, 20, 0))


def bundled() -> dict[str, F32]:
    """The ICBM152 maps as three maps."""
    anatomy = load_anatomy()
    gm, wm = (one.astype(np.float32) / np.float32(255) for one in (anatomy.gm, anatomy.wm))
    return {"gm": gm, "wm": wm, "csf": np.clip(anatomy.brain - gm - wm, 0, 1).astype(np.float32)}


def written(
    folder: Path, maps: Mapping[str, F32], shift_mm: float = 0.0, affine: F32 | None = None
) -> Path:
    """Write maps as NIfTI, moved to the front."""
    folder.mkdir(exist_ok=True)
    place = load_anatomy().affine.copy() if affine is None else affine.astype(np.float64)
    place[1, 3] += shift_mm
    for name, array in maps.items():
        save_nifti(array.astype(np.float32), place, folder / f"{name}.nii.gz")
    return folder


def loaded(folder: Path) -> Priors:
    return load_priors(prior_files(folder))


def test_the_bundled_maps_as_files_give_nearly_the_bundled_priors(tmp_path: Path) -> None:
    ours, theirs = default_priors(), loaded(written(tmp_path, bundled()))

    assert theirs.maps.shape == ours.maps.shape
    assert np.abs(theirs.maps.numpy() - ours.maps.numpy())[:2].mean() < 1e-3
    np.testing.assert_allclose(theirs.maps.sum(0).numpy(), 1, atol=1e-4)
    assert np.abs(theirs.maps.numpy() - ours.maps.numpy()).mean() < 0.02
    assert theirs.source != ours.source


def test_maps_that_were_read_are_not_made_again_and_altered_ones_are(tmp_path: Path) -> None:
    first = loaded(written(tmp_path, bundled()))

    assert loaded(tmp_path) is first
    moved = loaded(written(tmp_path, bundled(), shift_mm=2.0))
    assert moved.source != first.source
    back = moved.maps[:, :, 1:].numpy() - first.maps[:, :, :-1].numpy()
    assert np.abs(back[: CLASSES.index("csf"), 14:-14, 14:-14, 14:-14]).max() < 1e-3


def test_maps_of_flipped_axes_and_finer_voxels_are_turned_and_averaged(tmp_path: Path) -> None:
    maps = {name: np.kron(one[::-1], np.ones((2, 2, 2))) for name, one in bundled().items()}
    steps = [0.5, 0.5, 0.5, 1.0]
    affine = load_anatomy().affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] += 2.0 * (load_anatomy().gm.shape[0] - 1)
    affine = affine @ np.diag(steps)
    affine[:3, 3] += affine[:3, :3] @ np.full(3, -0.5)

    theirs = loaded(written(tmp_path, maps, affine=affine.astype(np.float32)))

    away = np.abs(theirs.maps.numpy() - default_priors().maps.numpy())[:2]
    assert away.mean() < 4e-3
    assert away.max() < 0.15


@pytest.mark.slow
def test_a_head_is_segmented_with_smoother_and_moved_maps(tmp_path: Path) -> None:
    smooth = {name: ndimage.gaussian_filter(one, 1.0) for name, one in bundled().items()}
    priors = loaded(written(tmp_path, smooth, shift_mm=4.0))
    phantom = make_t1_head(11, scan=Scan(spacing=(3.0, 3.0, 3.0)))

    tissues = segment_tissues(phantom.volume, priors=priors, effort=FAST)

    true = phantom.millilitres(phantom.gm)
    assert tissues.millilitres(tissues.gm) == pytest.approx(true, rel=0.1)


def _config(folder: Path, priors: str) -> TrainingConfig:
    text = """\
family: own-maps
version: 1.0.0
title: Synthetic cohort measured with other maps
outcome: {column: class, stable: stable, declining: declining}
age: age
features: [{name: hippocampus, unit: "%", regions: [hippocampus_left, hippocampus_right]}]
search: {beta: [0], regularization: [0.01]}
outer_folds: 2
inner_folds: 2
bootstrap: 20
"""
    (folder / "config.yaml").write_text(text + priors)
    return load_training_config(folder / "config.yaml")


def _table(folder: Path, source: str) -> Path:
    random = np.random.default_rng(1)
    lines = ["class,age,icv_ml,hippocampus_left_ml,hippocampus_right_ml,priors"]
    for number in range(60):
        ml, word = (2.9, "declining") if number % 3 == 0 else (3.4, "stable")
        left, right = random.normal(ml, 0.2, 2)
        lines.append(f"{word},{60 + number % 25},1450,{left:.3f},{right:.3f},{source}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def test_a_package_holds_the_maps_of_its_cohort(tmp_path: Path) -> None:
    source = loaded(written(tmp_path / "maps", bundled(), shift_mm=1.0)).source
    config = _config(tmp_path, "priors: maps\n")
    out = tmp_path / "package"

    train_prognosis(_table(tmp_path, source), config, out, lambda fraction, note: None)

    package = load_prognosis(out)
    assert package.priors is not None
    assert package.priors.source == source
    assert package.identity.parameters["priors-sha256"] == source
    assert sorted(path.name for path in out.glob("prior_*")) == [
        "prior_csf.nii.gz", "prior_gm.nii.gz", "prior_wm.nii.gz",
    ]  # fmt: skip
    (out / "prior_wm.nii.gz").write_bytes((out / "prior_gm.nii.gz").read_bytes())
    with pytest.raises(BrokenPackage, match="prior_wm"):
        load_prognosis(out)


@pytest.mark.parametrize(
    ("priors", "source"), [("", "0123456789ab"), ("priors: maps\n", "icbm152")]
)
def test_volumes_measured_with_other_maps_are_not_learned_from(
    priors: str, source: str, tmp_path: Path
) -> None:
    written(tmp_path / "maps", bundled())
    config = _config(tmp_path, priors)

    with pytest.raises(BadTable, match=rf"line 2: .* tissue maps {source}, wanted"):
        train_prognosis(_table(tmp_path, source), config, tmp_path / "out", lambda done, note: None)


def _two_big(maps: dict[str, F32]) -> dict[str, F32]:
    return maps | {"gm": maps["gm"] * 255}


def _overlapping(maps: dict[str, F32]) -> dict[str, F32]:
    return maps | {"csf": np.clip(maps["csf"] + 0.5, 0, 1)}


def _cut(maps: dict[str, F32]) -> dict[str, F32]:
    return maps | {"wm": maps["wm"][:-1]}


def _holed(maps: dict[str, F32]) -> dict[str, F32]:
    array = maps["gm"].copy()
    array[3, 3, 3] = np.nan
    return maps | {"gm": array}


def _swapped(maps: dict[str, F32]) -> dict[str, F32]:
    return maps | {"gm": maps["wm"], "wm": maps["gm"]}


@pytest.mark.parametrize(
    ("harm", "shift_mm", "words"),
    [
        (_two_big, 0.0, "from 0 to 255, wanted probabilities from 0 to 1"),
        (_overlapping, 0.0, "add up to 1.50 in a voxel, wanted at most 1"),
        (_cut, 0.0, r"wm.nii.gz has the shape \(.*; wanted one grid"),
        (_holed, 0.0, "values that are no numbers"),
        (_swapped, 0.0, "gm.nii.gz looks like that of another tissue"),
        (dict, 40.0, r"do not lie in the space of the ICBM152 template.*wanted at least 0.8"),
    ],
    ids=["bytes", "sum", "shape", "nan", "swapped", "elsewhere"],
)
def test_what_are_no_maps_of_tissue_is_refused_with_a_sentence(
    harm: object, shift_mm: float, words: str, tmp_path: Path
) -> None:
    assert callable(harm)
    written(tmp_path, harm(bundled()), shift_mm)

    with pytest.raises(BadPriors, match=words) as refused:
        loaded(tmp_path)

    assert str(refused.value).endswith(".")


def test_maps_of_another_affine_an_oblique_one_and_no_nifti_are_refused(tmp_path: Path) -> None:
    maps = bundled()
    written(tmp_path, maps)
    written(tmp_path, {"wm": maps["wm"]}, shift_mm=1.0)
    with pytest.raises(BadPriors, match=r"wm.nii.gz has another affine than gm.nii.gz"):
        loaded(tmp_path)

    oblique = load_anatomy().affine.copy()
    oblique[0, 1] = 0.2
    written(tmp_path, maps, affine=oblique.astype(np.float32))
    with pytest.raises(BadPriors, match="do not run along those of the template"):
        loaded(tmp_path)

    (tmp_path / "wm.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(BadPriors, match=r"gm.nii.gz|wm.nii.gz is not a NIfTI"):
        loaded(tmp_path)

    (tmp_path / "csf.nii.gz").unlink()
    with pytest.raises(BadPriors, match=r"neither csf.nii.gz and csf.nii|neither csf"):
        loaded(tmp_path)
