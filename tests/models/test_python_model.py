"""Models that are code: named inputs, typed outputs, only where the admin trusts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import BrokenPackage, Findings, UnfitInput, Volume
from models.loading import load_predictor
from models.package import dump_manifest, load_package
from models.packaging import finish_package
from tests.models.small import draft, shades_volume
from tests.models.tiny import quiet

OURS = """
import numpy as np
from models.base import Volume


class Model:
    def inference(self, *, image: Volume, age: str | None = None):
        assert image.affine.shape == (4, 4)
        bright = (image.array > 75).astype(np.float32)
        return {
            "shade": (image.array > 25) & (image.array <= 75),
            "bright": bright * 0.9,
            "mean": float(image.array.mean()),
            "grade": "high" if bright.any() else "low",
            "note": f"Looked at {image.array.shape[2]} slices, age {age or 'unknown'}.",
        }
"""

BUNKERHILL = """
from typing import Dict

import numpy as np

from bunkerhill import image_utils
from bunkerhill.base_model import BaseModel
from bunkerhill.bunkerhill_types import Outputs, SeriesInstanceUID
from bunkerhill.model_runner import ModelRunner


class ShadesModel(BaseModel):
  def inference(
    self,
    image_position_patient,
    pixel_array: Dict[SeriesInstanceUID, np.ndarray],
    pixel_spacing,
    patient_sex,
  ) -> Outputs:
    step = image_utils.compute_z_dim_pixel_spacing(next(iter(image_position_patient.values())))
    series_uid = next(iter(pixel_array.keys()))
    slices = pixel_array[series_uid]
    assert slices.shape[0] == len(image_position_patient[series_uid])
    assert slices.shape[1:] == (37, 41) or step > 0
    return {"shades_seg_pred": {series_uid: (slices > 25).astype(np.int16)}, "step": step}


if __name__ == '__main__':
  model_runner = ModelRunner(ShadesModel())
  model_runner.start_run_loop()
