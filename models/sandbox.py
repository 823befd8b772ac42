"""Shut this process in: no network, no new programs, no writing of files, bounded memory and time.

Linux only; where the kernel does not offer it, `shut_in` fails and nothing may be read.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_PR_SET_DUMPABLE = 4
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050000 | 1, 0x00050000 | 38
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x00010000

_DENIED = {
    "x86_64": {
        "audit": 0xC000003E,
        "calls": (
            *(41, 42, 43, 44, 46, 49, 50, 53, 288, 307),  # sockets
            *(57, 58, 59, 322),  # fork, vfork, execve, execveat
            *(62, 200, 234, 101, 310, 311, 434, 424),  # kill, tkill, ptrace, other processes
            *(76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 94, 132, 133),  # files by name
            *(258, 259, 260, 263, 264, 265, 266, 268, 280, 316, 437),  # the same, by folder
            *(155, 161, 165, 166, 169, 175, 176, 246, 272, 304, 308, 313, 317, 321, 323),
            *(425, 426, 427, 435),  # io_uring, clone3
        ),
        "open": 2,
        "openat": 257,
        "clone": 56,
        "clone3": 435,
    },
    "aarch64": {
        "audit": 0xC00000B7,
        "calls": (
            *(198, 199, 200, 201, 202, 203, 206, 211, 269),
            *(221, 281),
            *(129, 130, 131, 117, 270, 271, 434, 424),
            *(33, 34, 35, 36, 37, 38, 45, 52, 53, 54, 55, 88, 276, 437),
            *(39, 40, 41, 51, 97, 104, 105, 106, 142, 268, 273, 277, 280, 282, 294),
            *(425, 426, 427, 435),
        ),
        "open": None,
        "openat": 56,
        "clone": 220,
        "clone3": 435,
    },
}


class NoSandbox(RuntimeError):
    """Raised when this system cannot shut a process in."""


def shut_in(memory_bytes: int, cpu_seconds: int, output_bytes: int) -> None:
    """Take away what reading tensors does not need; there is no way back.

    Parameters
    ----------
    memory_bytes : int
        Beyond what is mapped already.
    cpu_seconds : int
    output_bytes : int
        Largest size of any file that is written, through descriptors that are open already.

    Raises
    ------
    NoSandbox
        The kernel refuses, or the machine is of a kind that is not known.
    """
    tables = _DENIED.get(platform.machine())
    if tables is None:
        raise NoSandbox(f"weights cannot be converted safely on a machine of {platform.machine()}")
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115, PTH123 - once, at once
    _limit(resource.RLIMIT_AS, pages * 4096 + memory_bytes)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, output_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 256)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program(tables)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer, 0, 0
    ):
        raise NoSandbox("the kernel does not let a process shut itself in (seccomp)")


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (wanted, wanted))


def _program(tables: dict[str, object]) -> bytes:
    """Filter of system calls: a list that is denied, and opening of files for writing."""
    calls = [call for call in tables["calls"] if call != tables["clone3"]]  # type: ignore[attr-defined]
    code = [
        _step(_LOAD, 0, 0, _ARCHITECTURE),
        _step(_JUMP_EQ, 1, 0, int(str(tables["audit"]))),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, _NUMBER),
        # Numbers of the x32 ABI name the same calls a second time.
        _step(_JUMP_GE, 0, 1, _X32),
        _step(_RETURN, 0, 0, _EPERM),
    ]
    for call in calls:
        code += [_step(_JUMP_EQ, 0, 1, call), _step(_RETURN, 0, 0, _EPERM)]
    # The C library falls back to clone, whose flags a filter can see.
    code += [
        _step(_JUMP_EQ, 0, 1, int(str(tables["clone3"]))),
        _step(_RETURN, 0, 0, _ENOSYS),
    ]
    code += _when(tables["clone"], 0, _CLONE_THREAD, denied_if_set=False)
    code += _when(tables["openat"], 2, _WRITING, denied_if_set=True)
    if tables["open"] is not None:
        code += _when(tables["open"], 1, _WRITING, denied_if_set=True)
    return b"".join([*code, _step(_RETURN, 0, 0, _ALLOW)])


def _when(call: object, argument: int, bits: int, *, denied_if_set: bool) -> list[bytes]:
    """Judge a call by bits of an argument."""
    deny, allow = _step(_RETURN, 0, 0, _EPERM), _step(_RETURN, 0, 0, _ALLOW)
    return [
        _step(_JUMP_EQ, 0, 4, int(str(call))),
        _step(_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        _step(_JUMP_SET, 0, 1, bits),
        deny if denied_if_set else allow,
        allow if denied_if_set else deny,
    ]


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
