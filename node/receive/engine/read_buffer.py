"""Where bytes from the network lie until they are used: one buffer for each active association."""

from __future__ import annotations

import threading

from node.receive.engine.pdu import HEADER_BYTES, header_of

BUFFER_BYTES = 1 << 20
MOST_LARGE_BUFFERS = 64
_LEAST_WINDOW = 16_384


class ReadBuffer:
    """Bytes in the order they came; PDUs are views of it, never copies.

    Parameters
    ----------
    size : int
        Bytes; at least twice the longest PDU, so that one that began always fits.
    """

    def __init__(self, size: int = BUFFER_BYTES) -> None:
        self._data = bytearray(size)
        self._view = memoryview(self._data)
        self._start = self._end = 0
        self.size = size

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken out."""
        return self._start == self._end

    @property
    def missing(self) -> int:
        """Bytes that the PDU which began still lacks; of an unknown one, those of its header."""
        head = self.header()
        have = self._end - self._start
        return HEADER_BYTES - have if head is None else HEADER_BYTES + head[1] - have

    @property
    def is_nearly_full(self) -> bool:
        """Whether there is no room for the rest of the PDU that began, or hardly any."""
        return self.size - self._end < max(_LEAST_WINDOW, min(self.missing, self.size // 2))

    def window(self) -> memoryview:
        """Where to read into; call `filled` afterwards."""
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """Note how many bytes were read into the window."""
        self._end += count

    def put(self, data: bytes) -> None:
        """Append bytes; there must be room."""
        self.window()[: len(data)] = data
        self.filled(len(data))

    def header(self) -> tuple[int, int] | None:
        """Type and length of the next PDU, or None while its header is incomplete."""
        if self._end - self._start < HEADER_BYTES:
            return None
        return header_of(self._data, self._start)

    def take_pdu(self, length: int) -> memoryview | None:
        """Take the next PDU out and return it without its header; None while it is incomplete."""
        body = self._start + HEADER_BYTES
        end = body + length
        if end > self._end:
            return None
        self._start = end
        return self._view[body:end]

    def clear(self) -> None:
        """Forget everything."""
        self._start = self._end = 0

    def make_room(self) -> None:
        """Move what is left to the front; no view of what was taken out holds any more."""
        left = self._end - self._start
        if self._start:
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left


class BufferPool:
    """Buffers to be used again: so many large ones, then small ones, so that memory is bounded.

    Parameters
    ----------
    most : int
        How many large buffers may be in use.
    large_bytes, small_bytes : int
        Their sizes; both at least twice the longest PDU.
    """

    def __init__(
        self,
        most: int = MOST_LARGE_BUFFERS,
        large_bytes: int = BUFFER_BYTES,
        small_bytes: int = 1 << 18,
    ) -> None:
        self._most = most
        self._large_bytes = large_bytes
        self._small_bytes = small_bytes
        self._lock = threading.Lock()
        self._in_use = 0
        self._free: list[ReadBuffer] = []

    def take(self) -> ReadBuffer:
        """Take an empty buffer, the one used last where there is one."""
        with self._lock:
            if self._free:
                self._in_use += 1
                return self._free.pop()
            if self._in_use >= self._most:
                return ReadBuffer(self._small_bytes)
            self._in_use += 1
        return ReadBuffer(self._large_bytes)

    def give_back(self, buffer: ReadBuffer) -> None:
        """Give a buffer back; whatever it holds is forgotten."""
        buffer.clear()
        if buffer.size != self._large_bytes:
            return
        with self._lock:
            self._in_use -= 1
            self._free.append(buffer)
