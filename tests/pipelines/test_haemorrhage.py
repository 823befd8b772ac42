"""The whole pipeline over real files, with the model that comes with scorenode."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.catalogue import find_package
from models.phantom_ct import HeadPhantom, make_head_ct
from pipelines.base import STEPS, JobSpec, Verdict
from pipelines.offline import SeriesOutcome, default_labels, score_folder
from pipelines.phantom_series import write_ct_series
from pipelines.steps.artefacts import load_findings
from pipelines.steps.infer import warm_predictor
from pipelines.steps.run import run_step
from tests.pipelines.test_segmentation import texts_of
from tests.shared_data import shared

pytestmark = pytest.mark.slow

MODEL = find_package("haemorrhage-demo", ())
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def job(paths: Sequence[Path], model: Path = MODEL) -> JobSpec:
    return JobSpec(
        job_id=1,
        pipeline="haemorrhage",
        inputs=tuple(str(path) for path in paths),
        model=str(model),
        idem_key="one key",
        uid_root="1.2.826.0.1.3680043.8.498.",
        station="test",
        frozen_at=AT,
        labels={str(slot): label for slot, label in default_labels("haemorrhage").items()},
    )


def quiet(fraction: float, note: str) -> None:
    assert -1e-9 <= fraction <= 1 + 1e-9
    assert note


def run(spec: JobSpec, folder: Path) -> Verdict:
    """Run the steps until one does not end well."""
    for step in STEPS:
        verdict = run_step(spec, step, folder, quiet)
        if verdict.outcome != "ok":
            break
    return verdict


@pytest.fixture(scope="module")
def bleed(tmp_path_factory: pytest.TempPathFactory) -> tuple[HeadPhantom, list[Path]]:
    phantom = make_head_ct(seed=7, kind="iph")
    return phantom, write_ct_series(phantom, tmp_path_factory.mktemp("bleed"), seed=7)


@pytest.fixture(scope="module")
def scored(
    bleed: tuple[HeadPhantom, list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Verdict, Path]:
    folder = tmp_path_factory.mktemp("job")
    return run(job(bleed[1]), folder), folder


def test_the_report_measures_lesions_and_says_what_is_urgent(
    scored: tuple[Verdict, Path],
) -> None:
    _, folder = scored
    findings = load_findings(folder / "infer").findings
    said = texts_of(dcmread(folder / "report" / "sr.dcm"))

    assert findings.number("lesions") >= 1
    assert 0 < findings.number("largest") <= findings.number("volume") + 1e-6
    assert findings.number("abc2") > 0
    assert findings.priority is True
    for text in (
        "Number of lesions",
        "Volume of the largest lesion",
        "ABC/2 of the largest lesion",
        "Over threshold",
        "Marked on ",
    ):
        assert any(one.startswith(text) for one in said), text


def test_a_bleed_is_found_where_it_is(
    bleed: tuple[HeadPhantom, list[Path]], scored: tuple[Verdict, Path]
) -> None:
    verdict, folder = scored

    assert verdict.outcome == "ok", verdict.sentence
    labels = load_findings(folder / "infer").findings.labels
    assert labels is not None
    found, truth = labels > 0, bleed[0].labels > 0
    assert labels.shape == truth.shape
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.5


def test_every_step_leaves_its_files_and_nothing_else(scored: tuple[Verdict, Path]) -> None:
    _, folder = scored

    assert {path.name for path in folder.iterdir()} == set(STEPS)
    assert {path.name for path in (folder / "convert").iterdir()} == {
        "volume.npy",
        "grid.json",
        "facts.json",
    }
    assert {path.name for path in (folder / "infer").iterdir()} == {"findings.json", "mask.nii.gz"}
    assert {path.name for path in (folder / "report").iterdir()} == {
        "seg.dcm",
        "sr.dcm",
        "capture.dcm",
        "capture.png",
        "findings.json",
    }


def test_a_job_that_runs_again_writes_the_same_bytes(
    bleed: tuple[HeadPhantom, list[Path]], scored: tuple[Verdict, Path], tmp_path: Path
) -> None:
    verdict = run(job(bleed[1][::-1]), tmp_path)

    assert verdict.outcome == "ok"
    for name in ("seg.dcm", "sr.dcm", "capture.dcm", "capture.png", "findings.json"):
        first, second = scored[1] / "report" / name, tmp_path / "report" / name
        assert first.read_bytes() == second.read_bytes(), name


def test_a_model_stays_loaded_between_jobs(scored: tuple[Verdict, Path]) -> None:
    assert scored[0].outcome == "ok"
    assert warm_predictor(str(MODEL)) is warm_predictor(str(MODEL))


def test_an_altered_model_holds_the_job_for_the_admin(
    bleed: tuple[HeadPhantom, list[Path]], tmp_path: Path
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")

    verdict = run(job(bleed[1], tmp_path / "model"), tmp_path / "job")

    assert verdict.outcome == "config"
    assert "weights.safetensors is not the file of the manifest" in verdict.sentence


@pytest.mark.parametrize(
    ("parts", "reason", "words"),
    [
        (("ct_head_phantom_philips_study", "dicom", "S1000"), "localizer", "scout"),
        (("ct_head_phantom_philips_study", "dicom", "S2010"), None, ""),
        (("ct_body_jpeg2000_with_seg", "dicom"), "no_identity", "no StudyInstanceUID"),
        (("t1_siemens_xa30_enhanced", "dicom"), "wrong_modality", "Modality MR"),
    ],
    ids=["scout", "skull phantom", "abdomen without study", "MR"],
)
def test_what_is_no_complete_head_ct_is_not_scored(
    parts: tuple[str, ...], reason: str | None, words: str, tmp_path: Path
) -> None:
    verdict = run(job(sorted(shared(*parts).iterdir())), tmp_path)

    assert verdict.outcome == "not_scored"
    assert reason in (None, verdict.reason)
    assert words in verdict.sentence
    assert not (tmp_path / "report").exists()


def test_a_missing_slice_is_named(bleed: tuple[HeadPhantom, list[Path]], tmp_path: Path) -> None:
    paths = bleed[1]
    gone = dcmread(paths[len(paths) // 2]).ImagePositionPatient[2]

    verdict = run(job([p for p in paths if p != paths[len(paths) // 2]]), tmp_path)

    assert verdict.reason == "missing_slices"
    assert f"no image at z = {gone:.1f} mm" in verdict.sentence


def offline(folder: Path, out: Path) -> list[SeriesOutcome]:
    return score_folder(folder, "haemorrhage", MODEL, out, quiet, at=AT)


def test_a_folder_is_scored_series_by_series(
    bleed: tuple[HeadPhantom, list[Path]], tmp_path: Path
) -> None:
    shutil.copytree(bleed[1][0].parent, tmp_path / "in" / "head")
    shutil.copytree(shared("odd_and_broken"), tmp_path / "in" / "odd")
    (tmp_path / "in" / "letter.txt").write_text("not DICOM")

    outcomes = offline(tmp_path / "in", tmp_path / "out")

    good = [item for item in outcomes if item.verdict.outcome == "ok"]
    assert len(good) == 1
    assert good[0].instances == len(bleed[1])
    assert good[0].folder is not None
    assert {path.name for path in good[0].folder.iterdir()} == {
        "seg.dcm",
        "sr.dcm",
        "capture.dcm",
        "capture.png",
        "findings.json",
        "mask.nii.gz",
        "image.nii.gz",
    }
    refused = [item for item in outcomes if item.verdict.outcome != "ok"]
    assert {item.verdict.outcome for item in refused} == {"not_scored"}
    assert all(item.verdict.sentence for item in refused)
    assert refused[-1].verdict.reason == "unreadable_instance"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(summary) == len(outcomes)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_folder_scored_twice_gives_the_same_results(
    bleed: tuple[HeadPhantom, list[Path]], tmp_path: Path
) -> None:
    [first] = offline(bleed[1][0].parent, tmp_path)
    assert first.folder is not None
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}

    [second] = offline(bleed[1][0].parent, tmp_path)

    assert second.folder == first.folder
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_the_segmentation_holds_as_many_voxels_as_the_mask(scored: tuple[Verdict, Path]) -> None:
    seg = dcmread(scored[1] / "report" / "seg.dcm")
    labels = load_findings(scored[1] / "infer").findings.labels

    assert labels is not None
    assert int((seg.pixel_array > 0).sum()) == int(np.count_nonzero(labels))


@pytest.mark.parametrize("kind", ["tilted", "tilted and unequal"])
def test_results_of_a_tilted_head_lie_on_its_slices(
    kind: str, bleed: tuple[HeadPhantom, list[Path]], tmp_path: Path
) -> None:
    paths = tilted(bleed[1], tmp_path / "in", uneven=kind != "tilted")

    verdict = run(job(paths), tmp_path / "job")

    assert verdict.outcome == "ok", verdict.sentence
    seg = dcmread(tmp_path / "job" / "report" / "seg.dcm")
    places = {str(ds.SOPInstanceUID): list(ds.ImagePositionPatient) for ds in map(dcmread, paths)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == places[source]
    truth = bleed[0].labels > 0
    labels = load_findings(tmp_path / "job" / "infer").findings.labels
    assert labels is not None
    if kind == "tilted":
        assert 2 * ((labels > 0) & truth).sum() / ((labels > 0).sum() + truth.sum()) > 0.5
    assert int((seg.pixel_array > 0).sum()) == int(np.count_nonzero(labels))
    assert "resampled to a straight grid" in texts(tmp_path / "job" / "report" / "sr.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if kind == "tilted":
        step = places_along_normal(dcmread(paths[0]), dcmread(paths[1]))
        assert float(measures.SpacingBetweenSlices) == pytest.approx(step, abs=1e-3)
    else:
        assert "SpacingBetweenSlices" not in measures


def texts(path: Path) -> str:
    """All free text of a report."""
    found = [str(item.value) for item in dcmread(path).iterall() if item.keyword == "TextValue"]
    return "\n".join(found)


def places_along_normal(one: Dataset, other: Dataset) -> float:
    """Distance of two slices along their normal, millimetres."""
    cosines = np.array(one.ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    between = np.array(other.ImagePositionPatient, float) - one.ImagePositionPatient
    return float(abs(between @ normal))


def tilted(paths: Sequence[Path], folder: Path, *, uneven: bool) -> list[Path]:
    """Copies of axial slices with the positions of a gantry tilted by 12 degrees."""
    folder.mkdir(parents=True)
    turn = np.radians(12)
    axes = [1, 0, 0, 0, float(np.cos(turn)), float(np.sin(turn))]
    made = []
    for number, path in enumerate(paths):
        ds = dcmread(path)
        x, y, z = (float(value) for value in ds.ImagePositionPatient)
        z += 1.5 if uneven and number > len(paths) // 2 else 0.0
        ds.ImagePositionPatient = [x, y, round(z, 3)]
        ds.ImageOrientationPatient = [round(value, 6) for value in axes]
        ds.save_as(folder / path.name)
        made.append(folder / path.name)
    return made


def test_a_real_tilted_head_without_blood_is_scored(tmp_path: Path) -> None:
    paths = sorted(shared("ct_head_ge_tilted", "dicom").iterdir())

    verdict = run(job(paths), tmp_path)

    assert verdict.outcome == "ok", verdict.sentence
    assert "18.5 degrees and 1.08 to 7.00 mm apart" in texts(tmp_path / "report" / "sr.dcm")
