"""Named points where a test can kill the process: the commit points of the design.

``SCORENODE_CRASH_AT=CP3:/tmp/marker`` kills the first process that reaches CP3, once: whoever
creates the marker file dies, everybody after it goes on.
"""

from __future__ import annotations

import os
import signal

_TARGET, _, _MARKER = os.environ.get("SCORENODE_CRASH_AT", "").partition(":")


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it here; otherwise nothing."""
    if name != _TARGET or not _MARKER:
        return
    try:
        os.close(os.open(_MARKER, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
