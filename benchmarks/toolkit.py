"""Senders that hospitals have: DCMTK's storescu and dcmsend, as they come: with Nagle on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.sender import CALLED, Sent

SENDERS = ("storescu", "dcmsend")


def is_installed(sender: str) -> bool:
    """Whether a sender can be started here."""
    return _found(sender) is not None


def _found(program: str) -> str | None:
    # By its folder: pynetdicom brings programs of the same names into a virtual environment.
    return shutil.which(program, path="/usr/bin:/usr/local/bin")


def send_with(sender: str, port: int, paths: list[Path]) -> Sent:
    """Send files over one association; latencies are not known.

    Parameters
    ----------
    sender : str
        One of `SENDERS`.
    port : int
        On 127.0.0.1.
    paths : list of Path
        Files of one folder.
    """
    folder = str(paths[0].parent)
    options = ["-R", "+sd"] if sender == "storescu" else ["+sd"]
    command = [str(_found(sender)), "-q", "-aec", CALLED.decode(), *options]
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    before, began = os.times(), time.monotonic()
    ended = subprocess.run(
        [*command, "127.0.0.1", str(port), folder],
        capture_output=True,
        check=False,
        env=environment,
    )
    seconds, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system
    return Sent(
        instances=len(paths),
        failed=0 if ended.returncode == 0 and not ended.stderr else len(paths),
        bytes=sum(path.stat().st_size for path in paths),
        seconds=seconds,
        cpu_seconds=cpu - before.children_user - before.children_system,
        p50_ms=0.0,
        p99_ms=0.0,
    )
