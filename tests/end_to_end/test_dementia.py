"""A T1 head by storescu and a cognitive row that comes later: a prognosis in Orthanc."""

from __future__ import annotations

import io
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from models.base import Volume
from models.phantom_t1 import HeadShape, Scan, make_t1_head
from pipelines.phantom_series import write_mr_series
from tests.certificates import authority
from tests.end_to_end.harness import (
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    NodeUnderTest,
    until,
)
from tests.end_to_end.pacs import SC, SEG, SR, Orthanc, orthanc, remembering_pacs
from tests.redcap import TOKEN, RedcapProject, redcap

QUIET = "5s"
PATIENCE = 900.0
"""Seconds for one head on a machine that is busy with other things; it takes about 30."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE)]

ROW = {"record_id": PATIENT_ID, "visit_date": "2024-12-01", "mmse_total": "25", "adas": "22"}
RULES = """\
tables:
  cognitive-scores:
    {source}
    id: record_id
    date: visit_date
    fields:
      mmse: {{ column: mmse_total, min: 0, max: 30 }}
      adas_cog_13: {{ column: adas, min: 0, max: 85 }}
rules:
  - name: dementia-prognosis
    mode: live
    level: study
    when: {{ Modality: MR }}
    inputs:
      t1: {{ pick: [most_slices] }}
      cognitive: {{ table: cognitive-scores, newest_within: 180d }}
    run: {{ pipeline: dementia, model: dementia-demo, timeout: 30m }}
    deliver:
      - to: PACS
        send: [seg, sr, capture]
        series: {{ number: 9111, description: 'AI prognosis test' }}
        retry: {{ after: [1s, 1s, 2s] }}
"""


@cache
def head() -> Volume:
    """A coarse T1 head with small hippocampi."""
    shape = HeadShape(hippocampal_loss=0.2)
    return make_t1_head(3, shape=shape, scan=Scan(spacing=(2.0, 2.0, 2.0))).volume


def write_head(folder: Path) -> list[Path]:
    return write_mr_series(
        head(),
        folder,
        seed=3,
        patient_name=PATIENT_NAME,
        patient_id=PATIENT_ID,
        patient_birth_date=PATIENT_BIRTH_DATE,
    )


def test_a_prognosis_waits_for_its_row_and_arrives_in_orthanc(tmp_path: Path) -> None:
    write_head(tmp_path / "study")
    signer = authority(tmp_path, "signer")
    project = RedcapProject(fields=list(ROW), rows=[])
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with (
        orthanc(tmp_path / "orthanc") as pacs,
        redcap(project, signer.issue("redcap", address="127.0.0.1")) as url,
    ):
        token = f"${{file:{tmp_path / 'token'}}}"
        source = f"redcap: {{ url: '{url}', token: '{token}', ca: '{signer.certificate}' }}"
        rules = RULES.format(source=source)
        node = NodeUnderTest(tmp_path / "node", pacs.port, rules=rules, quiet=QUIET)
        node.start()
        try:
            node.push(tmp_path / "study")
            until(lambda: "no row for this patient" in _sentence(node), "the job to miss its row")
            waiting = _newest(node)
            project.rows.append(ROW)
            node.wait_idle(seconds=PATIENCE)
            job = _newest(node)
        finally:
            node.stop()
        results = _results(pacs)

    assert waiting["state"] == "held"
    assert job["state"] == "done", job
    assert results.keys() == {SEG, SR, SC}
    _check_report(results[SR])


def _newest(node: NodeUnderTest) -> dict[str, Any]:
    """Job of the whole series: a sender that is kept waiting may have closed a part of it."""
    return max(node.jobs(), key=lambda job: int(job["id"]))


def _sentence(node: NodeUnderTest) -> str:
    return str(_newest(node)["sentence"]) if node.jobs() else ""


def _results(pacs: Orthanc) -> dict[str, pydicom.FileDataset]:
    """What Orthanc has of ours, by SOP Class UID."""
    found = {}
    for instance in pacs.get("/instances"):
        url = f"http://127.0.0.1:{pacs.http_port}/instances/{instance}/file"
        with urllib.request.urlopen(url, timeout=10) as answer:
            ds = pydicom.dcmread(io.BytesIO(answer.read()))
        found[str(ds.SOPClassUID)] = ds
    return found


def _numbers(item: Any) -> dict[str, Any]:
    """NUM items below another, by meaning; the first of each."""
    found: dict[str, Any] = {}
    for child in item.get("ContentSequence", ()):
        if child.get("ValueType") == "NUM":
            found.setdefault(child.ConceptNameCodeSequence[0].CodeMeaning, child)
        for name, below in _numbers(child).items():
            found.setdefault(name, below)
    return found


def _check_report(sr: pydicom.FileDataset) -> None:
    numbers = _numbers(sr)
    value = {
        name: float(item.MeasuredValueSequence[0].NumericValue) for name, item in numbers.items()
    }
    said = {str(e.value) for e in sr.iterall() if e.keyword in ("TextValue", "CodeMeaning")}
    text = " ".join(said)

    assert value["Total score [MMSE]"] == 25
    assert value["ADAS-Cog 13"] == 22
    assert str(numbers["Total score [MMSE]"].ObservationDateTime) == "20241201"
    assert value["Subject Age"] == pytest.approx(91.6, abs=0.1)
    assert value["GMLVQ scalar projection"] > 0.5
    assert value["Probability"] > 0.5
    assert "Progressive" in said
    assert "synthetic cohort" in text
    assert "NOT FOR CLINICAL USE" in text
    assert "table cognitive-scores, of 2024-12-01, 31 days before the study" in text
    assert sr.CompletionFlag == "COMPLETE"


def bottle() -> Volume:
    """A bottle of salt water where a head could be, with a scanner's noise."""
    shape, step = (93, 118, 105), 2.0
    x, y, z = (np.arange(n)[:, None, None].swapaxes(0, k) * step - n * step / 2
               for k, n in enumerate(shape))  # fmt: skip
    inside = (x**2 + y**2 < 62.0**2) & (np.abs(z) < 80.0)
    random = np.random.default_rng(5)
    array = np.hypot(600.0 * inside + random.normal(0, 15, shape), random.normal(0, 15, shape))
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = [-n * step / 2 for n in shape]
    return Volume(array.astype(np.float32), affine)


def test_a_bottle_in_the_clothes_of_a_head_is_never_scored(tmp_path: Path) -> None:
    write_mr_series(bottle(), tmp_path / "study", seed=9, patient_id=PATIENT_ID,
                    patient_name=PATIENT_NAME, patient_birth_date=PATIENT_BIRTH_DATE)  # fmt: skip
    table = tmp_path / "scores.csv"
    table.write_text(",".join(ROW) + "\n" + ",".join(ROW.values()) + "\n")
    source = f"csv: {{ file: '{table}' }}"
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(
            tmp_path / "node", pacs.port, rules=RULES.format(source=source), quiet=QUIET
        )
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle(seconds=PATIENCE)
            job = _newest(node)
        finally:
            node.stop()

    assert pacs.objects() == {}
    assert job["state"] == "not_scored"
    assert job["reason"] in ("brain_volume", "tissue_contrast", "fit")
    assert "no T1-weighted head" in job["sentence"]
