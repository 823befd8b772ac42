"""The acceptor's part of the upper layer's state machine, as the Standard's table has it.

References
----------
DICOM PS3.8 table 9-10, DICOM Upper Layer Protocol State Transition Table.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """States an acceptor can be in, by the Standard's number."""

    IDLE = 1
    AWAITING_REQUEST = 2
    DECIDING = 3
    """Awaiting the local answer to an A-ASSOCIATE-RQ."""
    ESTABLISHED = 6
    AWAITING_RELEASE_REPLY = 7
    RELEASING = 8
    """Awaiting the local answer to an A-RELEASE-RQ."""
    COLLISION_AWAITING_REPLY = 10
    COLLISION_RELEASING = 12
    AWAITING_CLOSE = 13


class Event(IntEnum):
    """What can happen, by the Standard's number."""

    ACCEPT_PDU = 3
    REJECT_PDU = 4
    CONNECTED = 5
    REQUEST_PDU = 6
    ACCEPT = 7
    REJECT = 8
    SEND_DATA = 9
    DATA_PDU = 10
    RELEASE = 11
    RELEASE_REQUEST_PDU = 12
    RELEASE_REPLY_PDU = 13
    ANSWER_RELEASE = 14
    ABORT = 15
    ABORT_PDU = 16
    CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


_TABLE = """
event   Sta1  Sta2  Sta3  Sta6  Sta7  Sta8  Sta10  Sta12  Sta13
Evt3    -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-6
Evt4    -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-6
Evt5    AE-5  -     -     -     -     -     -      -      -
Evt6    -     AE-6  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-7
Evt7    -     -     AE-7  -     -     -     -      -      -
Evt8    -     -     AE-8  -     -     -     -      -      -
Evt9    -     -     -     DT-1  -     AR-7  -      -      -
Evt10   -     AA-1  AA-8  DT-2  AR-6  AA-8  AA-8   AA-8   AA-6
Evt11   -     -     -     AR-1  -     -     -      -      -
Evt12   -     AA-1  AA-8  AR-2  AR-8  AA-8  AA-8   AA-8   AA-6
Evt13   -     AA-1  AA-8  AA-8  AR-3  AA-8  AR-10  AA-8   AA-6
Evt14   -     -     -     -     -     AR-4  -      AR-4   -
Evt15   -     -     AA-1  AA-1  AA-1  AA-1  AA-1   AA-1   -
Evt16   -     AA-2  AA-3  AA-3  AA-3  AA-3  AA-3   AA-3   AA-2
Evt17   -     AA-5  AA-4  AA-4  AA-4  AA-4  AA-4   AA-4   AR-5
Evt18   -     AA-2  -     -     -     -     -      -      AA-2
Evt19   -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-7
"""


def _transitions() -> dict[tuple[Event, State], str]:
    head, *rows = (line.split() for line in _TABLE.strip().splitlines())
    states = [State(int(name.removeprefix("Sta"))) for name in head[1:]]
    return {
        (Event(int(name.removeprefix("Evt"))), state): action
        for name, *actions in rows
        for state, action in zip(states, actions, strict=True)
        if action != "-"
    }


TRANSITIONS = _transitions()
"""From what happens in a state to the name of the Standard's action."""
