"""A full disk: everything is answered, nothing is left, and it goes on without a restart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.acknowledged import Answer, LoadAssociation, generated
from benchmarks.loop_disk import LoopDisk
from models.importing import import_file
from node.statuses import OUT_OF_RESOURCES, SUCCESS
from tests.durability.proof import assert_all_held, assert_works_again, leftovers
from tests.durability.receiver_process import ReceiverProcess, Setup

pytestmark = pytest.mark.slow

MIB = 1 << 20
NO_MARK = -(1 << 60)
LARGEST = 2
"""Instances 2, 5, 8 ... are the ones of 400 kB."""


def fill(disk: LoopDisk, leave: int) -> Path:
    """Fill a disk up to so many bytes."""
    found = os.statvfs(disk.mount)
    path = disk.mount / "filler"
    with path.open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return path


def test_a_full_disk_is_answered_drained_and_left_clean(disk: LoopDisk, store: str) -> None:
    setup = Setup(disk.mount / "node", store, free_bytes=NO_MARK)
    with ReceiverProcess(setup) as receiver:
        filler = fill(disk, leave=8 * MIB)
        association = LoadAssociation(receiver.port)
        answers = {}
        for number in range(LARGEST, 180, 3):
            answers[number] = association.send(generated(number))
            if answers[number].status != SUCCESS:
                break

        full = Answer(OUT_OF_RESOURCES, "no room left")
        if store == "files":
            assert answers[number] == full
        else:
            assert answers[number].status == SUCCESS, "its place was made before"
        assert association.send(generated(1000, size=40 * MIB)) == full
        assert association.send(generated(1003, size=40 * MIB)) == full, "it is still usable"
        assert leftovers(setup) == []

        filler.unlink()
        assert association.send(generated(1001)).status == SUCCESS
        association.release()
    acknowledged = [1001, *(n for n, answer in answers.items() if answer.status == SUCCESS)]
    assert len(acknowledged) > 5
    assert_all_held(setup, acknowledged)
    assert_works_again(setup, 2000)


def test_below_the_mark_objects_and_associations_are_refused_until_there_is_room_again(
    disk: LoopDisk, store: str
) -> None:
    setup = Setup(disk.mount / "node", store, free_bytes=100 * MIB)
    low = Answer(OUT_OF_RESOURCES, "disk below its mark")
    with ReceiverProcess(setup) as receiver:
        association = LoadAssociation(receiver.port)
        assert association.send(generated(1)).status == SUCCESS

        filler = fill(disk, leave=99 * MIB)
        assert association.send(generated(2)) == low
        with pytest.raises(ConnectionError, match="PDU type 3"):
            LoadAssociation(receiver.port)

        filler.unlink()
        filler = fill(disk, leave=103 * MIB)
        assert association.send(generated(3)) == low, "a little above the mark is not enough"
        filler.unlink()
        assert association.send(generated(4)).status == SUCCESS
        LoadAssociation(receiver.port).release()
        association.release()
        assert leftovers(setup) == []
    assert_all_held(setup, [1, 4])


def test_an_object_that_would_cross_the_mark_does_not_refuse_smaller_ones(
    disk: LoopDisk, store: str
) -> None:
    setup = Setup(disk.mount / "node", store, free_bytes=100 * MIB)
    with ReceiverProcess(setup) as receiver:
        fill(disk, leave=110 * MIB)
        association = LoadAssociation(receiver.port)

        large = association.send(generated(1000, size=40 * MIB))
        small = association.send(generated(1))
        association.release()

        assert large == Answer(OUT_OF_RESOURCES, "disk below its mark")
        assert small.status == SUCCESS
        assert leftovers(setup) == []


def test_an_import_onto_a_full_disk_can_be_given_again(disk: LoopDisk, tmp_path: Path) -> None:
    weights = {"w": torch.zeros(4_000_000)}
    torch.save(weights, tmp_path / "net.pth")
    out = disk.mount / "package"
    filler = fill(disk, leave=8 * MIB)

    with pytest.raises(OSError, match="No space left"):
        import_file(tmp_path / "net.pth", out)
    assert not out.exists()
    filler.unlink()

    assert import_file(tmp_path / "net.pth", out) == ["w"]
