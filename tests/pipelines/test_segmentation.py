"""Any packaged model through the whole pipeline: structures, sides, colours, volumes."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pipelines.offline import SeriesOutcome, in_runner, score_folder
from tests.models.small import BONE, SHADE, nested_changes, write_shades
from tests.models.test_network_predictor import write_two_channels
from tests.models.test_python_model import write_ours
from tests.phantoms import Shape, ct_series

SHAPE = Shape(columns=40, rows=36, slices=12, spacing=(1.5, 1.5, 4.0))


def two_blocks(shape: Shape = SHAPE) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    truth = np.zeros((shape.columns, shape.rows, shape.slices), np.uint8)
    truth[5:17, 8:20, 3:9] = 2
    truth[23:33, 14:26, 4:11] = 1
    array = np.select([truth == 1, truth == 2], [SHADE, BONE], 0.0)
    return array.astype(np.float32), truth


def write_series(
    folder: Path,
    array: NDArray[np.float32],
    seed: str = "blocks",
    shape: Shape = SHAPE,
    uid: str = "",
) -> Path:
    """Write a CT series; `uid` makes it another series of the same study."""
    folder.mkdir(parents=True)
    for index, ds in enumerate(ct_series(shape, array, seed=seed)):
        if uid:
            ds.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, uid])
            ds.SOPInstanceUID = generate_uid(entropy_srcs=[seed, uid, str(index)])
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{index:03d}.dcm", enforce_file_format=True)
    return folder


def score(folder: Path, package: Path, out: Path) -> SeriesOutcome:
    [outcome] = score_folder(folder, "segmentation", package, out, lambda done, note: None)
    return outcome


def volumes_of(sr: Dataset) -> dict[str, float]:
    """Volume of each segment, by its Tracking Identifier."""
    found: dict[str, float] = {}

    def walk(item: Dataset, tracking: str) -> None:
        children = item.get("ContentSequence", ())
        for child in children:
            name = child.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeValue")
            if name == "112039":
                tracking = child.TextValue
            if name == "118565006":
                found[tracking] = float(child.MeasuredValueSequence[0].NumericValue)
            walk(child, tracking)

    walk(sr, "")
    return found


def texts_of(sr: Dataset) -> list[str]:
    """Every text and coded value of a report."""
    found: list[str] = []
    for item in sr.get("ContentSequence", ()):
        if "TextValue" in item:
            found.append(str(item.TextValue))
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            found += [str(code.CodeMeaning) for code in item.get(keyword, ())]
        found += texts_of(item)
    return found


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("shades") / "shades")


def test_every_structure_is_reported_with_its_volume_side_and_colour(
    shades: Path, tmp_path: Path
) -> None:
    array, truth = two_blocks()
    series = write_series(tmp_path / "series", array)

    outcome = score(series, shades, tmp_path / "out")

    assert outcome.verdict.outcome == "ok", outcome.verdict
    assert outcome.folder is not None
    seg, sr = dcmread(outcome.folder / "seg.dcm"), dcmread(outcome.folder / "sr.dcm")
    left, right = seg.SegmentSequence
    assert (left.SegmentLabel, right.SegmentLabel) == ("Left hippocampus", "Right hippocampus")
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    region = right.AnatomicRegionSequence[0]
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    wanted = hd.color.CIELabColor.from_rgb(20, 200, 40).value
    assert tuple(left.RecommendedDisplayCIELabValue) == wanted
    volumes = volumes_of(sr)
    for number, name in ((1, "shades Left hippocampus"), (2, "shades Right hippocampus")):
        true_ml = (truth == number).sum() * 1.5 * 1.5 * 4.0 / 1000
        assert volumes[name] == pytest.approx(true_ml, rel=0.15)
    assert "Right" in str(sr)


def test_nothing_found_gives_a_report_that_says_absent_and_no_seg(
    shades: Path, tmp_path: Path
) -> None:
    array, _ = two_blocks()
    series = write_series(tmp_path / "series", array * 0)

    outcome = score(series, shades, tmp_path / "out")

    assert outcome.folder is not None
    assert not (outcome.folder / "seg.dcm").exists()
    assert "Absent" in str(dcmread(outcome.folder / "sr.dcm"))


def test_a_series_outside_the_manifest_is_not_scored(tmp_path: Path) -> None:
    package = write_shades(
        tmp_path / "narrow", input={"modality": "CT", "slices": {"min": 20, "max": 60}}
    )
    series = write_series(tmp_path / "series", two_blocks()[0])

    outcome = score(series, package, tmp_path / "out")

    assert outcome.verdict.outcome == "not_scored"
    assert outcome.verdict.reason == "unfit_slices"


def test_structures_that_overlap_keep_all_their_voxels(tmp_path: Path) -> None:
    package = write_shades(tmp_path / "nested", **nested_changes())
    array, truth = two_blocks()
    series = write_series(tmp_path / "series", array)

    outcome = score(series, package, tmp_path / "out")

    assert outcome.verdict.outcome == "ok", outcome.verdict
    assert outcome.folder is not None
    seg = hd.seg.segread(outcome.folder / "seg.dcm")
    voxels = {
        item.SegmentLabel: int(
            seg.get_volume(segment_numbers=[int(item.SegmentNumber)], combine_segments=True)
            .array.astype(bool)
            .sum()
        )
        for item in seg.SegmentSequence
    }
    assert voxels["Whole"] == pytest.approx(int((truth > 0).sum()), rel=0.15)
    assert voxels["Core"] == pytest.approx(int((truth == 2).sum()), rel=0.15)
    stated = volumes_of(dcmread(outcome.folder / "sr.dcm"))
    for name in ("Whole", "Core"):
        assert stated[f"shades {name}"] == pytest.approx(voxels[name] * 0.009, abs=0.02)


def test_a_second_series_is_resampled_through_the_frame_of_reference(tmp_path: Path) -> None:
    package = write_two_channels(tmp_path / "two")
    array, _ = two_blocks()
    first = write_series(tmp_path / "first", array)
    finer = Shape(columns=60, rows=54, slices=24, spacing=(1.0, 1.0, 2.0))
    marked = np.zeros((60, 54, 24), np.float32)
    marked[8:26, 12:30, 6:18] = 100.0
    second = write_series(tmp_path / "second", marked, shape=finer, uid="7")

    [outcome] = score_folder(
        first,
        "segmentation",
        package,
        tmp_path / "out",
        lambda done, note: None,
        named={"pet": second},
    )

    assert outcome.verdict.outcome == "ok", outcome.verdict
    assert outcome.folder is not None
    [ml] = [v for k, v in volumes_of(dcmread(outcome.folder / "sr.dcm")).items() if "Left" in k]
    assert ml == pytest.approx((marked > 0).sum() * 0.002, rel=0.1)


def test_a_second_series_of_another_frame_of_reference_is_not_scored(tmp_path: Path) -> None:
    package = write_two_channels(tmp_path / "two")
    array, _ = two_blocks()
    first = write_series(tmp_path / "first", array)
    second = write_series(tmp_path / "second", array, seed="somebody else")

    [outcome] = score_folder(
        first,
        "segmentation",
        package,
        tmp_path / "out",
        lambda done, note: None,
        named={"pet": second},
    )

    assert outcome.verdict.reason == "other_frame_of_reference"


def test_code_runs_in_a_child_and_is_given_elements_by_name(tmp_path: Path) -> None:
    package = write_ours(tmp_path / "ours")
    series = write_series(tmp_path / "series", two_blocks()[0])

    [outcome] = score_folder(
        series,
        "segmentation",
        package,
        tmp_path / "out",
        lambda done, note: None,
        run=in_runner(),
        trust_code=True,
    )
    [refused] = score_folder(
        series, "segmentation", package, tmp_path / "no", lambda done, note: None
    )

    assert outcome.verdict.outcome == "ok", outcome.verdict
    assert outcome.folder is not None
    said = texts_of(dcmread(outcome.folder / "sr.dcm"))
    assert "Looked at 12 slices, age 076Y." in said
    assert "grade: high grade." in said
    assert refused.verdict.outcome == "config"
    assert "does not trust it" in refused.verdict.sentence
