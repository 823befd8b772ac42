"""Ports for programs that tests and benchmarks start."""

from __future__ import annotations

import random
import socket
import time

_PORTS = range(20_000, 32_000)
"""Below those that a system gives to outgoing connections: none of them takes a port between the
moment when it is chosen and the one when its program listens."""
_given: set[int] = set()


def free_port() -> int:
    """Find a port that nobody listens on and that was not given away before."""
    chooser = random.SystemRandom()
    while True:
        port = chooser.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as found:
            try:
                found.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
            except OSError:
                continue
        _given.add(port)
        return port


def await_port(port: int, seconds: float = 30.0) -> None:
    """Wait until somebody listens.

    Raises
    ------
    TimeoutError
        Nobody does.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")