"""


def write_code(folder: Path, code: str, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    content = draft(files={"code": ["model.py"]}, **changes)
    for key in ("preprocess", "inference"):
        content.pop(key)
    dump_manifest(folder, content)
    finish_package(folder, trust_code=True)
    return folder


def write_ours(folder: Path) -> Path:
    return write_code(
        folder,
        OURS,
        runtime={"kind": "python", "entry": "model:Model"},
        elements={"age": {"keyword": "PatientAge"}},
        outputs={
            "shade": {"kind": "mask", "segment": 1},
            "bright": {"kind": "probability_map", "segment": 2},
            "mean": {
                "kind": "measurement",
                "name": ["SCT", "373098007", "Mean"],
                "unit": "[hnsf'U]",
            },
            "grade": {"kind": "class", "classes": {"high": "high grade", "low": "low grade"}},
            "note": {"kind": "text"},
        },
    )


def scored(package: Path, volume: Volume) -> Findings:
    return load_predictor(load_package(package), trust_code=True).predict(volume, quiet)


def test_outputs_of_every_type_become_findings(tmp_path: Path) -> None:
    volume, truth = shades_volume()

    findings = scored(write_ours(tmp_path / "ours"), replace(volume, elements={"age": "054Y"}))

    assert findings.labels is not None
    assert np.array_equal(findings.labels, truth)
    assert findings.number("mean") == pytest.approx(float(volume.array.mean()))
    assert findings.classes == {"grade": "high"}
    assert findings.named_texts == {"note": "Looked at 13 slices, age 054Y."}
    assert findings.texts == ("grade: high grade.", "Looked at 13 slices, age 054Y.")
    ml = float((truth == 2).sum()) * volume.voxel_ml
    assert findings.number("volume", 2) == pytest.approx(ml)


def test_code_does_not_run_unless_the_admin_trusts_it(tmp_path: Path) -> None:
    package = write_ours(tmp_path / "ours")

    with pytest.raises(BrokenPackage, match="does not trust it"):
        load_predictor(load_package(package))


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        ("{}", "other outputs"),
        ("{**said, 'more': 1}", "other outputs"),
        ("7", "wanted a mapping"),
        ("{**said, 'shade': said['shade'][1:]}", "has shape"),
        ("{**said, 'bright': said['bright'] * 2}", "no map of probabilities"),
        ("{**said, 'mean': float('nan')}", "no finite number"),
        ("{**said, 'grade': 'middling'}", "no class"),
        ("{**said, 'shade': np.full(image.array.shape, np.nan)}", "values that are not whole"),
        ("{**said, 'shade': np.full(image.array.shape, 0.2)}", "values that are not whole"),
        ("{**said, 'shade': np.full(image.array.shape, 'x')}", "wanted numbers"),
        ("{**said, 'shade': [[1], [1, 2]]}", "is no array"),
        ("{**said, 'mean': 'much'}", "no finite number"),
        ("{**said, 'note': None}", "is of type NoneType"),
        ("1 // 0", r"failed \(ZeroDivisionError at model.py"),
        ("__import__('sys').exit(0)", r"failed \(SystemExit"),
    ],
)
def test_an_output_that_is_not_of_its_type_is_refused(
    tmp_path: Path, returned: str, wanted: str
) -> None:
    code = OURS.replace("return {", "said = {")
    package = write_code_with(tmp_path / "ours", code + f"        return {returned}\n")

    with pytest.raises(BrokenPackage, match=wanted):
        scored(package, shades_volume()[0])


def test_what_a_model_does_to_its_inputs_does_not_move_its_results(tmp_path: Path) -> None:
    shift = "image.affine.__setitem__((0, 3), 1e3) or image.array.fill(60) or "
    package = write_code_with(tmp_path / "ours", f"        return {shift}said\n")
    volume, _ = shades_volume()
    affine, array = volume.affine.copy(), volume.array.copy()

    scored(package, volume)

    assert np.array_equal(volume.affine, affine)
    assert np.array_equal(volume.array, array)


def write_code_with(folder: Path, code: str) -> Path:
    """A package whose code misbehaves on anything but its test vector."""
    write_ours(folder)
    honest = OURS.replace("return {", "said = {").rstrip()
    faulty = code.rpartition("        return ")[2].strip()
    lines = f"{honest}\n        return said if image.array.shape[0] > 41 else {faulty}\n"
    (folder / "model.py").write_text(lines)
    finish_package(folder, trust_code=True)
    return folder


def test_a_class_of_the_bunkerhill_sdk_runs_unchanged(tmp_path: Path) -> None:
    package = write_code(
        tmp_path / "theirs",
        BUNKERHILL,
        runtime={"kind": "python", "entry": "model:ShadesModel", "interface": "bunkerhill"},
        elements={"patient_sex": {"keyword": "PatientSex"}},
        outputs={
            "shades_seg_pred": {"kind": "mask", "segment": 1},
            "step": {
                "kind": "measurement",
                "name": ["SCT", "118565006", "Volume"],
                "unit": "mm",
            },
        },
    )
    volume, truth = shades_volume()

    findings = scored(package, volume)

    assert findings.labels is not None
    assert np.array_equal(findings.labels == 1, truth > 0)
    assert findings.number("step") == pytest.approx(4.0)


def test_code_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    package = write_ours(tmp_path / "ours")
    (package / "helper.py").write_text("x = 1\n")

    with pytest.raises(BrokenPackage, match="code that the manifest does not name"):
        load_package(package)


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    package = write_code(
        tmp_path / "two",
        "class Model:\n    def inference(self, *, t1, flair):\n        return {'n': 1.0}\n",
        runtime={"kind": "python", "entry": "model:Model"},
        input=None,
        inputs={"t1": {"modality": "MR"}, "flair": {"modality": "MR"}},
        segments=[],
        outputs={"n": {"kind": "measurement", "name": ["SCT", "118565006", "Volume"]}},
    )

    with pytest.raises(UnfitInput, match="input flair"):
        scored(package, shades_volume()[0])
