"""A load that knows which of its instances were answered with 0x0000.

Every instance can be made again from its number, so that thousands can be compared with what a
receiver holds, without keeping any.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import struct
import threading
import time
from dataclasses import dataclass

from benchmarks.sender import associate_rq, connect, data_pdus, receive, release, store_rq
from benchmarks.studies import Prepared

CT, EXPLICIT_VR = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2.1"
CALLING = b"LOAD"
_ROOT = "1.2.826.0.1.3680043.8.498.7"
_SIZES = (2_000, 60_000, 400_000)
_LONG_VRS = frozenset({b"OB", b"OW", b"SQ", b"UN"})
_CONTEXT_ID = 1


@dataclass(frozen=True)
class Answer:
    """What an instance was answered.

    Parameters
    ----------
    status : int
    comment : str
        Error Comment (0000,0902).
    """

    status: int
    comment: str = ""


def uid_of(number: int) -> str:
    """SOP Instance UID of an instance."""
    return f"{_ROOT}.{number}"


def number_of(uid: str) -> int:
    """Read the number of an instance from its SOP Instance UID."""
    return int(uid.rpartition(".")[2])


def size_of(number: int) -> int:
    """Bytes of the pixels of an instance: one fragment, several, or four PDUs."""
    return _SIZES[number % len(_SIZES)]


def generated(number: int, size: int | None = None) -> Prepared:
    """Make an instance: the same one for the same number and size."""
    pixels = hashlib.shake_128(str(number).encode()).digest(size or size_of(number))
    return Prepared(CT, uid_of(number).encode(), EXPLICIT_VR, header(number) + pixel_data(pixels))


def header(number: int, sop_class_uid: bytes = CT) -> bytes:
    """Encode all elements before the pixels. Ten instances make a series."""
    study = number // 10
    return b"".join(
        (
            element(0x0008, 0x0016, b"UI", sop_class_uid),
            element(0x0008, 0x0018, b"UI", uid_of(number).encode()),
            element(0x0008, 0x0060, b"CS", b"CT"),
            element(0x0010, 0x0010, b"PN", b"LOAD^GENERATED"),
            element(0x0010, 0x0020, b"LO", b"LOAD"),
            element(0x0020, 0x000D, b"UI", f"{_ROOT}.1.{study}".encode()),
            element(0x0020, 0x000E, b"UI", f"{_ROOT}.2.{study}".encode()),
            element(0x0020, 0x0013, b"IS", str(number % 10).encode()),
        )
    )


def pixel_data(pixels: bytes) -> bytes:
    """Encode Pixel Data (7FE0,0010)."""
    return element(0x7FE0, 0x0010, b"OW", pixels)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian."""
    value += (b"\0" if vr in (b"UI", b"OB", b"OW") else b" ") * (len(value) % 2)
    if vr in _LONG_VRS:
        return struct.pack("<HH2s2xI", group, number, vr, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def limit_waiting(connection: socket.socket, seconds: int = 60) -> None:
    """Let a socket wait for so long at most; a timeout of Python's would cut reads short."""
    connection.settimeout(None)
    limit = struct.pack("ll", seconds, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def answer_of(connection: socket.socket) -> Answer:
    """Read one response.

    Raises
    ------
    ConnectionError
        The receiver closed or aborted instead.
    """
    kind, body = receive(connection)
    if kind != 4:
        raise ConnectionError(f"PDU type {kind} came in place of a response")
    values: dict[int, bytes] = {}
    at = 6
    while at + 8 <= len(body):
        number, length = struct.unpack_from("<2xHI", body, at)
        values[number] = body[at + 8 : at + 8 + length]
        at += 8 + length
    if 0x0900 not in values:
        raise ConnectionError("the response was cut short")
    comment = values.get(0x0902, b"").decode("ascii").strip()
    return Answer(int.from_bytes(values[0x0900], "little"), comment)


class LoadAssociation:
    """One association that sends instances.

    Parameters
    ----------
    port : int
        On 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        request = associate_rq({_CONTEXT_ID: (CT, EXPLICIT_VR)}, CALLING)
        self._connection, self._most = connect(port, request)
        limit_waiting(self._connection)
        self._message_ids = itertools.count(1)

    def send(self, one: Prepared) -> Answer:
        """Send one instance and await the answer.

        Raises
        ------
        OSError
            There was none.
        """
        command = store_rq(one, next(self._message_ids) % 65_000)
        self._connection.sendall(data_pdus(_CONTEXT_ID, command, 1, self._most))
        self._connection.sendall(data_pdus(_CONTEXT_ID, one.data, 0, self._most))
        return answer_of(self._connection)

    def release(self) -> None:
        """Release the association."""
        release(self._connection)

    def close(self) -> None:
        """Close the connection; harmless at any time."""
        self._connection.close()


class Load:
    """Sends over several associations until it has sent all, or the receiver is gone.

    Parameters
    ----------
    port : int
        On 127.0.0.1.
    first : int
        Number of the first instance.
    associations : int
    most : int or None
        How many instances to send; None: until the receiver is gone.
    """

    def __init__(self, port: int, first: int, associations: int, most: int | None = None) -> None:
        self._port = port
        self._numbers = itertools.count(first)
        self._end = None if most is None else first + most
        self.answers: dict[int, Answer] = {}
        self._answered_at: dict[int, float] = {}
        self._threads = [threading.Thread(target=self._run) for _ in range(associations)]

    @property
    def acknowledged(self) -> list[int]:
        """Numbers of the instances that were answered with 0x0000."""
        return [number for number, answer in self.answers.items() if answer.status == 0]

    def acknowledged_before(self, moment: float) -> list[int]:
        """Numbers of those whose 0x0000 had come before a time of `time.monotonic`."""
        times = self._answered_at
        return [number for number in self.acknowledged if times.get(number, moment) < moment]

    @property
    def next_number(self) -> int:
        """A number that nothing was sent under; ask once it has ended."""
        return next(self._numbers)

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all associations have ended."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            association = LoadAssociation(self._port)
        except OSError:
            return
        try:
            for number in self._numbers:
                if self._end is not None and number >= self._end:
                    break
                self.answers[number] = association.send(generated(number))
                self._answered_at[number] = time.monotonic()
            association.release()
        except OSError:
            return  # the receiver is gone: what was sent last was never answered
        finally:
            association.close()
