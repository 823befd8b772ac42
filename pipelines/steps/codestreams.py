"""What a compressed frame says of its own size, before a decoder believes it."""

from __future__ import annotations

import struct

J2K_START = b"\xff\x4f\xff\x51"
JPEG_START = b"\xff\xd8"
SOF = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start of a frame in JPEG (C0 to CF but for DHT, JPG, DAC) and JPEG-LS (F7)."""
MAX_TILES = 65535
Size = tuple[int, int, int]


def size_of(frame: bytes) -> Size | None:
    """Return rows, columns and components of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Returns
    -------
    tuple of int or None
        None where the codestream does not say, or says what none can be.

    References
    ----------
    ISO/IEC 15444-1 A.5.1 (SIZ); ISO/IEC 10918-1 B.2.2 (frame header).
    """
    try:
        if frame.startswith(JPEG_START):
            return _jpeg(frame)
        start = frame[:512].find(J2K_START)
        return None if start < 0 else _j2k(frame, start)
    except struct.error:
        return None


def _j2k(frame: bytes, start: int) -> Size | None:
    right, bottom, left, top, width, height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", frame, start + 8
    )
    if not width or not height or right <= left or bottom <= top:
        return None
    across = -(-(right - min(tile_left, right)) // width)
    if across * -(-(bottom - min(tile_top, bottom)) // height) > MAX_TILES:
        return None
    return bottom - top, right - left, components


def _jpeg(frame: bytes) -> Size | None:
    place = 2
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker in SOF:
            rows, columns, components = struct.unpack_from(">HHB", frame, place + 5)
            return rows, columns, components
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None
