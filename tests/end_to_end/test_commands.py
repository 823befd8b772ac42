"""The commands a person types first: demo, score, init."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from tests.end_to_end.pacs import SC, SEG, SR
from tests.end_to_end.studies import head_with_bleed, write_study
from tests.shared_data import shared

pytestmark = pytest.mark.slow


def _scorenode(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=cwd,
    )


def test_the_demo_ends_by_itself_with_everything_in_the_pacs(tmp_path: Path) -> None:
    done = _scorenode("demo", "--keep", tmp_path / "demo", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    arrived = [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in (tmp_path / "demo" / "pacs").glob("*.dcm")
    ]
    assert {ds.SOPClassUID for ds in arrived} == {SEG, SR, SC}
    assert "Imaging Measurement Report" in done.stdout
    [picture] = (tmp_path / "demo").glob("picture-*.png")
    assert str(picture) in done.stdout
    with Image.open(picture) as image:
        assert min(image.size) >= 512


def test_the_demo_with_a_study_that_is_not_scored_says_why_and_fails(tmp_path: Path) -> None:
    study = shared("odd_and_broken", "dicom2nifti_gantrytilting")

    done = _scorenode("demo", "--study", study, "--keep", tmp_path / "demo", cwd=tmp_path)

    assert done.returncode == 1
    assert "not_scored" in done.stdout
    assert "slices" in done.stdout


def test_scoring_offline_writes_seg_report_picture_and_findings(tmp_path: Path) -> None:
    write_study(head_with_bleed(), tmp_path / "study")

    done = _scorenode("score", "study", "--pipeline", "haemorrhage", "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    names = {path.name for path in folder.iterdir()}
    assert {"seg.dcm", "sr.dcm", "capture.dcm", "capture.png", "findings.json"} <= names
    findings = json.loads((folder / "findings.json").read_text())
    assert findings["present"] is True


def test_init_writes_a_file_that_passes_its_check(tmp_path: Path) -> None:
    assert _scorenode("init", cwd=tmp_path).returncode == 0

    done = _scorenode("config", "check", "scorenode.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert _scorenode("init", cwd=tmp_path).returncode == 1
