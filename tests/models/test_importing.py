"""Models of others become packages; nothing in their files is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.architectures import build_network
from models.base import BrokenPackage, Volume
from models.importing import Wishes, import_file, import_model
from models.loading import load_predictor
from models.package import load_package
from models.packaging import finish_package
from models.preprocess import prepared
from tests.models.small import (
    ARCHITECTURE,
    BONE,
    SHADE,
    brightness_network,
    draft,
    shades_volume,
    write_draft,
)
from tests.models.tiny import quiet

pytestmark = pytest.mark.slow


def write_bundle(folder: Path, network: Any = None) -> Path:
    """A MONAI bundle around the network that tells shades apart."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    channels = {"0": "background", "1": "Left hippocampus", "2": "spleen"}
    metadata = {
        "name": "Shades of grey",
        "version": "0.3.1",
        "license": "Apache-2.0",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1}},
            "outputs": {"pred": {"channel_def": channels}},
        },
    }
    inference = {
        "imports": ["$import os", "$os.system('touch ran')"],
        "device": "$torch.device('cuda')",
        "spacing": [2.0, 2.0, 4.0],
        "network_def": network or {"_target_": "UNet", **ARCHITECTURE["arguments"]},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": "@spacing"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": 0,
                    "a_max": 100,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "MyOwnTransformd", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "overlap": 0.25},
        "postprocessing": {"transforms": [{"_target_": "Activationsd", "softmax": True}]},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    torch.save(brightness_network().state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_monai_bundle_becomes_a_package_that_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    _, remarks = import_model(write_bundle(tmp_path / "bundle"), tmp_path / "out", Wishes())

    package = load_package(tmp_path / "out")
    assert (package.identity.family, package.identity.version) == ("Shades-of-grey", "0.3.1")
    assert [segment.label for segment in package.segments] == ["Left hippocampus", "spleen"]
    assert package.segments[0].side == "left"
    assert package.segments[1].type == ("SCT", "78961009", "Spleen")
    assert any("MyOwnTransformd" in remark for remark in remarks)
    volume, truth = shades_volume()
    labels = load_predictor(package, "cpu").predict(volume, quiet).labels
    assert labels is not None
    assert ((labels > 0) == (truth > 0)).mean() > 0.97
    assert not (tmp_path / "ran").exists()


def test_an_argument_that_is_code_is_named_and_not_evaluated(tmp_path: Path) -> None:
    network = {"_target_": "UNet", **ARCHITECTURE["arguments"], "channels": "$[8] * 2"}

    with pytest.raises(BrokenPackage, match=r"argument channels .* is code"):
        import_model(write_bundle(tmp_path / "bundle", network), tmp_path / "out", Wishes())


@pytest.mark.parametrize(
    "content",
    [
        {"network": "os.system", "arguments": {}},
        {"network": "UNet", "arguments": {"spatial_dims": 3, "hook": "x"}},
        {"network": "UNet", "arguments": {"spatial_dims": 1e12}},
        {"network": "UNet", "arguments": {"channels": [1] * 5000}},
        {"network": "UNet", "arguments": [], "code": "x"},
    ],
    ids=["no network", "no argument", "too large", "too many", "strange key"],
)
def test_an_architecture_is_data_of_a_sensible_size(content: dict[str, Any]) -> None:
    with pytest.raises(BrokenPackage):
        build_network(content)


def test_after_a_refusal_the_same_command_can_be_given_again(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["inputs"]["image"].pop("modality")
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    out = tmp_path / "out"
    with pytest.raises(BrokenPackage, match="--modality CT"):
        import_model(bundle, out, Wishes())

    import_model(bundle, out, Wishes(modality="CT"))

    assert load_package(out).input.modality == "CT"


def test_a_draft_that_does_not_work_is_left_with_what_to_do(tmp_path: Path) -> None:
    network = {"_target_": "UNet", **ARCHITECTURE["arguments"], "channels": [4, 4]}

    with pytest.raises(BrokenPackage, match="remove the folder and begin anew"):
        import_model(write_bundle(tmp_path / "bundle", network), tmp_path / "out", Wishes())


def test_weights_in_bfloat16_are_imported(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "net.pt")

    assert import_file(tmp_path / "net.pt", tmp_path / "out") == ["w"]


def write_nnunet(folder: Path, regions: bool = False) -> tuple[Path, dict[str, Any]]:
    """A trained folder of nnU-Net v2 as it writes them, with weights by chance."""
    arguments: dict[str, Any] = {
        "n_stages": 2,
        "features_per_stage": [4, 6],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_bias": True,
    }
    fingerprint = {"mean": 40.0, "std": 20.0, "percentile_00_5": -5.0, "percentile_99_5": 90.0}
    plans = {
        "dataset_name": "Dataset017_Shades",
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": fingerprint},
        "configurations": {
            "3d_fullres": {
                "spacing": [4.0, 1.5, 1.5],
                "patch_size": [8, 16, 16],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.PlainConvUNet",
                    "arch_kwargs": arguments,
                },
            }
        },
    }
    labels: dict[str, Any] = {"background": 0, "Core": 1, "Rim": 2}
    if regions:
        labels = {"background": 0, "Whole": [1, 2], "Core": [2]}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    wanted = {
        "network": "PlainConvUNet",
        "arguments": {
            "dimensions": 3,
            "input_channels": 1,
            "num_classes": 2 if regions else 3,
            "features_per_stage": [4, 6],
            "kernel_sizes": arguments["kernel_sizes"],
            "strides": arguments["strides"],
            "n_conv_per_stage": [2, 2],
            "n_conv_per_stage_decoder": [2],
        },
    }
    state = build_network(wanted).state_dict()
    doubled = {name.replace(".conv.", ".all_modules.0."): v for name, v in state.items()}
    checkpoint: dict[str, Any] = {
        "network_weights": state | doubled | {f"decoder.{n}": v for n, v in state.items()},
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "logging": {"ema_fg_dice": [np.float64(0.5)]},
        "_best_ema": np.float64(0.5),
    }
    checkpoint["network_weights"] = {
        name: value
        for name, value in checkpoint["network_weights"].items()
        if not name.startswith("decoder.decoder.")
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder, wanted


@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_an_nnunet_folder_becomes_a_package(tmp_path: Path, regions: bool) -> None:
    folder, wanted = write_nnunet(tmp_path / "nnunet", regions)

    import_model(folder, tmp_path / "out", Wishes(orient="LPS"))

    package = load_package(tmp_path / "out")
    manifest = package.manifest
    assert package.configuration() == wanted
    assert manifest.runtime.activation == ("sigmoid" if regions else "softmax")
    assert [step.name for step in manifest.preprocess] == [
        "orient",
        "transpose",
        "crop",
        "clip",
        "normalise",
        "resample",
    ]
    assert manifest.preprocess[0].orient == "LPS"
    assert manifest.preprocess[1].transpose == (2, 1, 0)
    assert manifest.inference.patch == (8, 16, 16)
    assert manifest.inference.mirror == (0, 1, 2)
    volume, _ = shades_volume()
    found = load_predictor(package, "cpu").predict(volume, quiet)
    assert found.labels is not None
    assert found.labels.shape == volume.array.shape


@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 0, 2]])
@pytest.mark.parametrize("lies", ["RAS", "LAS", "LPS", "PSR", "SAL"])
def test_an_nnunet_model_sees_images_as_the_sample_lay(
    tmp_path: Path, lies: str, axes: list[int]
) -> None:
    folder, _ = write_nnunet(tmp_path / "nnunet")
    edit_json(folder / "plans.json", transpose_forward=axes)
    array = np.random.default_rng(3).normal(40.0, 5.0, (20, 18, 16)).astype(np.float32)
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.axcodes2ornt(lies), (20, 18, 16)
    ) @ np.diag([1.5, 1.6, 4.0, 1.0])
    sample = Volume(array, affine)

    package, remarks = import_model(folder, tmp_path / "out", Wishes(), sample)

    first = package.manifest.preprocess[:2]
    assert np.array_equal(prepared({"image": sample}, first).array[0], array.T.transpose(axes))
    assert any(remark.startswith("orient: ") and "sample" in remark for remark in remarks)


