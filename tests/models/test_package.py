"""Model packages: a good one loads, and whatever is done to one is refused with a sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load, save

from models.base import BrokenPackage
from models.catalogue import MANIFEST
from models.loading import load_predictor
from models.package import Limits, Manifest, load_package, write_manifest
from tests.models.tiny import edit_manifest, forge, read_yaml


def refused(folder: Path, loads: bool = False) -> str:
    """The sentence a package is refused with, by `load_package` or later by `predictor`."""
    if loads:
        package = load_package(folder)
        with pytest.raises(BrokenPackage) as error:
            load_predictor(package, "cpu")
    else:
        with pytest.raises(BrokenPackage) as error:
            load_package(folder)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert len(sentence) < 1500
    return sentence


# A good package


def test_identity_holds_the_digests_of_manifest_and_weights(tiny_package: Path) -> None:
    identity = load_package(tiny_package).identity

    assert identity.sha256 == hashlib.sha256((tiny_package / MANIFEST).read_bytes()).hexdigest()
    weights = (tiny_package / "weights.safetensors").read_bytes()
    assert identity.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert (identity.family, identity.version) == ("haemorrhage-unet", "1.2.3")
    assert identity.intended_use == "demonstration"
    assert identity.finding == ("SCT", "1386000", "Intracranial hemorrhage")
    assert identity.parameters == {"threshold": "0.5", "min_component_ml": "0.2"}


def test_a_good_package_passes_its_test_vector(tiny_package: Path) -> None:
    package = load_package(str(tiny_package))

    assert load_predictor(package, "cpu").identity == package.identity


def test_the_manifest_survives_being_written_and_read(package: Path) -> None:
    before = load_package(package).manifest

    write_manifest(package, before)

    assert load_package(package).manifest == before


def test_what_a_manifest_leaves_open_stays_open_when_written(package: Path) -> None:
    before = load_package(package).manifest
    free = before.first.model_copy(update={"slices": Limits(min=3), "coverage_mm": Limits()})

    write_manifest(package, before.model_copy(update={"input": free}))

    assert load_package(package).manifest.first == free


def test_reading_a_package_imports_no_torch(tiny_package: Path) -> None:
    program = (
        "import sys; from models.package import load_package; load_package(sys.argv[1]);"
        "heavy = {'torch', 'monai', 'pydicom', 'matplotlib', 'scipy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_package)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_other_papers_may_lie_in_a_package(package: Path) -> None:
    (package / "MODEL_CARD.md").write_text("# Card\n")
    (package / "pictures").mkdir()
    (package / "pictures" / "case.png").write_bytes(b"")

    load_package(package)


# Files


@pytest.mark.parametrize("name", ["weights.safetensors", "arch.json", "test_vector.npz"])
def test_a_changed_byte_is_refused(package: Path, name: str) -> None:
    data = bytearray((package / name).read_bytes())
    data[len(data) // 2] ^= 1
    (package / name).write_bytes(data)

    sentence = refused(package)
    assert name in sentence
    assert "not the file of the manifest" in sentence


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "arch.json", "test_vector.npz", "model.yaml"]
)
def test_a_missing_file_is_refused(package: Path, name: str) -> None:
    (package / name).unlink()

    assert f"{name} cannot be read: No such file" in refused(package)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["arch.json", "model.yaml"])
def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_refused(package: Path, name: str) -> None:
    (package / name).unlink()
    os.mkfifo(package / name)
    assert "no plain file" in refused(package)

    (package / name).unlink()
    (package / name).mkdir()
    assert "no plain file" in refused(package)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.yaml"])
def test_a_link_out_of_the_package_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    (package / name).rename(tmp_path / name)
    (package / name).symlink_to(tmp_path / name)

    assert f"{name} leads out of the package" in refused(package)


def test_a_linked_folder_out_of_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (package / "arch.json").rename(outside / "arch.json")
    (package / "sub").symlink_to(outside)
    edit_manifest(package, "files.config.path", "sub/arch.json")

    assert "sub/arch.json leads out of the package" in refused(package)


def test_a_link_to_itself_is_refused(package: Path) -> None:
    (package / "arch.json").unlink()
    (package / "arch.json").symlink_to(package / "arch.json")

    assert "arch.json" in refused(package)


def test_a_linked_package_is_accepted(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package)

    load_package(tmp_path / "link")


@pytest.mark.parametrize(
    "path",
    [
        "../weights.safetensors",
        "/etc/passwd",
        "a/b/c.safetensors",
        "a/../weights.safetensors",
        "a/..",
        ".hidden",
        "~/weights.safetensors",
        "a\\b.safetensors",
        "weights.safetensors\n",
        "",
    ],
)
def test_a_path_that_is_no_plain_name_is_refused(package: Path, path: str) -> None:
    edit_manifest(package, "files.weights.path", path)

    assert "files.weights.path: " in refused(package)


@pytest.mark.parametrize("name", ["model.pt", "a/b/model.PKL", "x.joblib", "y.ckpt", "z.bin"])
def test_a_file_that_can_run_code_may_not_lie_in_a_package(package: Path, name: str) -> None:
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_bytes(pickle.dumps({}))

    assert "can run code when it is read" in refused(package)


@pytest.mark.parametrize(("kind", "name"), [("weights", "w.npz"), ("test_vector", "t.npy")])
def test_files_of_another_kind_are_refused(package: Path, kind: str, name: str) -> None:
    data = b"anything"
    (package / name).write_bytes(data)
    edit_manifest(package, f"files.{kind}.path", name)
    edit_manifest(package, f"files.{kind}.sha256", hashlib.sha256(data).hexdigest())

    assert "must be a" in refused(package)


def test_weights_exchanged_after_the_check_are_not_loaded(package: Path) -> None:
    checked = load_package(package)
    (package / "weights.safetensors").write_bytes(b"other")

    with pytest.raises(BrokenPackage, match="not the file of the manifest"):
        load_predictor(checked, "cpu")


# The manifest's text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", "content: "),
        (b"just words", "content: "),
        (b"- a\n- b\n", "content: "),
        (b"a: [1,", "is not YAML"),
        (b"a: 1\na: 2\n", "is not YAML"),
        (b"a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        (b"a: !thing 1\n", "is not YAML"),
        (b"a: \xff\xfe\n", "is not YAML in UTF-8"),
        (b"a: " + b"9" * 5000, "a number or date that makes no sense"),
        (b"a: 2026-02-30\n", "a number or date that makes no sense"),
        (b"a: 9999-12-31T23:59:60Z\n", "a number or date that makes no sense"),
        (b"a: !!bool x\n", "a number or date that makes no sense"),
        (b"a: !!int ''\n", "a number or date that makes no sense"),
        (b"? [a]\n: 1\n", "is not a manifest"),
        (b"a: \x00\n", "is not YAML"),
        (b"a: 1\n---\nb: 2\n", "is not YAML"),
        (b"[" * 60_000, "nested more than 16 levels"),
        (b"- " * 30_000, "nested more than 16 levels"),
        (b"{a: " * 15_000, "nested more than 16 levels"),
        (b"a: &x [*x]\n", "alias"),
        (b"a: &x {b: 1}\nc:\n  <<: *x\n", "alias"),
        (b"x" * 65_537, "larger than 64 KiB"),
    ],
    ids=lambda value: value[:20].decode("latin1") if isinstance(value, bytes) else "",
)
def test_a_text_that_is_no_manifest_is_refused(package: Path, text: bytes, wanted: str) -> None:
    (package / MANIFEST).write_bytes(text)

    assert wanted in refused(package)


def test_a_yaml_bomb_is_refused_at_once(package: Path) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (package / MANIFEST).write_text("\n".join(lines))
    started = time.monotonic()

    assert "alias" in refused(package)
    assert time.monotonic() - started < 5


def test_a_line_that_is_not_yaml_is_named(package: Path) -> None:
    with (package / MANIFEST).open("a") as file:
        file.write("oh: [")

    last = len((package / MANIFEST).read_text().splitlines())
    assert f"(line {last})" in refused(package)


def test_a_skull_is_looked_for_in_ct_only(package: Path) -> None:
    edit_manifest(package, "postprocess.within", "skull")
    load_package(package)
    edit_manifest(package, "input.modality", "MR")

    assert "postprocess.within: a skull is found in CT only" in refused(package)


@pytest.mark.parametrize(
    ("keys", "value", "wanted"),
    [
        ("colour", "red", "colour: "),
        ("input.colour", "red", "input.colour: "),
        ("files.weights.url", "http://example.org", "files.weights.url: "),
        ("schema", "scorenode-model/2", "schema: "),
        ("version", "latest", "version: "),
        ("version", 1.0, "version: "),
        ("family", "../x", "family: "),
        ("intended_use", "everything", "intended_use: "),
        ("finding", ["SCT", "1386000"], "finding."),
        ("finding", ["SCT", "", "Intracranial hemorrhage"], "finding."),
        ("files.weights.sha256", "0" * 63, "files.weights.sha256: "),
        ("files.weights.sha256", "G" * 64, "files.weights.sha256: "),
        ("runtime.kind", "pickle", "runtime.kind: "),
        ("input.plane", "diagonal", "input.plane: "),
        ("input.slices", {"min": 9, "max": 3}, "input.slices: "),
        ("input.slices", {"min": float("nan")}, "input.slices.min: "),
        ("input.slices", {"max": float("nan")}, "input.slices: "),
        ("segments", [], "segments: "),
        ("segments.0.number", 0, "segments.0.number: "),
        ("segments.0.number", 2, "segments: "),
        ("segments.0.label", "x" * 65, "segments.0.label: "),
        ("segments.0.color", [0, 0, 256], "segments.0.color.2: "),
        ("postprocess.threshold", 1.0, "postprocess.threshold: "),
        ("postprocess.threshold", float("nan"), "postprocess.threshold: "),
        ("postprocess.min_component_ml", float("inf"), "postprocess.min_component_ml: "),
        ("postprocess.within", "brain", "postprocess.within: "),
        ("test_vector.atol", float("inf"), "test_vector.atol: "),
        ("test_vector.atol", 5.0, "test_vector.atol: "),
        ("training", {"steps": [1, 2]}, "training.steps"),
        ("segments.0.number", [1], "segments.0.number: "),
        ("outputs", {"a": {"kind": "mask", "segment": [1]}}, "outputs.a.segment: "),
        ("preprocess", [{"zscore": "all", "channel": ["image"]}], "preprocess.0.channel: "),
        ("preprocess", [{"clip": [100.0, -100.0]}], "preprocess.0: "),
        ("preprocess", [{"minmax": [1.0, 1.0]}], "preprocess.0: "),
        ("preprocess", [{"normalise": {"mean": 0.0, "std": 1e-320}}], "normalise.std: "),
        ("inference", {"mirror": [0] * 40}, "inference.mirror: "),
        ("input.modality", "ct", "input.modality: "),
        ("input.modality", "", "input.modality: "),
        ("title", "Reads \x1b[31mred", "title: "),
        ("segments.0.label", "A\\B", "segments.0.label: "),
        ("finding", ["SCT", "1386000", "Bleeding\nof the head"], "finding.2: "),
    ],
)
def test_a_mistake_in_the_manifest_is_named(
    package: Path, keys: str, value: object, wanted: str
) -> None:
    edit_manifest(package, keys, value)

    sentence = refused(package)
    assert "is not a manifest" in sentence
    assert wanted in sentence


def test_two_segments_of_one_number_are_refused(package: Path) -> None:
    (segment,) = read_yaml(package)["segments"]
    edit_manifest(package, "segments", [segment, json.loads(json.dumps(segment))])

    assert "numbered 1, 2, 3" in refused(package)


def test_all_mistakes_are_told_at_once(package: Path) -> None:
    edit_manifest(package, "version", "one")
    edit_manifest(package, "colour", "red")

    sentence = refused(package)
    assert "version: " in sentence
    assert "colour: " in sentence


def test_a_thousand_mistakes_fit_a_sentence(package: Path) -> None:
    edit_manifest(package, "training", {f"key {'k' * 20} {i}": [] for i in range(500)})

    assert "and 1492 more" in refused(package)


def test_every_file_of_the_manifest_is_verified() -> None:
    """A new kind of file in the schema must be verified, too."""
    files = Manifest.model_fields["files"].annotation

    kinds = {"weights", "config", "test_vector", "code"}
    assert set(files.model_fields) == kinds  # type: ignore[union-attr]


# What a hostile or careless author could sign


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"channels": [8, 32]}, "do not fit"),
        ({"channels": [8]}, "do not fit"),
        ({"channels": [8] * 6}, "do not fit"),
        ({"channels": [1 << 20, 1 << 20]}, "do not fit"),
        ({"channels": "wide"}, "do not fit"),
        ({"channels": None}, "do not fit"),
        ({"classes": 1}, "do not fit"),
        ({"classes": 3}, "do not fit"),
        ({"neighbours": 1_000_000}, "do not fit"),
        ({"neighbours": 1.5}, "do not fit"),
        ({"spacing_mm": 0.0}, "do not fit"),
        ({"spacing_mm": float("nan")}, "do not fit"),
        ({"spacing_mm": 1e-9}, "do not fit"),
        ({"window_hu": [80.0, 80.0]}, "do not fit"),
        ({"window_hu": [80.0]}, "do not fit"),
        ({"residual_units": 99}, "do not fit"),
        ({"activation": "sin"}, "do not fit"),
        ({"activation": ["relu"]}, "do not fit"),
        ({"hook": "os.system"}, "do not fit"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_an_architecture_that_makes_no_sense_is_refused(
    package: Path, change: dict[str, object], wanted: str
) -> None:
    content = json.loads((package / "arch.json").read_bytes()) | change
    forge(package, "config", json.dumps(content).encode())

    assert wanted in refused(package, loads=True)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"7", b"\xff", b"[" * 100_000])
def test_an_architecture_that_is_no_json_object_is_refused(package: Path, data: bytes) -> None:
    forge(package, "config", data)

    assert "JSON" in refused(package, loads=True)


def test_a_network_with_more_classes_than_segments_is_refused(package: Path) -> None:
    (segment,) = read_yaml(package)["segments"]
    other = json.loads(json.dumps(segment)) | {"number": 2, "label": "Oedema"}
    edit_manifest(package, "segments", [segment, other])

    assert "tells 1 kinds of voxel apart, its manifest names 2" in refused(package, loads=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(package: Path, value: float) -> None:
    weights = load((package / "weights.safetensors").read_bytes())
    first = sorted(name for name in weights if name.endswith("weight"))[0]
    weights[first].view(-1)[0] = value
    forge(package, "weights", save(weights))

    assert "not finite" in refused(package, loads=True)


@pytest.mark.parametrize(
    "data", [b"", b"words", b"\xff" * 64, pickle.dumps([1, 2, 3]), (1 << 60).to_bytes(8, "little")]
)
def test_weights_that_are_no_safetensors_are_refused(package: Path, data: bytes) -> None:
    forge(package, "weights", data)

    assert "do not fit" in refused(package, loads=True)


def test_weights_with_a_tensor_missing_are_refused_whichever_it_is(package: Path) -> None:
    weights = load((package / "weights.safetensors").read_bytes())
    kinds = {name.rpartition(".")[2]: name for name in sorted(weights)}
    assert "weight" in kinds
    for name in kinds.values():
        rest = {key: tensor for key, tensor in weights.items() if key != name}
        forge(package, "weights", save(rest))

        assert "do not fit" in refused(package, loads=True), name


def test_weights_that_were_trained_on_are_refused_by_the_test_vector(package: Path) -> None:
    weights = load((package / "weights.safetensors").read_bytes())
    forge(package, "weights", save({name: tensor * 1.5 for name, tensor in weights.items()}))

    assert "computes something else" in refused(package, loads=True)


Change = Callable[[dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda v: v.update(probabilities=1 - v["probabilities"]), "computes something else"),
        (lambda v: v.update(probabilities=v["probabilities"][:, 1:]), "inf off"),
        (lambda v: v.update(probabilities=v["probabilities"] * np.nan), "nan off"),
        (lambda v: v.update(array=v["array"][0]), "cannot be read"),
        (lambda v: v.update(array=v["array"] * np.nan), "cannot be read"),
        (lambda v: v.update(affine=np.zeros((4, 4))), "cannot be read"),
        (lambda v: v.update(affine=np.eye(3)), "cannot be read"),
        (lambda v: v.update(affine=np.zeros(3)), "cannot be read"),
        (lambda v: v.update(array=np.array([{"a": 1}], dtype=object)), "cannot be read"),
        (lambda v: v.pop("affine"), "cannot be read"),
    ],
    ids=[
        "other probabilities",
        "other shape",
        "probabilities not numbers",
        "flat volume",
        "volume not numbers",
        "singular affine",
        "small affine",
        "affine no matrix",
        "pickled array",
        "no affine",
    ],
)
def test_a_test_vector_that_does_not_come_out_is_refused(
    package: Path, change: Change, wanted: str
) -> None:
    with np.load(package / "test_vector.npz") as found:
        vector = dict(found)
    change(vector)
    data = io.BytesIO()
    np.savez_compressed(data, **vector)
    forge(package, "test_vector", data.getvalue())

    assert wanted in refused(package, loads=True)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"words"])
def test_a_test_vector_that_is_no_archive_is_refused(package: Path, data: bytes) -> None:
    forge(package, "test_vector", data)

    assert "cannot be read" in refused(package, loads=True)


def test_a_test_vector_that_unpacks_to_gigabytes_is_refused_unread(package: Path) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, array=np.zeros((1 << 28) + 1, np.uint8))
    assert len(data.getvalue()) < 1 << 20
    forge(package, "test_vector", data.getvalue())

    assert "cannot be read" in refused(package, loads=True)
