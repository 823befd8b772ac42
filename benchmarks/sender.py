"""A sender that costs little: no DICOM toolkit, PDUs built before the clock starts.

It shows what a receiver can take, because it is faster than any of them.
"""

from __future__ import annotations

import multiprocessing
import queue
import resource
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeAlias

from benchmarks.studies import Prepared, prepared

CALLING, CALLED = b"BLAST", b"ANY"
_SPAWN = multiprocessing.get_context("fork")

_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE

Result = tuple[float, float, float, int, int, list[float]]
"""Begin, end, CPU seconds, failures, bytes, latencies."""
Results: TypeAlias = "Queue[Result]"


@dataclass(frozen=True)
class Sent:
    """What came of sending a load.

    Parameters
    ----------
    instances, failed, bytes : int
    seconds : float
        From the first to the last byte of all associations.
    cpu_seconds : float
        Of the senders.
    p50_ms, p99_ms : float
        Of the time from a request to its response.
    """

    instances: int
    failed: int
    bytes: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float


def send(
    port: int,
    paths: list[Path],
    associations: int,
    *,
    one_each: bool = False,
    calling: str = "",
    is_tls: bool = False,
) -> Sent:
    """Send files over so many associations at once, each in a process of its own.

    Parameters
    ----------
    port : int
        On 127.0.0.1.
    paths : list of Path
    associations : int
    one_each : bool
        Whether every instance gets an association of its own.
    calling : str
        Calling AE title.
    is_tls : bool
        Whether connections begin with TLS; the receiver's certificate is not looked at.
    """
    instances = list(prepared(paths))
    barrier = _SPAWN.Barrier(associations)
    results: Results = _SPAWN.Queue()
    title = calling.encode() or CALLING
    workers = [
        _SPAWN.Process(
            target=_work,
            args=(port, title, instances[n::associations], one_each, is_tls, barrier, results),
        )
        for n in range(associations)
    ]
    for worker in workers:
        worker.start()
    try:
        found = [_result(workers, results) for _ in workers]
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    latencies = sorted(latency for *_, some in found for latency in some)
    return Sent(
        instances=len(latencies),
        failed=sum(failed for *_, failed, _, _ in found),
        bytes=sum(size for *_, size, _ in found),
        seconds=max(end for _, end, *_ in found) - min(start for start, *_ in found),
        cpu_seconds=sum(cpu for _, _, cpu, *_ in found),
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[int(len(latencies) * 0.99)],
    )


def _result(workers: list[ForkProcess], results: Results) -> Result:
    """Wait for the result of one sender, unless one of them has failed."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise ConnectionError("a sender failed") from None


def _work(
    port: int,
    calling: bytes,
    instances: list[Prepared],
    one_each: bool,
    is_tls: bool,
    barrier: Barrier,
    results: Results,
) -> None:
    contexts = {key: 2 * n + 1 for n, key in enumerate(dict.fromkeys(map(_kind, instances)))}
    request = associate_rq({number: key for key, number in contexts.items()}, calling)
    connection, most = connect(port, request, is_tls=is_tls)
    release(connection)
    ready = [
        (one, contexts[_kind(one)], data_pdus(contexts[_kind(one)], one.data, 0, most))
        for one in instances
    ]
    barrier.wait()
    begin, cpu = time.monotonic(), _cpu()
    failed, latencies = 0, []
    if not one_each:
        connection, _ = connect(port, request, is_tls=is_tls)
    for number, (one, context_id, body) in enumerate(ready):
        if one_each:
            connection, _ = connect(port, request, is_tls=is_tls)
        sent = time.monotonic()
        command = store_rq(one, number % 65_000 + 1)
        connection.sendall(data_pdus(context_id, command, 1, most))
        connection.sendall(body)
        failed += status_of(connection) != 0
        latencies.append(time.monotonic() - sent)
        if one_each:
            release(connection)
    if not one_each:
        release(connection)
    size = sum(len(one.data) for one in instances)
    results.put((begin, time.monotonic(), _cpu() - cpu, failed, size, latencies))


def _kind(one: Prepared) -> tuple[bytes, bytes]:
    return one.sop_class_uid, one.transfer_syntax_uid


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- bytes -----------------------------------------------------------------------------------


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate_rq(contexts: dict[int, tuple[bytes, bytes]], calling: bytes = CALLING) -> bytes:
    """Encode an A-ASSOCIATE-RQ."""
    body = struct.pack(">HH", 1, 0) + CALLED.ljust(16) + calling.ljust(16) + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntax) in contexts.items():
        inner = bytes([number, 0, 0, 0]) + _item(0x30, abstract) + _item(0x40, syntax)
        body += _item(0x20, inner)
    body += _item(0x50, _item(0x51, struct.pack(">I", 1 << 20)) + _item(0x52, b"1.2.3.4"))
    return struct.pack(">BxI", 1, len(body)) + body


def connect(port: int, request: bytes, *, is_tls: bool = False) -> tuple[socket.socket, int]:
    """Open an association; the connection and the longest PDU that the receiver takes."""
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if is_tls:
        connection = _CONTEXT.wrap_socket(connection)
    connection.settimeout(None)  # so that MSG_WAITALL waits for all
    connection.sendall(request)
    kind, body = receive(connection)
    if kind != 2:
        raise ConnectionError(f"the association was answered with PDU type {kind}")
    at = body.find(b"\x51\0\0\4", 68)
    most = struct.unpack_from(">I", body, at + 4)[0] if at >= 0 else 16_384
    return connection, min(most or 1 << 20, 1 << 20)


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU."""
    kind, length = struct.unpack(">BxI", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    if not isinstance(connection, ssl.SSLSocket):
        found = connection.recv(count, socket.MSG_WAITALL)
    else:
        found = b""
        while len(found) < count and (more := connection.recv(count - len(found))):
            found += more
    if len(found) < count:
        raise ConnectionError("the receiver closed the connection")
    return found


def status_of(connection: socket.socket) -> int:
    """Read one response; its status."""
    kind, body = receive(connection)
    at = 6
    while kind == 4 and at + 8 <= len(body):
        element, length = struct.unpack_from("<2xHI", body, at)
        if element == 0x0900:
            status: int = struct.unpack_from("<H", body, at + 8)[0]
            return status
        at += 8 + length
    raise ConnectionError(f"PDU type {kind} came in place of a response")


def release(connection: socket.socket) -> None:
    """Release the association."""
    connection.sendall(struct.pack(">BxI4x", 5, 4))
    receive(connection)
    connection.close()


def data_pdus(context_id: int, data: bytes, control: int, most: int) -> bytes:
    """Encode P-DATA-TF PDUs with one fragment each."""
    parts = []
    step = most - 6
    for at in range(0, len(data), step):
        part = data[at : at + step]
        last = 2 if at + step >= len(data) else 0
        parts.append(
            struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, context_id, control | last)
        )
        parts.append(part)
    return b"".join(parts)


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def store_rq(one: Prepared, message_id: int) -> bytes:
    """Encode a C-STORE request."""
    body = (
        _element(0x0002, one.sop_class_uid)
        + _element(0x0100, b"\1\0")
        + _element(0x0110, struct.pack("<H", message_id))
        + _element(0x0700, b"\0\0")
        + _element(0x0800, b"\1\0")
        + _element(0x1000, one.sop_instance_uid)
    )
    return _element(0, struct.pack("<I", len(body))) + body
