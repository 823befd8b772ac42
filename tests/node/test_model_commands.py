"""Commands about models: every mistake at once, figures on labelled folders."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from models.architectures import build_network
from models.package import dump_manifest, load_package
from models.status import set_status, status_of
from node.cli.main import app
from tests.models.labelled import write_nnunet
from tests.models.small import ARCHITECTURE, draft, shades_volume, write_shades
from tests.models.tiny import edit_manifest


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("shades") / "shades")


def write_labelled(folder: Path, images: str, labels: str, suffix: str = "") -> Path:
    (folder / images).mkdir(parents=True)
    (folder / labels).mkdir()
    volume, truth = shades_volume()
    for number in (1, 2):
        array = volume.array + np.float32(number)
        name = f"case_{number}"
        nib.save(nib.Nifti1Image(array, volume.affine), folder / images / f"{name}{suffix}.nii.gz")
        nib.save(nib.Nifti1Image(truth, volume.affine), folder / labels / f"{name}.nii.gz")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "labels", "suffix"), [("images", "labels", ""), ("imagesTr", "labelsTr", "_0000")]
)
def test_the_last_line_of_evaluate_holds_the_dice_of_each_structure(
    tmp_path: Path, shades: Path, images: str, labels: str, suffix: str
) -> None:
    data = write_labelled(tmp_path / "data", images, labels, suffix)

    done = CliRunner().invoke(
        app, ["evaluate", "--model", str(shades), "--data", str(data), "--json"]
    )

    assert done.exit_code == 0, done.output
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert set(metrics["dice"]) == {"Left hippocampus", "Right hippocampus"}
    assert all(0.9 < value <= 1 for value in metrics["dice"].values())
    assert metrics["held_out"] == 2
    assert metrics["model"]["sha256"] == load_package(shades).identity.sha256


def test_evaluate_says_what_it_wants(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--model", "x"])

    assert done.exit_code == 2
    assert "--data" in done.output


@pytest.mark.slow
def test_verify_tells_every_mistake_of_a_manifest_at_once(tmp_path: Path) -> None:
    package = write_shades(tmp_path / "shades")
    good = CliRunner().invoke(app, ["models", "verify", str(package), "--json"])
    edit_manifest(package, "version", "one")
    edit_manifest(package, "colour", "red")
    edit_manifest(package, "intended_use", "clinical")
    edit_manifest(package, "segments.0.side", "up")
    edit_manifest(package, "preprocess.0", {"orient": "RAX"})
    edit_manifest(package, "files.weights.path", "weights.onnx")

    done = CliRunner().invoke(app, ["models", "verify", str(package), "--json"])

    assert json.loads(good.stdout)["ok"] is True
    assert done.exit_code == 1
    told = "\n".join(json.loads(done.stdout)["sentences"])
    for wanted in (
        "version: ",
        "colour: ",
        "segments.0.side: ",
        "preprocess.0.orient: ",
        "a model in clinical use has regulatory",
        "files.weights: must be a .safetensors file",
    ):
        assert wanted in told


def write_untrained(folder: Path) -> Path:
    """A draft with weights by chance."""
    folder.mkdir()
    (folder / "arch.json").write_text(json.dumps(ARCHITECTURE))
    save_file(build_network(ARCHITECTURE).state_dict(), folder / "weights.safetensors")
    dump_manifest(folder, draft())
    return folder


def no_numbers(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), np.nan, np.float32), np.eye(4)), path)


def four_axes(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20, 3), np.float32), np.eye(4)), path)


def by_half(path: Path) -> None:
    volume, _ = shades_volume()
    noise = np.random.default_rng(0).normal(0, 1, volume.array.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, volume.affine), path)
    path.write_bytes(path.read_bytes()[:3000])


def nowhere_in_space(path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_sform(np.diag([0.0, 1.0, 1.0, 1.0]), code=1)
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), None, header)
    path.write_bytes(gzip.compress(image.to_bytes()))


@pytest.mark.parametrize(
    ("write", "wanted"),
    [
        (no_numbers, "not finite numbers"),
        (four_axes, "has 4 axes, wanted three"),
        (by_half, "is no whole NIfTI file (EOFError)"),
        (nowhere_in_space, "not invertible"),
    ],
)
def test_a_sample_that_cannot_be_used_ends_in_a_sentence(
    tmp_path: Path, write: Callable[[Path], None], wanted: str
) -> None:
    folder = write_untrained(tmp_path / "draft")
    sample = tmp_path / "sample.nii.gz"
    write(sample)

    done = CliRunner().invoke(app, ["models", "package", str(folder), "--sample", str(sample)])

    assert isinstance(done.exception, SystemExit), done.exception
    assert "The sample cannot be" in done.output
    assert wanted in " ".join(done.output.split())


def test_a_sample_of_another_kind_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = write_untrained(tmp_path / "draft")
    (tmp_path / "net.pth").write_bytes(b"x")

    done = CliRunner().invoke(
        app, ["models", "package", str(folder), "--sample", str(tmp_path / "net.pth")]
    )

    assert done.exit_code == 2
    assert "net.pth is no whole NIfTI file" in done.output


PID = """
import os