def test_an_nnunet_model_whose_reader_turned_images_is_not_turned_again(tmp_path: Path) -> None:
    folder, _ = write_nnunet(tmp_path / "nnunet")
    edit_json(folder / "dataset.json", overwrite_image_reader_writer="NibabelIOWithReorient")
    array = np.random.default_rng(3).normal(40.0, 5.0, (20, 18, 16)).astype(np.float32)

    package, remarks = import_model(
        folder, tmp_path / "out", Wishes(), Volume(array, np.diag([-1.5, -1.5, 4.0, 1.0]))
    )

    assert package.manifest.preprocess[0].orient == "RAS"
    assert not any("orient" in remark for remark in remarks)


def test_an_nnunet_model_without_a_sample_is_told_to_need_one(tmp_path: Path) -> None:
    folder, _ = write_nnunet(tmp_path / "nnunet")

    package, remarks = import_model(folder, tmp_path / "out", Wishes())

    assert package.manifest.preprocess[0].orient == "RAS"
    assert any("RAS is taken" in remark and "--sample" in remark for remark in remarks)


def test_a_wish_turns_images_of_a_bundle_that_does_not(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    inference["preprocessing"]["transforms"].pop(1)
    (bundle / "configs" / "inference.json").write_text(json.dumps(inference))

    package, _ = import_model(bundle, tmp_path / "out", Wishes(orient="LPS"))

    assert package.manifest.preprocess[0].orient == "LPS"


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_folds_of_an_nnunet_folder_are_averaged_unless_one_is_named(tmp_path: Path) -> None:
    folder, wanted = write_nnunet(tmp_path / "nnunet")
    (folder / "fold_3").mkdir()
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    torch.manual_seed(8)
    for value in checkpoint["network_weights"].values():
        value += torch.randn_like(value)
    torch.save(checkpoint, folder / "fold_3" / "checkpoint_best.pth")

    found = {}
    for fold in ("0", "3", ""):
        import_model(folder, tmp_path / f"out{fold}", Wishes(orient="LPS", fold=fold))
        package = load_package(tmp_path / f"out{fold}")
        network = build_network(package.configuration())
        network.load_state_dict(load_file(package.folder / "weights.safetensors"))
        found[fold] = network, package
    x = torch.randn(1, 1, 8, 16, 16)
    with torch.inference_mode():
        first, second, mean = (network(x) for network, _ in found.values())

    assert found[""][1].configuration() == wanted | {"members": 2}
    assert not torch.allclose(first, second, atol=0.1)
    torch.testing.assert_close(mean, (first + second) / 2)
    volume, _ = shades_volume()
    assert load_predictor(found[""][1], "cpu").predict(volume, quiet).labels is not None


def test_a_file_of_weights_is_made_a_package_by_hand(tmp_path: Path) -> None:
    torch.save({"state_dict": brightness_network().state_dict()}, tmp_path / "mine.pth")

    names = import_file(tmp_path / "mine.pth", tmp_path / "out")
    converted = (tmp_path / "out" / "weights.safetensors").read_bytes()
    write_draft(tmp_path / "out", draft())
    (tmp_path / "out" / "weights.safetensors").write_bytes(converted)
    finish_package(tmp_path / "out")

    assert names == sorted(brightness_network().state_dict())
    assert load_package(tmp_path / "out").segments[0].side == "left"


# Kinds that are not torch


def test_an_onnx_graph_labels(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = write_draft(tmp_path / "shades", draft())
    scale = np.array([0.0, 40.0, 80.0], np.float32).reshape(3, 1, 1, 1, 1)
    bias = np.array([0.0, -10.0, -40.0], np.float32)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    space = ["n", 1, "x", "y", "z"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "scale", "bias"], ["said"])],
        "shades",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, space)],
        [helper.make_tensor_value_info("said", onnx.TensorProto.FLOAT, ["n", 3, "x", "y", "z"])],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    content = draft(files={"weights": "graph.onnx"}, runtime={"kind": "onnx"})
    (folder / "arch.json").unlink()
    write_manifest_of(folder, content)
    finish_package(folder)

    volume, truth = shades_volume()
    labels = load_predictor(load_package(folder), "cpu").predict(volume, quiet).labels
    assert labels is not None
    for number in (1, 2):
        found, wanted = labels == number, truth == number
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.9


def test_a_classifier_of_voxels_labels(tmp_path: Path) -> None:
    skops_io = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    values = np.array([[0.0], [0.02], [0.5], [0.52], [1.0], [0.98]])
    model = LogisticRegression(C=1e4).fit(values, [0, 0, 1, 1, 2, 2])
    folder = write_draft(tmp_path / "shades", draft())
    (folder / "arch.json").unlink()
    skops_io.dump(model, folder / "classifier.skops")
    runtime = {"kind": "skops", "activation": "none"}
    content = draft(files={"weights": "classifier.skops"}, runtime=runtime)
    write_manifest_of(folder, content)
    finish_package(folder)

    volume, truth = shades_volume()
    findings = load_predictor(load_package(folder), "cpu").predict(volume, quiet)
    assert findings.labels is not None
    assert ((findings.labels > 0) == (truth > 0)).mean() > 0.97
    assert {SHADE, BONE} == {50.0, 100.0}


def write_manifest_of(folder: Path, content: dict[str, Any]) -> None:
    from models.package import dump_manifest

    dump_manifest(folder, content)
