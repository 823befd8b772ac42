"""The ballast: real room on the disk, given up and made again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.ballast import LARGEST_SHARE, Ballast

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    found = os.statvfs(folder)
    path = folder / "filler"
    with path.open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return path


def test_it_takes_real_room_and_no_more_than_a_share_of_a_small_disk(small_disk: Path) -> None:
    before = os.statvfs(small_disk)
    ballast = Ballast(small_disk, 256 * MIB)
    expected = 64 * MIB // LARGEST_SHARE

    assert ballast.missing_bytes == expected
    assert ballast.tend() == expected == ballast.held_bytes
    assert ballast.missing_bytes == 0
    after = os.statvfs(small_disk)
    assert (before.f_bavail - after.f_bavail) * after.f_frsize >= expected
    assert ballast.tend() == 0


def test_a_full_disk_gets_it_and_gives_it_back_when_there_is_room(small_disk: Path) -> None:
    ballast = Ballast(small_disk, MIB)
    ballast.tend()
    filler = fill(small_disk, leave=100_000)

    assert ballast.tend() == -MIB
    (small_disk / "row").write_bytes(bytes(500_000))
    assert ballast.tend() == 0, "there is not room enough for it"
    filler.unlink()
    assert ballast.tend() == MIB
    assert [path.name for path in small_disk.iterdir() if "ballast" in path.name] == ["ballast"]


def test_what_a_process_left_that_died_over_it_is_taken_away(small_disk: Path) -> None:
    (small_disk / "ballast.new").write_bytes(bytes(1000))

    assert Ballast(small_disk, MIB).tend() == MIB

    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_another_size_counts_at_once_and_none_means_none(small_disk: Path) -> None:
    Ballast(small_disk, MIB).tend()
    smaller, none = Ballast(small_disk, MIB // 2), Ballast(small_disk, 0)

    assert (smaller.tend(), smaller.tend()) == (-MIB, MIB // 2)
    assert (none.tend(), none.tend(), none.held_bytes) == (-MIB // 2, 0, 0)
