"""What must not get in, or cannot: each gets its status or sentence, and the node goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.pacs import remembering_pacs
from tests.end_to_end.studies import head_with_bleed, write_study
from tests.services import missing
from tests.tools import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("refusals")
    with remembering_pacs(folder / "pacs") as pacs:
        found = NodeUnderTest(folder / "node", pacs.port)
        found.start()
        yield found
        found.stop()


@pytest.fixture(scope="module")
def slice_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(head_with_bleed(), tmp_path_factory.mktemp("study"))[0]


def test_an_unknown_calling_ae_title_is_rejected(node: NodeUnderTest, slice_file: Path) -> None:
    arguments = ["-aet", "STRANGER", "-aec", "SCORENODE", "127.0.0.1", str(node.port)]
    done = run("storescu", "-v", *arguments, slice_file)

    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr + done.stdout
    assert node.answers()


def test_an_object_that_is_no_image_is_kept_and_the_node_says_why_it_is_not_scored(
    node: NodeUnderTest, tmp_path: Path, slice_file: Path
) -> None:
    source = pydicom.dcmread(slice_file)
    report = pydicom.Dataset()
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyTime"):
        report[keyword] = source[keyword]
    report.Modality, report.SeriesInstanceUID = "SR", generate_uid()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid()
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)

    node.push(tmp_path)
    node.wait_idle()

    answer = node.json("explain", str(report.SeriesInstanceUID))
    assert "wants Modality CT, found SR" in answer[0]["conclusion"]


def test_a_second_node_on_the_same_data_folder_is_refused(node: NodeUnderTest) -> None:
    done = _cli("serve", "--config", str(node.config))

    assert done.returncode == 2
    assert "Another scorenode runs on the data folder" in " ".join(done.stderr.split())


def test_a_configuration_that_cannot_be_read_ends_with_every_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "scorenode.yaml"
    broken.write_text("schema: 1\nnode: { ae_title: NO, prot: 1 }\nrules: []\n")

    done = _cli("serve", "--config", str(broken))

    assert done.returncode == 2
    assert "scorenode.yaml:2" in done.stderr
    assert "prot" in done.stderr
    assert _cli("serve", "--config", str(tmp_path / "nowhere.yaml")).returncode == 2


def test_a_database_that_is_away_ends_with_status_3(tmp_path: Path) -> None:
    config = tmp_path / "scorenode.yaml"
    _cli("init", str(config))
    text = config.read_text().replace(
        "  # station:", "  database: postgresql+psycopg://x@127.0.0.1:9/x\n  # station:"
    )
    config.write_text(text)

    done = _cli("serve", "--config", str(config))

    assert done.returncode == 3
    assert "cannot be used now" in " ".join(done.stderr.split())


def test_a_full_disk_is_answered_a700_and_receiving_goes_on_when_there_is_room(
    tmp_path: Path, slice_file: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        missing("the right to mount a small tmpfs")
    try:
        _fill_and_recover(tmp_path, small, slice_file.parent)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _fill_and_recover(tmp_path: Path, small: Path, study: Path) -> None:
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(
            tmp_path / "node", pacs.port, data=small / "data", when="{ Modality: XX }"
        )
        node.start()
        try:
            ballast = small / "ballast"
            ballast.write_bytes(bytes(9 << 20))
            arguments = [
                "-aet",
                "STORESCU",
                "-aec",
                "SCORENODE",
                "+sd",
                "127.0.0.1",
                str(node.port),
            ]
            full = run("storescu", "-v", *arguments, study)
            assert full.returncode != 0
            ballast.unlink()
            until(node.answers, "the node to take associations again", 30)
            again = run("storescu", "-v", *arguments, study)
            assert again.returncode == 0, again.stderr
            assert list((small / "data" / "incoming").iterdir()) == []
        finally:
            node.stop()


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