class Model:
    def inference(self, *, image):
        print("looking")
        with open({path!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        if {ends}:
            os._exit(7)
        return {{"shade": image.array > 25}}
"""


def write_code_draft(folder: Path, noted: Path, *, ends: bool = False) -> Path:
    """A draft whose code notes the process it runs in."""
    folder.mkdir()
    (folder / "model.py").write_text(PID.format(path=str(noted), ends=ends))
    content = draft(
        files={"code": ["model.py"]},
        runtime={"kind": "python", "entry": "model:Model"},
        input=None,
        inputs={"image": {"modality": "CT"}},
        outputs={"shade": {"kind": "mask", "segment": 1}},
    )
    left = ("preprocess", "inference", "input")
    dump_manifest(folder, {key: value for key, value in content.items() if key not in left})
    return folder


@pytest.mark.parametrize("has_sample", [False, True])
def test_code_of_a_package_runs_in_a_process_of_its_own(tmp_path: Path, has_sample: bool) -> None:
    folder = write_code_draft(tmp_path / "coded", tmp_path / "pids")
    volume, _ = shades_volume()
    nib.save(nib.Nifti1Image(volume.array, volume.affine), tmp_path / "image.nii.gz")
    sample = ["--sample", str(tmp_path / "image.nii.gz")] if has_sample else []

    untrusted = CliRunner().invoke(app, ["models", "package", str(folder), *sample])
    done = CliRunner().invoke(app, ["models", "package", str(folder), "--trust-code", *sample])

    assert untrusted.exit_code == 1
    assert "say --trust-code" in untrusted.output
    assert done.exit_code == 0, done.output
    assert load_package(folder).identity.sha256 in done.output.replace("\n", "")
    assert str(os.getpid()) not in (tmp_path / "pids").read_text().split()
    with np.load(folder / "test_vector.npz") as vector:
        assert vector["array"].shape == (volume.array.shape if has_sample else (48, 44, 40))


def test_code_that_ends_its_process_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = write_code_draft(tmp_path / "coded", tmp_path / "pids", ends=True)

    done = CliRunner().invoke(app, ["models", "package", str(folder), "--trust-code"])

    assert done.exit_code == 1
    assert "Loading ended its process (7)." in done.output


def test_a_status_changes_no_identity_and_can_be_taken_back(tmp_path: Path) -> None:
    package = write_shades(tmp_path / "shades")
    before = (package / "model.yaml").read_bytes()
    identity = load_package(package).identity

    set_status(package, "recalled", "It's wrong: twice.")
    shown = CliRunner().invoke(app, ["models", "show", str(package), "--json"])
    told = status_of(package)
    set_status(package, "active", "")

    assert told == ("recalled", "It's wrong: twice.")
    assert json.loads(shown.stdout)["status"] == "recalled"
    assert json.loads(shown.stdout)["sha256"] == identity.sha256
    assert (package / "model.yaml").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "package")

    done = CliRunner().invoke(
        app, ["train", "segmentation", "-d", str(data), "-c", "hippocampus", "-o", out]
    )

    assert done.exit_code == 1
    assert "the same command goes on" in " ".join(done.output.split())
