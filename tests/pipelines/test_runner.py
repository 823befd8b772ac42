"""The runner: what a step does to its process ends there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.base import Verdict
from pipelines.runner import Runner
from storage.base import LeaseLost


@pytest.fixture
def runner() -> Iterator[Runner]:
    found = Runner("tests.pipelines.hostile_child")
    yield found
    found.kill()


def _run(runner: Runner, name: str, seconds: float = 60, memory: int = 1 << 30) -> Verdict:
    return runner.run(
        Path("/nowhere") / name,
        "infer",
        deadline_seconds=seconds,
        memory_bytes=memory,
        tick=lambda fraction, note: None,
    )


def test_a_step_that_ends_well_keeps_its_child_warm(runner: Runner) -> None:
    first = _run(runner, "pid")
    second = _run(runner, "pid")

    assert first.outcome == "ok"
    assert first.sentence == second.sentence


def test_a_segmentation_fault_is_a_verdict_that_says_where(runner: Runner) -> None:
    verdict = _run(runner, "segfault")

    assert (verdict.outcome, verdict.reason) == ("killer", "runner_died")
    assert "SIGSEGV" in verdict.sentence
    assert "string_at" in verdict.sentence


def test_a_step_that_hangs_in_c_is_killed_at_its_deadline_and_the_next_one_runs(
    runner: Runner,
) -> None:
    verdict = _run(runner, "hang", seconds=1.0)

    assert (verdict.outcome, verdict.reason) == ("killer", "deadline")
    assert "1 s" in verdict.sentence
    assert _run(runner, "pid").outcome == "ok"


def test_a_step_that_takes_too_much_memory_is_stopped(runner: Runner) -> None:
    verdict = _run(runner, "allocate", memory=400 << 20)

    assert (verdict.outcome, verdict.reason) == ("killer", "memory")
    assert "400 MiB" in verdict.sentence


def test_a_step_that_leaves_is_a_verdict_with_its_exit_code(runner: Runner) -> None:
    assert "exit code 3" in _run(runner, "exit").sentence


def test_what_a_step_prints_goes_nowhere(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(runner, "print").outcome == "ok"

    assert "PLANTED" not in "".join(capfd.readouterr())


def test_a_child_gets_no_secrets_from_the_environment(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDCAP_TOKEN", "secret")

    names = _run(runner, "environment").sentence.split(",")

    assert "PATH" in names
    assert "REDCAP_TOKEN" not in names


def test_progress_reaches_the_parent(runner: Runner) -> None:
    seen: list[tuple[float, str]] = []
    runner.run(
        Path("/nowhere/progress"),
        "infer",
        deadline_seconds=60,
        memory_bytes=1 << 30,
        tick=lambda fraction, note: seen.append((fraction, note)),
    )

    assert {(0.0, "slices"), (0.25, "slices"), (0.5, "slices")} <= set(seen)


def test_a_lost_lease_kills_the_child(runner: Runner) -> None:
    pid = int(_run(runner, "pid").sentence)

    def tick(fraction: float, note: str) -> None:
        raise LeaseLost("somebody else has it")

    with pytest.raises(LeaseLost):
        runner.run(
            Path("/nowhere/hang"), "infer", deadline_seconds=60, memory_bytes=1 << 30, tick=tick
        )

    assert not Path(f"/proc/{pid}").exists()


def test_a_child_dies_with_its_parent() -> None:
    code = (
        "from pathlib import Path\n"
        "from pipelines.runner import Runner\n"
        "runner = Runner('tests.pipelines.hostile_child')\n"
        "say = lambda folder: runner.run(Path(folder), 'infer', deadline_seconds=600,\n"
        "    memory_bytes=1 << 30, tick=lambda fraction, note: None).sentence\n"
        "print(say('/nowhere/pid'), flush=True)\n"
        "say('/nowhere/hang')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()

    end = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def _has_loaded(process: subprocess.Popen[bytes], library: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if library in Path(f"/proc/{process.pid}/maps").read_text():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is loaded")
def test_a_child_gets_ready_for_its_steps_before_it_is_asked() -> None:
    runners = [Runner(steps=("convert",)), Runner()]
    ready, other = (runner.start() for runner in runners)
    try:
        assert _has_loaded(ready, "_multiarray_umath", 60.0)
        assert not _has_loaded(other, "_multiarray_umath", 0.1)
    finally:
        for runner in runners:
            runner.kill()
