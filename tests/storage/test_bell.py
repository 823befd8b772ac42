"""Bells: heard in other processes, lost without harm, swept when their process died."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.bell import FOLDER, Bell, Rings

LISTENER = """
import sys
from pathlib import Path
from storage.bell import Bell
bell = Bell(Path(sys.argv[1]), "tasks")
bell.listen()
print("listening", flush=True)
print(bell.wait_after(0, 20.0), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def far_folder(tmp_path: Path) -> Path:
    """A path longer than the address of a socket may be."""
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    folder.mkdir(parents=True)
    return folder


def test_a_ring_before_the_wait_is_not_missed() -> None:
    rings = Rings()
    before = rings.count
    rings.ring()
    started = time.monotonic()
    assert rings.wait_after(before, 30.0) == before + 1
    assert time.monotonic() - started < 10.0


def test_one_ring_wakes_all_who_wait() -> None:
    rings, woken = Rings(), []
    threads = [
        threading.Thread(target=lambda: woken.append(rings.wait_after(0, 30.0))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    rings.ring()
    for thread in threads:
        thread.join(10.0)
    assert woken == [1, 1, 1]


def listener(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


def bells(folder: Path) -> int:
    return len(list((folder / FOLDER).iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="bells between processes need Linux")
def test_processes_hear_each_other_however_long_the_path(far_folder: Path) -> None:
    hearing = [listener(far_folder), listener(far_folder)]

    Bell(far_folder, "other").ring()
    Bell(far_folder, "tasks").ring()

    for process in hearing:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="bells between processes need Linux")
def test_the_bell_of_a_process_that_died_is_removed_and_the_others_still_ring(
    tmp_path: Path,
) -> None:
    dead = listener(tmp_path)
    dead.kill()
    dead.communicate()
    alive = Bell(tmp_path, "tasks")
    alive.listen()
    assert bells(tmp_path) == 2

    Bell(tmp_path, "tasks").ring()

    assert alive.wait_after(0, 20.0) == 1
    assert bells(tmp_path) == 1
    alive.close()
    assert bells(tmp_path) == 0


def test_a_bell_that_is_rung_without_pause_never_blocks_who_rings(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "tasks")
    bell.listen()
    other = Bell(tmp_path, "tasks")
    for _ in range(5000):
        other.ring()
    assert bell.wait_after(0, 20.0) > 0
    bell.close()


def test_a_folder_that_cannot_be_used_leaves_rings_in_the_process(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    bell = Bell(tmp_path, "tasks")
    bell.listen()
    bell.ring()
    assert bell.wait_after(0, 1.0) == 1
    bell.close()
