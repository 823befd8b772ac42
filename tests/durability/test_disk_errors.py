"""Every write, flush, rename and open of the receiver fails once: nothing is acknowledged wrongly.

strace makes the n-th call of each thread fail, from the moment the receiver listens: calls for the
objects as well as those of SQLite.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.acknowledged import Answer, Load
from node.statuses import OUT_OF_RESOURCES, SUCCESS
from storage.base import DISK_FAILED
from tests.durability.proof import assert_all_held, assert_works_again, leftovers
from tests.durability.receiver_process import ReceiverProcess, Setup
from tests.tools import tool

CALLS = {
    "write": "write,pwrite64,writev,pwritev,pwritev2",
    "flush": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "open": "openat",
}
SWEEP = ("1", "2", "3", "4", "5", "7", "2+")
"""Which calls of each thread fail; ``2+``: all from the second on."""
_ATTACHED = "attached"
_OBJECT_FLUSH = re.compile(r"(fsync|fdatasync)\(\d+<[^>]*/data/[^>]*>.*EIO.*INJECTED")
_UNFINISHED = "<unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")


@contextmanager
def failing(
    receiver: ReceiverProcess, calls: str, error: str, when: str, said: Path
) -> Iterator[None]:
    """Let calls of a receiver fail inside the block; what was done is in a file afterwards."""
    command = [tool("strace"), "-f", "-y", "-p", str(receiver.pid), "-o", str(said)]
    command += ["-e", f"trace={calls}", "-e", "signal=none"]
    command += ["-e", f"inject={calls}:error={error}:when={when}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    first = tracer.stderr.readline()
    # It must never wait for us to read what else it says.
    reader = threading.Thread(target=tracer.stderr.read)
    reader.start()
    try:
        if _ATTACHED not in first:
            pytest.skip(f"strace may not attach to a process here: {first.strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        reader.join()
        tracer.stderr.close()


def in_one_piece(trace: str) -> str:
    """Join what strace tells in two lines: a call that another thread's came between."""
    begun: dict[str, str] = {}
    lines = []
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        if rest.endswith(_UNFINISHED):
            begun[thread] = line.removesuffix(_UNFINISHED)
            continue
        resumed = _RESUMED.match(rest.strip())
        if resumed and thread in begun:
            line = begun.pop(thread) + rest.strip()[resumed.end() :]
        lines.append(line)
    return "\n".join(lines + list(begun.values()))


def test_a_call_that_strace_tells_in_two_lines_is_read_as_one() -> None:
    trace = (
        "12 fdatasync(9</a/data/incoming/x.part> <unfinished ...>\n"
        "13 fdatasync(8</a/data/incoming/y.part>) = 0\n"
        "12 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n"
    )
    assert _OBJECT_FLUSH.search(trace) is None
    assert _OBJECT_FLUSH.search(in_one_piece(trace))


def send(port: int, number: int, most: int = 8) -> Load:
    load = Load(port, number, associations=2, most=most)
    load.start()
    load.join()
    return load


def is_honest(answer: Answer) -> bool:
    """Whether an answer is success, or a failure that says why."""
    if answer.status == SUCCESS:
        return True
    return answer.status == OUT_OF_RESOURCES and answer.comment in (
        "no room left",
        "store unavailable",
    )


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("calls", CALLS)
def test_whatever_fails_on_the_disk_nothing_is_acknowledged_that_is_not_safe(
    setup: Setup, tmp_path: Path, calls: str, error: str
) -> None:
    if (setup.store, calls) == ("arena", "rename"):
        pytest.skip("an arena renames nothing")
    number, acknowledged, injected, refused = 0, set[int](), 0, 0
    for when in SWEEP:
        said = tmp_path / f"strace-{when}"
        with ReceiverProcess(setup) as receiver:
            assert not leftovers(setup)
            with failing(receiver, CALLS[calls], error, when, said):
                load = send(receiver.port, number)
            trace = in_one_piece(said.read_text(errors="replace"))
            must_end = _OBJECT_FLUSH.search(trace) is not None
            if must_end:
                assert receiver.exit_status(10) == DISK_FAILED, trace
            else:
                again = send(receiver.port, load.next_number, most=2)
                assert len(again.acknowledged) == 2, again.answers
                acknowledged.update(again.acknowledged)
                load = again if not load.answers else load
                number = again.next_number
        number = max(number, load.next_number)
        injected += trace.count("INJECTED")
        refused += sum(answer.status != SUCCESS for answer in load.answers.values())
        assert all(map(is_honest, load.answers.values())), load.answers
        acknowledged.update(load.acknowledged)
        assert_all_held(setup, acknowledged)
    assert injected, "no call was made to fail"
    # An arena opens its segments ahead, and again when that fails: nobody need be refused for it.
    if (setup.store, calls) != ("arena", "open"):
        assert refused, "a call failed, and everything was acknowledged nevertheless"
    assert_works_again(setup, number)
