from __future__ import annotations

import errno
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from models.base import UnfitInput
from pipelines.base import (
    FaultyResult,
    JobSpec,
    Misconfigured,
    NotScored,
    SeriesLabel,
    Transient,
    Verdict,
)
from pipelines.steps.run import put_in_place, run_step, verdict_of


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "job_id": 1,
        "pipeline": "haemorrhage",
        "inputs": (),
        "model": "nowhere",
        "idem_key": "key",
        "uid_root": "1.2.826.0.1.3680043.8.498.",
        "station": "test",
        "frozen_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "labels": {"sr": SeriesLabel(9001, "report")},
    }
    return JobSpec(**values | changes)


def quiet(fraction: float, note: str) -> None:
    assert 0 <= fraction <= 1
    assert note


def of(error: Exception) -> Verdict:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - that it has a traceback is the point
        return verdict_of(caught, "infer")


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (NotScored("gantry_tilt", "Sheared."), "not_scored", "gantry_tilt"),
        (UnfitInput("no_brain", "No brain."), "not_scored", "no_brain"),
        (Misconfigured("No model."), "config", "misconfigured"),
        (Transient("Store away."), "transient", "unavailable"),
        (MemoryError(), "transient", "out_of_memory"),
        (OutOfMemoryError("CUDA"), "transient", "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough"), "transient", "out_of_memory"),
        (OSError(errno.ENOSPC, "full"), "transient", "storage"),
        (FaultyResult("The seg failed its own check: x."), "bug", "faulty_result"),
        (OSError(errno.ENOENT, "gone"), "bug", "FileNotFoundError"),
        (ZeroDivisionError(), "bug", "ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_exception_has_its_verdict(error: Exception, outcome: str, reason: str) -> None:
    verdict = of(error)

    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.sentence.endswith(".") or outcome == "bug"


def _open_patient(name: str) -> NoReturn:
    try:
        raise KeyError(name)
    except KeyError as error:
        raise ValueError(f"cannot read {name}") from error


def test_a_bug_tells_kinds_and_places_and_no_patient_data() -> None:
    try:
        _open_patient("Secret^Patient")
    except ValueError as error:
        verdict = verdict_of(error, "convert")

    told = json.dumps([verdict.sentence, dict(verdict.facts)])
    assert "Secret" not in told
    assert "ValueError at tests.pipelines.test_run:" in verdict.sentence
    assert "KeyError" in verdict.facts["traceback"]
    assert verdict.facts["traceback"][-1] == "ValueError"


def test_a_pipeline_that_is_not_there_is_the_admins_affair(tmp_path: Path) -> None:
    verdict = run_step(spec(pipeline="hemorrhage"), "convert", tmp_path, quiet)

    assert verdict.outcome == "config"
    assert "no pipeline 'hemorrhage'" in verdict.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_the_admins_affair(tmp_path: Path) -> None:
    verdict = run_step(spec(model=str(tmp_path / "none")), "convert", tmp_path / "job", quiet)

    assert verdict.outcome == "config"
    assert "model package cannot be used" in verdict.sentence
    assert list((tmp_path / "job").iterdir()) == []


def test_a_step_replaces_what_an_earlier_run_left(tmp_path: Path) -> None:
    for text in ("first", "second"):
        part = tmp_path / "convert.part-1"
        (part / "deep").mkdir(parents=True)
        (part / "deep" / "file").write_text(text)

        put_in_place(part, tmp_path / "convert")

    assert (tmp_path / "convert" / "deep" / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["convert"]


def test_naming_a_pipeline_loads_no_heavy_library() -> None:
    program = (
        "import sys, pipelines.steps.run as run, pipelines.catalogue as catalogue\n"
        "assert 'CT' in catalogue.PIPELINES['haemorrhage'].modalities\n"
        "heavy = {'torch', 'monai', 'highdicom', 'nibabel', 'matplotlib', 'scipy'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_job_is_the_same_after_it_has_been_a_file() -> None:
    job = spec(inputs=("a.dcm", "b.dcm"))

    assert JobSpec.from_json(job.to_json()) == job
