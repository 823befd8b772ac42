"""The supervisor as a process of its own, when it fails itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from node.config.default import default_config
from tests.ports import free_port

FAILS = """
import sys
from node.cli.main import main
from node.supervisor import Supervisor
def fail(supervisor):
    raise RuntimeError("planted")
Supervisor._apply_reload = fail
sys.argv = ["scorenode", "serve", "--role", "receiver", "--config", sys.argv[1]]
main()
"""


def test_a_supervisor_that_fails_ends_its_processes_and_itself(tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "scorenode.yaml"
    config.write_text(default_config(tmp_path / "data", port))
    command = [sys.executable, "-c", FAILS, str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        try:
            said = next(line for line in node.stdout if "receiver.ready" in line)
            node.send_signal(signal.SIGHUP)
            said += node.stdout.read()  # ends when all processes have ended
            status = node.wait(60)
        finally:
            node.kill()
    assert "planted" not in said
    assert "process.crashed" in said
    assert status == 1
    assert "receiver.stopped" in said
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("0.0.0.0", port))  # noqa: S104 - as the node did
    assert not list((tmp_path / "data" / "config").iterdir())
