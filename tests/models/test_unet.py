"""The 2.5-D U-Net: what it can learn, and that findings lie where the source's voxels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Findings, UnfitInput, Volume
from models.network import NetworkConfig, build
from models.package import load_package
from models.unet import UNetPredictor, labelled, load_predictor
from tests.models.tiny import (
    CONFIG,
    ball_volume,
    copy_of,
    edit_manifest,
    orientations,
    quiet,
    turned,
)


@pytest.fixture(scope="module")
def predictor(tiny_package: Path) -> UNetPredictor:
    return load_predictor(load_package(tiny_package), "cpu")


def labels_of(findings: Findings) -> NDArray[np.uint8]:
    assert findings.labels is not None
    return findings.labels


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def overfit(network: torch.nn.Module, share: float, empty: int, steps: int) -> tuple[float, float]:
    """Least probability in the foreground and greatest in the background, after training."""
    inputs = torch.randn(1 + empty, CONFIG.in_channels, 64, 64) * 0.1
    truth = torch.zeros(1 + empty, 1, 64, 64)
    side = round((share * 64 * 64) ** 0.5)
    truth[0, :, 20 : 20 + side, 20 : 20 + side] = 1.0
    inputs += 0.3 * truth
    loss_of = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=2.0
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network(inputs), truth).backward()
        optimizer.step()
    with torch.inference_mode():
        found = network.eval()(inputs).softmax(1)[:, 1:]
    inside = found[without_rim(truth)]
    return float(inside.min()), float(found[truth == 0].max())


def without_rim(truth: torch.Tensor) -> torch.Tensor:
    """Foreground without its rim."""
    inside = ndimage.binary_erosion(truth.numpy() > 0, np.ones((1, 1, 3, 3)))
    return torch.from_numpy(inside)


def small(norm: str | None) -> torch.nn.Module:
    """Our network, or the same with another norm."""
    torch.manual_seed(0)
    config = NetworkConfig(channels=(8, 16, 32))
    if norm is None:
        return build(config)
    return UNet(2, config.in_channels, 2, config.channels, (2, 2), num_res_units=1, norm=norm)


def test_a_one_slice_foreground_of_five_percent_can_be_sure() -> None:
    least, most = overfit(small(None), share=0.05, empty=0, steps=100)

    assert least > 0.99
    assert most < 0.05


def test_a_small_foreground_among_empty_slices_can_be_sure() -> None:
    least, most = overfit(small(None), share=0.01, empty=7, steps=80)

    assert least > 0.99
    assert most < 0.05


@pytest.mark.parametrize("full", [False, True])
def test_at_full_resolution_the_first_level_sees_every_pixel(full: bool) -> None:
    network = build(NetworkConfig(channels=(8, 16, 32, 64, 128), full_resolution=full)).eval()
    sizes: list[torch.Size] = []
    first = next(part for part in network.modules() if isinstance(part, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, given, made: sizes.append(made.shape[2:]))

    with torch.inference_mode():
        found = network(torch.zeros(1, 4, 48, 64))

    assert found.shape[2:] == (48, 64)
    assert sizes[0] == ((48, 64) if full else (24, 32))


@pytest.mark.parametrize(("name", "wanted"), [("prelu", torch.nn.PReLU), ("relu", torch.nn.ReLU)])
def test_the_activation_is_that_of_the_configuration(name: str, wanted: type) -> None:
    config = NetworkConfig.from_json({"channels": [8, 16], "activation": name})
    found = {type(part) for part in build(config).modules() if "ReLU" in type(part).__name__}

    assert found == {wanted}
    assert config.to_json()["activation"] == name


def test_a_network_has_no_more_levels_than_its_input_can_be_halved() -> None:
    six = (4, 4, 4, 4, 4, 4)

    assert NetworkConfig(channels=six, full_resolution=True).strides == (1, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="levels of the network: 6, wanted 2 to 5"):
        NetworkConfig(channels=six)


def test_with_the_norm_monai_takes_by_default_it_could_not() -> None:
    """The reason for batch norm; should this fail one day, MONAI has mended its U-Net."""
    least, _ = overfit(small("instance"), share=0.01, empty=7, steps=80)

    assert least < 0.5


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((53, 47, 11), (1.3, 1.7, 4.0)),
        ((128, 111, 5), (0.49, 0.49, 7.0)),
        ((33, 64, 31), (2.0, 1.0, 1.25)),
        ((17, 19, 9), (3.7, 4.1, 5.0)),
        ((16, 16, 1), (4.0, 4.0, 5.0)),
    ],
    ids=str,
)
def test_the_mask_lies_on_the_source_grid(
    predictor: UNetPredictor, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    center = (
        (shape[0] - 1) * spacing[0] * 0.45,
        (shape[1] - 1) * spacing[1] * 0.55,
        (shape[2] // 2) * spacing[2],
    )
    volume, ball = ball_volume(shape, spacing, center, radius_mm=14.0)

    labels = labels_of(predictor.predict(volume, quiet))

    assert labels.shape == volume.array.shape
    assert labels.dtype == np.uint8
    assert dice(labels > 0, ball) > 0.8
    miss = np.subtract(ndimage.center_of_mass(labels > 0), ndimage.center_of_mass(ball))
    assert np.all(np.abs(miss * spacing)[:2] < 0.5)


def test_findings_are_the_same_whatever_way_the_source_is_stored(predictor: UNetPredictor) -> None:
    volume, _ = ball_volume()
    upright = predictor.predict(volume, quiet)
    assert upright.present

    for axes, flips in orientations():
        source, turn = turned(volume, axes, flips)
        found = predictor.predict(source, quiet)

        assert np.array_equal(labels_of(found), turn(labels_of(upright))), (axes, flips)
        assert [number.name for number in found.numbers] == [n.name for n in upright.numbers]
        for ours, theirs in zip(found.numbers, upright.numbers, strict=True):
            assert ours.value == pytest.approx(theirs.value, rel=1e-9)


def test_the_same_volume_gives_the_same_bytes(predictor: UNetPredictor, tiny_package: Path) -> None:
    volume, _ = ball_volume()
    again = load_predictor(load_package(tiny_package), "cpu")

    first, second = (p.probabilities(volume, quiet) for p in (predictor, again))

    assert first.tobytes() == second.tobytes()
    assert predictor.predict(volume, quiet).numbers == again.predict(volume, quiet).numbers


def test_scoring_leaves_torch_as_it_was(predictor: UNetPredictor) -> None:
    volume, _ = ball_volume(shape=(20, 20, 3))
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        predictor.predict(volume, quiet)
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    predictor.predict(volume, quiet)
    assert not torch.are_deterministic_algorithms_enabled()


def test_volumes_are_labelled_voxels_times_millilitres(predictor: UNetPredictor) -> None:
    volume, _ = ball_volume()

    findings = predictor.predict(volume, quiet)

    wanted = np.count_nonzero(labels_of(findings)) * (1.3 * 1.7 * 4.0 / 1000.0)
    assert findings.number("volume") == pytest.approx(wanted, rel=1e-9)
    assert findings.number("volume", segment=1) == pytest.approx(wanted, rel=1e-9)
    assert wanted == pytest.approx(4 / 3 * np.pi * 1.3**3, rel=0.15)
    assert [segment.number for segment in findings.segments] == [1]
    with pytest.raises(KeyError, match="no number"):
        findings.number("volume", segment=2)


def test_the_probability_is_the_mean_of_the_twenty_highest_of_the_largest_lesion(
    predictor: UNetPredictor,
) -> None:
    volume, _ = ball_volume()

    findings = predictor.predict(volume, quiet)

    lesion = predictor.probabilities(volume, quiet)[0][labels_of(findings) > 0]
    wanted = np.sort(lesion)[-20:].mean()
    assert findings.number("probability") == pytest.approx(float(wanted), rel=1e-6)
    assert findings.number("probability") > 0.9


def test_nothing_bright_is_absent_and_improbable(predictor: UNetPredictor) -> None:
    volume, _ = ball_volume(radius_mm=0.0)

    findings = predictor.predict(volume, quiet)

    assert findings.present is False
    assert findings.number("volume") == 0.0
    assert findings.number("probability") < 0.5
    assert not labels_of(findings).any()
    assert [segment.label for segment in findings.segments] == ["Haemorrhage"]


def test_within_the_skull_nothing_is_found_without_one(
    predictor: UNetPredictor, tiny_package: Path, tmp_path: Path
) -> None:
    copy = copy_of(tiny_package, tmp_path)
    edit_manifest(copy, "postprocess.within", "skull")
    bare, _ = ball_volume()
    array = bare.array.copy()
    array[[1, -2]] = array[:, [1, -2]] = 1000.0
    boxed = Volume(array, bare.affine)

    careful = load_predictor(load_package(copy), "cpu")

    assert careful.identity.parameters["within"] == "skull"
    found = careful.predict(bare, quiet)
    assert predictor.predict(bare, quiet).present
    assert not found.present
    assert found.number("volume") == 0.0
    assert found.number("probability") < 0.5
    inside = labels_of(careful.predict(boxed, quiet))
    assert inside.any()
    assert not (inside & ~labels_of(predictor.predict(boxed, quiet))).any()


def test_a_speck_is_dropped_and_does_not_decide_the_probability() -> None:
    probabilities = np.full((1, 9, 10, 11), 0.01, np.float32)
    probabilities[0, 1:4, 1:4, 1:4] = 0.7
    probabilities[0, 8, 9, 10] = 1.0

    labels, peak = labelled(probabilities, 0.5, least_voxels=5)

    assert np.count_nonzero(labels) == 27
    assert labels[8, 9, 10] == 0
    assert peak == pytest.approx(0.7)


def test_the_probability_without_a_lesion_is_that_of_all_but_specks() -> None:
    probabilities = np.full((1, 9, 10, 11), 0.1, np.float32)
    probabilities[0, 0, 0, :4] = 0.9
    probabilities[0, 5, 5, :3] = 0.4

    labels, peak = labelled(probabilities, 0.5, least_voxels=5)

    assert not labels.any()
    assert peak == pytest.approx((3 * 0.4 + 17 * 0.1) / 20)


def test_a_grid_full_of_specks_is_no_more_probable_than_the_threshold() -> None:
    labels, peak = labelled(np.full((1, 1, 1, 3), 0.9, np.float32), 0.5, least_voxels=5)

    assert not labels.any()
    assert peak == 0.5


def test_parts_that_touch_by_a_corner_are_one_lesion() -> None:
    probabilities = np.zeros((1, 4, 4, 4), np.float32)
    probabilities[0, 0, 0, 0] = probabilities[0, 1, 1, 1] = 0.9

    labels, _ = labelled(probabilities, 0.5, least_voxels=2)

    assert np.count_nonzero(labels) == 2


def test_each_voxel_gets_its_likeliest_class_above_the_threshold() -> None:
    probabilities = np.zeros((2, 2, 1, 1), np.float32)
    probabilities[:, 0, 0, 0] = (0.3, 0.6)
    probabilities[:, 1, 0, 0] = (0.5, 0.2)

    labels, peak = labelled(probabilities, 0.5, least_voxels=0)

    assert labels.ravel().tolist() == [2, 0]
    assert peak == pytest.approx(0.6)


def test_progress_goes_up_to_one(predictor: UNetPredictor) -> None:
    told: list[float] = []

    predictor.predict(ball_volume(shape=(20, 20, 19))[0], told.append)

    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_volume_with_a_voxel_that_is_no_number_is_refused(
    predictor: UNetPredictor, value: float
) -> None:
    volume, _ = ball_volume()
    volume.array[3, 4, 5] = value

    with pytest.raises(UnfitInput, match="1 voxels of this volume are not finite") as refused:
        predictor.predict(volume, quiet)
    assert refused.value.reason == "not_finite"


def test_a_volume_without_voxels_is_refused(predictor: UNetPredictor) -> None:
    empty = Volume(np.zeros((0, 5, 5), np.float32), np.eye(4))

    with pytest.raises(UnfitInput, match="0 x 5 x 5") as refused:
        predictor.predict(empty, quiet)
    assert refused.value.reason == "no_volume"


def test_the_source_is_not_changed(predictor: UNetPredictor) -> None:
    volume, _ = ball_volume()
    before = volume.array.copy()
    volume.array.setflags(write=False)

    predictor.predict(volume, quiet)

    assert np.array_equal(volume.array, before)
