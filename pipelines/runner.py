"""A child process that does one step at a time, and what becomes of it when it does not end.

Hostile pixels, hanging C code, CUDA faults and other people's models end there, not in the node.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.base import Step, Verdict

POLL_SECONDS = 0.1
_PASSED_ON = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
    }
)
_PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "TORCH_", "COVERAGE_")

Tick = Callable[[float, str], None]
"""Called about ten times a second with progress and note; what it raises kills the child."""


class Runner:
    """Owns one warm child; starts another when it died.

    The child is a fresh interpreter (nothing of this process is inherited: no database
    connection, no socket), gets no secrets in its environment and dies with its parent.

    Parameters
    ----------
    module : str
        What the child runs; a test hands in one that misbehaves.
    steps : sequence of Step
        What the child gets ready for while nothing is asked of it.
    """

    def __init__(self, module: str = "pipelines.runner_child", steps: Sequence[Step] = ()) -> None:
        self._module = module
        self._steps = steps
        self._process: subprocess.Popen[bytes] | None = None
        self._faults: IO[bytes] | None = None
        self._buffer = b""

    def run(
        self,
        job_folder: Path,
        step: Step,
        *,
        deadline_seconds: float,
        memory_bytes: int,
        tick: Tick,
    ) -> Verdict:
        """Do one step of the job whose ``job.json`` lies in `job_folder`.

        Returns
        -------
        Verdict
            ``killer`` when the child died, passed the deadline or took too much memory.
        """
        process = self.start()
        request = json.dumps(
            {"folder": str(job_folder), "step": step, "memory_bytes": memory_bytes}
        )
        deadline = time.monotonic() + deadline_seconds
        try:
            assert process.stdin is not None  # noqa: S101 - we opened it
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            return self._await(process, step, deadline, deadline_seconds, memory_bytes, tick)
        except (BrokenPipeError, EOFError):
            return self._died(step)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the child at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._faults):
                if pipe is not None:
                    pipe.close()
            self._process, self._faults, self._buffer = None, None, b""

    def start(self) -> subprocess.Popen[bytes]:
        """Start a child unless one lives. It ends with the thread that started it."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        self._faults = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        environment = {
            key: value
            for key, value in os.environ.items()
            if key in _PASSED_ON or key.startswith(_PASSED_ON_PREFIXES)
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                self._module,
                str(os.getpid()),
                str(self._faults.fileno()),
                *self._steps,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._faults.fileno()],
            env=environment,
        )
        return self._process

    def _await(
        self,
        process: subprocess.Popen[bytes],
        step: Step,
        deadline: float,
        deadline_seconds: float,
        memory_bytes: int,
        tick: Tick,
    ) -> Verdict:
        progress, note = 0.0, str(step)
        with selectors.DefaultSelector() as selector:
            assert process.stdout is not None  # noqa: S101 - we opened it
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                for message in self._messages(process.stdout, selector):
                    if "verdict" in message:
                        return Verdict(**message["verdict"])
                    progress, note = message["progress"], message["note"]
                if time.monotonic() > deadline:
                    self.kill()
                    return Verdict(
                        "killer",
                        "deadline",
                        f"Step {step} did not end within {deadline_seconds:g} s and was stopped; "
                        "raise the rule's run.timeout if it needs longer, and start the job again.",
                    )
                used = _resident_bytes(process.pid)
                if used > memory_bytes:
                    self.kill()
                    return Verdict(
                        "killer",
                        "memory",
                        f"Step {step} took {used >> 20} MiB of memory, more than the "
                        f"{memory_bytes >> 20} MiB of node.memory.step, and was stopped; if the "
                        "machine has more, raise it, then start the job again.",
                    )
                tick(progress, note)

    def _messages(self, pipe: IO[bytes], selector: selectors.BaseSelector) -> list[dict[str, Any]]:
        """Whole messages that have come, after waiting a moment."""
        if selector.select(POLL_SECONDS):
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        # NaN is no JSON: a database would refuse it.
        return [json.loads(line, parse_constant=lambda name: None) for line in lines]

    def _died(self, step: Step) -> Verdict:
        process, where = self._process, ""
        if process is None:
            return Verdict("killer", "runner_died", f"Step {step} lost its process.")
        code = process.wait()
        if self._faults is not None:
            self._faults.seek(0)
            where = _innermost_frame(self._faults.read(8192).decode(errors="replace"))
        self.kill()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Verdict("killer", "runner_died", f"Step {step} ended its process: {how}{where}.")


def _innermost_frame(faults: str) -> str:
    """Where the child was, from faulthandler's report (file, line, function: no values)."""
    for line in faults.splitlines():
        if line.lstrip().startswith("File "):
            return f" at {line.strip()}"
    return ""


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
