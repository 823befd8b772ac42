"""The commands ``find`` and ``retrieve``, against a PACS on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, MRImageStorage
from typer.testing import CliRunner

from node.cli.main import app
from node.query import Counted, _count
from node.scu import Destination
from tests.node.samples import HEAD
from tests.node.test_priors import FLAIR, OLD, OTHER, PEER
from tests.peers import ct_image
from tests.query_pacs import QueryPACS, query_pacs

REPORTED = [
    ct_image(
        SOPClassUID=sop_class,
        StudyInstanceUID="1.9.6",
        SeriesInstanceUID=f"1.9.6.{place}",
        SOPInstanceUID=f"1.9.6.{place}.1",
        PatientID="P6",
    )
    for place, sop_class in enumerate((MRImageStorage, ComprehensiveSRStorage))
]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    objects = tmp_path / "objects"
    objects.mkdir()
    with query_pacs(QueryPACS([*OLD, *OTHER, *FLAIR, *REPORTED]), objects) as pacs:
        path = tmp_path / "scorenode.yaml"
        path.write_text(HEAD + PEER.format(port=pacs.port, way="get") + "rules: []\n")
        yield str(path)


def _run(config: str, *arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--from", "PACS", "--config", config])
    assert done.exit_code == code, done.output
    return done


def test_studies_of_a_patient_are_found(config: str) -> None:
    done = _run(config, "find", "--patient", "P1", "--json")

    found = json.loads(done.stdout)
    assert sorted(one["StudyInstanceUID"][0] for one in found) == ["1.9.2", "1.9.5"]
    assert "1.9.5" in _run(config, "find", "--patient", "P1", "--date", "20250701").stdout


def test_series_of_a_study_are_found(config: str) -> None:
    done = _run(config, "find", "--study", "1.9.5")

    assert FLAIR[0].SeriesInstanceUID in done.stdout
    assert "flair" in done.stdout


def test_a_question_without_a_key_is_refused(config: str) -> None:
    assert "Say what to look for" in _run(config, "find", code=2).output


def test_a_study_is_retrieved_into_a_folder(config: str, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = _run(config, "retrieve", "--study", "1.9.2", "--out", str(out), "--json")

    assert json.loads(done.stdout) == {"completed": 3, "failed": 0, "warned": 0}
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in out.iterdir()}
    assert uids == {str(ds.SOPInstanceUID) for ds in OLD}


def test_a_study_is_retrieved_into_a_folder_beside_what_is_there(
    config: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    for study in ("1.9.2", "1.9.5"):
        _run(config, "retrieve", "--study", study, "--out", str(out))

    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in out.iterdir()}
    assert uids == {str(ds.SOPInstanceUID) for ds in (*OLD, *FLAIR)}


def test_all_of_a_study_is_retrieved_whatever_is_in_it(config: str, tmp_path: Path) -> None:
    done = _run(config, "retrieve", "--study", "1.9.6", "--out", str(tmp_path / "o"), "--json")

    assert json.loads(done.stdout) == {"completed": 2, "failed": 0, "warned": 0}


def test_a_success_that_does_not_count_is_counted_by_what_came_before() -> None:
    pending, success = Dataset(), Dataset()
    pending.Status, success.Status = 0xFF00, 0x0000
    pending.NumberOfRemainingSuboperations, pending.NumberOfCompletedSuboperations = 3, 4

    counted = _count(
        Destination("h", 1, "PACS", "US"), iter([(pending, None), (success, None)]), ""
    )

    assert counted == Counted(7, 0, 0)
    assert counted.is_complete


def test_a_peer_that_does_not_know_this_node_says_so(config: str) -> None:
    done = _run(config, "retrieve", "--study", "1.9.2", code=1)

    assert "does not know the AE title SCORENODE" in done.output


def test_a_study_that_is_not_there_is_told(config: str, tmp_path: Path) -> None:
    done = _run(config, "retrieve", "--study", "1.9.77", "--out", str(tmp_path / "o"), code=1)

    assert "There is no image" in done.output


def test_a_study_of_a_peer_is_retrieved_and_scored(config: str, tmp_path: Path) -> None:
    out = tmp_path / "results"

    done = _run(config, "score", "--study", "1.9.2", "--out", str(out), "--json", code=1)

    (row,) = json.loads(done.stdout)
    assert (row["modality"], row["instances"], row["reason"]) == ("MR", 3, "wrong_modality")


def test_scoring_wants_a_folder_or_a_study_with_its_peer(config: str, tmp_path: Path) -> None:
    for arguments in (["--study", "1.9.2"], [], [str(tmp_path), "--study", "1", "--from", "PACS"]):
        done = CliRunner().invoke(app, ["score", *arguments, "--out", str(tmp_path / "o")])
        assert done.exit_code == 2
