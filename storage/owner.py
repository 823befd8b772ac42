"""Who holds a lease: a process, named so that another on its host can see whether it lives."""

from __future__ import annotations

import os
import socket
import uuid
from functools import cache
from pathlib import Path


@cache
def host_identity() -> str:
    """Host name, boot and process namespace: two processes that share it can see each other."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{socket.gethostname()[:64]}/{boot}/{namespace}"


def new_owner() -> str:
    """Name this process, uniquely: ``host/boot/namespace/pid/start/random``."""
    pid = os.getpid()
    return f"{host_identity()}/{pid}/{_start_time(pid)}/{uuid.uuid4().hex[:8]}"


@cache
def _owner_of(pid: int) -> str:
    return new_owner()


def owner_of_this_process() -> str:
    """Name this process, the same name each time."""
    return _owner_of(os.getpid())


def is_dead(owner: str) -> bool:
    """Whether the process is known to be gone; False also when nobody here can tell."""
    host, boot, namespace, pid, start = owner.split("/")[:5]
    my_host, my_boot, my_namespace = host_identity().split("/")
    if (host, boot) != (my_host, my_boot):
        # Another host, perhaps one of the same name, or this one before it was started again:
        # nobody can tell, and the lease runs out by itself.
        return False
    return namespace == my_namespace and _start_time(int(pid)) != start


def _start_time(pid: int) -> str:
    """Clock ticks since boot at which a process started; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    after_name = stat.rpartition(")")[2].split()
    return "" if after_name[0] in "ZX" else after_name[19]
