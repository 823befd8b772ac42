"""What senders make of our answers: DCMTK's storescu ends with 167 for A7xx and 169 for A9xx.

storescu writes every data set anew, so it cannot be made to send what cannot be read (C000) or
does not belong to its context (0122): pynetdicom does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MRImageStorage

from node.statuses import (
    CANNOT_UNDERSTAND,
    DUPLICATE_SOP_INSTANCE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
)
from storage import tables
from storage.base import OnConflict
from tests.peers import (
    AE_TITLE,
    MODALITY,
    RunningReceiver,
    associated,
    ct_image,
    encoded,
    part10,
    running_receiver,
    send_bytes,
)
from tests.tools import tool


def storescu(node: RunningReceiver, *paths: Path) -> tuple[int, str]:
    """Send files; the exit code, and what it says at length."""
    command = [tool("storescu"), "-d", "-aet", MODALITY, "-aec", AE_TITLE, "127.0.0.1"]
    done = subprocess.run(
        [*command, str(node.port), *map(str, paths)],
        capture_output=True,
        timeout=120,
        check=False,
        encoding="latin-1",
    )
    return done.returncode, done.stdout + done.stderr


def without_study(ds: Dataset) -> Dataset:
    del ds.StudyInstanceUID
    return ds


def too_deep(ds: Dataset) -> Dataset:
    """Sequences in sequences, of undefined length, so that nobody can skip them."""
    inner = Dataset()
    for _ in range(40):
        item = inner
        item.is_undefined_length_sequence_item = True
        inner = Dataset()
        inner.ReferencedSeriesSequence = Sequence([item])
        inner["ReferencedSeriesSequence"].is_undefined_length = True
    ds.update(inner)
    return ds


REFUSALS: dict[str, tuple[Callable[[Dataset], Dataset], int, str, str]] = {
    "A700": (lambda ds: ds, 167, "0xa700", "disk below its mark"),
    "A900": (without_study, 169, "0xa900", "StudyInstanceUID is missing or empty in the data set"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_storescu_hears_why_and_ends_with_the_code_of_the_status(tmp_path: Path, case: str) -> None:
    change, code, status, comment = REFUSALS[case]
    file = part10(change(ct_image()), tmp_path / "refused.dcm").path
    (tmp_path / "node").mkdir()
    with running_receiver(tmp_path / "node") as node:
        if case == "A700":
            node.service._free_mark = lambda total: 2 * total
            # The association got in before the disk ran low.
            node.receiver._associations._admission._has_room = lambda: True

        exit_code, said = storescu(node, file)

        assert exit_code == code, said
        assert status in said
        assert comment in said
        assert node.incoming() == []
        assert node.stored_paths() == []


def test_pynetdicom_hears_why_an_object_cannot_be_read_and_goes_on(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as node, associated(node.port) as assoc:
        bad, good = too_deep(ct_image()), ct_image()
        for ds in (bad, good):
            part10(ds, tmp_path / "sent.dcm")  # gives it the file meta that is sent by

        answer = assoc.send_c_store(bad)

        assert answer.Status == CANNOT_UNDERSTAND
        assert "nested deeper" in answer.ErrorComment
        assert assoc.send_c_store(good).Status == SUCCESS


def test_pynetdicom_hears_that_a_class_is_not_the_one_of_its_context(tmp_path: Path) -> None:
    ds = ct_image(SOPClassUID=MRImageStorage)
    with running_receiver(tmp_path) as node, associated(node.port) as assoc:
        answer = send_bytes(assoc, encoded(ds), ds.SOPInstanceUID, MRImageStorage)

        assert answer.Status == SOP_CLASS_NOT_SUPPORTED
        assert answer.ErrorComment == "SOP class is not the one of the presentation context"


def test_storescu_is_told_success_for_a_duplicate_and_for_a_conflict_that_is_kept_aside(
    tmp_path: Path,
) -> None:
    first = ct_image()
    one = part10(first, tmp_path / "1.dcm").path
    other = part10(ct_image(SOPInstanceUID=first.SOPInstanceUID, Rows=8), tmp_path / "2.dcm").path
    (tmp_path / "node").mkdir()
    with running_receiver(tmp_path / "node") as node:
        exit_code, said = storescu(node, one, one, other)

        assert exit_code == 0, said
        with node.database.snapshot() as tx:
            rows = tx.execute(sa.select(tables.Instance.duplicates)).scalars().all()
            conflicts = tx.execute(sa.select(sa.func.count(tables.Conflict.id))).scalar_one()
        assert (list(rows), conflicts) == ([1], 1)
        assert len(node.stored_paths()) == 2


def test_other_bytes_under_a_known_uid_are_refused_where_the_policy_says_so(
    tmp_path: Path,
) -> None:
    first = ct_image()
    other = ct_image(SOPInstanceUID=first.SOPInstanceUID, Rows=8)
    with running_receiver(tmp_path, on_conflict=OnConflict.REFUSE) as node:
        with associated(node.port) as assoc:
            answers = [
                send_bytes(assoc, encoded(ds), ds.SOPInstanceUID) for ds in (first, other, first)
            ]
        assert [answer.Status for answer in answers] == [SUCCESS, DUPLICATE_SOP_INSTANCE, SUCCESS]
        assert answers[1].ErrorComment == "another object is held under this SOP Instance UID"
        assert len(node.stored_paths()) == 1
