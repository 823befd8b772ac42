"""The upper layer without sockets: PS3.8 table 9-10, one cell after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.receive.engine.pdu import AbortReason, AbortSource, a_associate_rj
from node.receive.engine.read_buffer import ReadBuffer
from node.receive.engine.states import TRANSITIONS, Event, State
from node.receive.engine.upper_layer import (
    Aborted,
    Arrived,
    Indication,
    Limits,
    ReleaseAsked,
    Released,
    Requested,
    UpperLayer,
)
from tests.node.receive.engine.conversations import (
    ABORT,
    RELEASE_RP,
    RELEASE_RQ,
    associate_rq,
    echo,
    p_data,
    pdu,
    pdus_of,
    pdv,
    store,
)

LIMITS = Limits()
ACCEPT = pdu(2, b"accepted")
REJECT = a_associate_rj(1, 1, 3)


class Talk:
    """An upper layer, a buffer, and a clock that stands still until it is moved."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 1000.0
        self.layer = UpperLayer(limits, self.now)
        self.buffer = ReadBuffer(1 << 19)

    def hear(self, data: bytes) -> list[Indication]:
        """Let bytes arrive; what they mean."""
        self.buffer.make_room()
        self.buffer.put(data)
        found = []
        while (indication := self.layer.process(self.buffer, self.now)) is not None:
            found.append(indication)
        return found

    def said(self) -> list[tuple[int, bytes]]:
        """PDUs that were sent since."""
        return pdus_of(self.layer.take_output())

    def at(self, seconds: float) -> Indication | None:
        """Let time pass."""
        self.now += seconds
        return self.layer.expire(self.now)

    def is_over(self) -> bool:
        """Whether the connection is to be closed."""
        return self.layer.is_over


def in_state(state: State) -> Talk:
    """Bring an acceptor into a state, as a conversation does."""
    talk = Talk()
    if state is State.IDLE:
        talk.layer.closed(talk.now)
    if state in (State.IDLE, State.AWAITING_REQUEST):
        return talk
    talk.hear(associate_rq())
    if state is State.AWAITING_CLOSE:
        talk.layer.reject(REJECT, talk.now)
    elif state is not State.DECIDING:
        talk.layer.accept(ACCEPT)
    if state is State.RELEASING:
        talk.hear(RELEASE_RQ)
    if state in (
        State.AWAITING_RELEASE_REPLY,
        State.COLLISION_AWAITING_REPLY,
        State.COLLISION_RELEASING,
    ):
        talk.layer.release()
    if state in (State.COLLISION_AWAITING_REPLY, State.COLLISION_RELEASING):
        talk.hear(RELEASE_RQ)
    if state is State.COLLISION_RELEASING:
        talk.hear(RELEASE_RP)
    talk.layer.take_output()
    assert talk.layer.state is state
    return talk


HAPPENS: dict[Event, Callable[[Talk], object]] = {
    Event.ACCEPT_PDU: lambda talk: talk.hear(pdu(2, bytes(80))),
    Event.REJECT_PDU: lambda talk: talk.hear(pdu(3, bytes(4))),
    Event.REQUEST_PDU: lambda talk: talk.hear(associate_rq()),
    Event.ACCEPT: lambda talk: talk.layer.accept(ACCEPT),
    Event.REJECT: lambda talk: talk.layer.reject(REJECT, talk.now),
    Event.SEND_DATA: lambda talk: talk.layer.send(echo()),
    Event.DATA_PDU: lambda talk: talk.hear(echo()),
    Event.RELEASE: lambda talk: talk.layer.release(),
    Event.RELEASE_REQUEST_PDU: lambda talk: talk.hear(RELEASE_RQ),
    Event.RELEASE_REPLY_PDU: lambda talk: talk.hear(RELEASE_RP),
    Event.ANSWER_RELEASE: lambda talk: talk.layer.answer_release(talk.now),
    Event.ABORT: lambda talk: talk.layer.abort(talk.now),
    Event.ABORT_PDU: lambda talk: talk.hear(ABORT),
    Event.CLOSED: lambda talk: talk.layer.closed(talk.now),
    Event.ARTIM_EXPIRED: lambda talk: talk.at(11),
    Event.INVALID_PDU: lambda talk: talk.hear(pdu(9, b"what?")),
}

# From the text of PS3.8 tables 9-6 to 9-9: the next state, and the types of PDUs that are sent.
NEXT: dict[str, tuple[State | None, list[int]]] = {
    "AE-6": (State.DECIDING, []),
    "AE-7": (State.ESTABLISHED, [2]),
    "AE-8": (State.AWAITING_CLOSE, [3]),
    "DT-1": (State.ESTABLISHED, [4]),
    "DT-2": (State.ESTABLISHED, []),
    "AR-1": (State.AWAITING_RELEASE_REPLY, [5]),
    "AR-2": (State.RELEASING, []),
    "AR-3": (State.IDLE, []),
    "AR-4": (State.AWAITING_CLOSE, [6]),
    "AR-5": (State.IDLE, []),
    "AR-6": (State.AWAITING_RELEASE_REPLY, []),
    "AR-7": (State.RELEASING, [4]),
    "AR-8": (State.COLLISION_AWAITING_REPLY, []),
    "AR-10": (State.COLLISION_RELEASING, []),
    "AA-1": (State.AWAITING_CLOSE, [7]),
    "AA-2": (State.IDLE, []),
    "AA-3": (State.IDLE, []),
    "AA-4": (State.IDLE, []),
    "AA-5": (State.IDLE, []),
    "AA-6": (State.AWAITING_CLOSE, []),
    "AA-7": (State.AWAITING_CLOSE, [7]),
    "AA-8": (State.AWAITING_CLOSE, [7]),
}
CELLS = [cell for cell in TRANSITIONS if cell[0] is not Event.CONNECTED]


@pytest.mark.parametrize(
    ("event", "state"), CELLS, ids=[f"Evt{event}-Sta{state}" for event, state in CELLS]
)
def test_every_cell_of_the_table_does_what_its_action_says(event: Event, state: State) -> None:
    talk = in_state(state)

    HAPPENS[event](talk)

    following, sent = NEXT[TRANSITIONS[event, state]]
    assert talk.layer.state is following
    assert [kind for kind, _ in talk.said()] == sent


@pytest.mark.parametrize("state", [s for s in State if (Event.RELEASE, s) not in TRANSITIONS])
def test_what_has_no_cell_cannot_be_asked_of_it(state: State) -> None:
    with pytest.raises(ValueError, match="RELEASE cannot happen in state"):
        in_state(state).layer.release()


CONVERSATION = (
    associate_rq()
    + echo()
    + p_data(pdv(3, 3, b"part one"), pdv(3, 0, b"part two"), pdv(3, 2, b"part three"))
    + store("1.2.3", b"x" * 50, fragment=7)
    + RELEASE_RQ
)


def heard(chunks: list[bytes]) -> tuple[list[object], list[tuple[int, bytes]]]:
    """What an acceptor understands of a conversation, and what it says."""
    talk = Talk()
    found: list[object] = []
    for chunk in chunks:
        talk.buffer.make_room()
        talk.buffer.put(chunk)
        while (indication := talk.layer.process(talk.buffer, talk.now)) is not None:
            match indication:
                case Requested():
                    talk.layer.accept(ACCEPT)
                    found.append(indication)
                case Arrived(values):
                    found += [(cx, control, bytes(data)) for cx, control, data in values]
                case ReleaseAsked():
                    talk.layer.answer_release(talk.now)
                    found.append(indication)
                case _:
                    raise AssertionError(indication)
    return found, talk.said()


def test_a_conversation_cut_in_two_at_every_byte_is_understood_the_same() -> None:
    whole = heard([CONVERSATION])
    assert [kind for kind, _ in whole[1]] == [2, 6]
    assert len(whole[0]) == 1 + 1 + 3 + 9 + 1
    for at in range(1, len(CONVERSATION)):
        assert heard([CONVERSATION[:at], CONVERSATION[at:]]) == whole


def test_a_conversation_that_comes_byte_by_byte_is_understood_the_same() -> None:
    single = [CONVERSATION[at : at + 1] for at in range(len(CONVERSATION))]
    assert heard(single) == heard([CONVERSATION])


def starts() -> list[int]:
    """Where the PDUs of the conversation begin."""
    found = [0]
    for _, body in pdus_of(CONVERSATION):
        found.append(found[-1] + 6 + len(body))
    return found


def test_a_peer_that_is_gone_after_any_byte_leaves_nothing_behind() -> None:
    whole = starts()
    for at in range(len(CONVERSATION)):
        talk = Talk()
        talk.buffer.put(CONVERSATION[:at])
        while (indication := talk.layer.process(talk.buffer, talk.now)) is not None:
            if isinstance(indication, Requested):
                talk.layer.accept(ACCEPT)
        assert not talk.is_over()
        if at in whole:
            talk.hear(ABORT)
        else:
            talk.layer.closed(talk.now)
        assert talk.is_over()
        assert talk.layer.process(talk.buffer, talk.now) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        pdv(3, 3, b"abc")[:-1],
        pdv(3, 3, b"abc") + b"\0",
        b"\0\0\0\1\3",
        b"\0\0\0\0\3\3",
        b"\xff\xff\xff\xff\3\3abc",
        pdv(3, 3, b"abc") + b"\0\0\0\xff\3\3abc",
    ],
    ids=["none", "one byte", "cut", "a byte more", "too short", "zero", "4 GiB", "second too long"],
)
def test_a_wrong_length_in_a_data_pdu_aborts_as_an_invalid_parameter(body: bytes) -> None:
    talk = in_state(State.ESTABLISHED)

    found = talk.hear(pdu(4, body))

    reason = AbortReason.INVALID_PARAMETER
    assert found == [Aborted(AbortSource.SERVICE_PROVIDER, reason, by_peer=False)]
    assert talk.said() == [(7, bytes([0, 0, 2, 6]))]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pdu(4, bytes(10))[:2] + b"\xff\xff\xff\xff", AbortReason.INVALID_PARAMETER),
        (b"\x04\0" + (131_073).to_bytes(4, "big"), AbortReason.INVALID_PARAMETER),
        (b"\x05\0\0\0\0\x05", AbortReason.INVALID_PARAMETER),
        (b"\x07\0\0\0\0\0", AbortReason.INVALID_PARAMETER),
        (b"\x00\0\0\0\0\x04", AbortReason.UNRECOGNIZED_PDU),
        (b"\x08\0\0\0\0\x04", AbortReason.UNRECOGNIZED_PDU),
        (b"\x02\0\0\0\0\x04\0\0\0\0", AbortReason.UNEXPECTED_PDU),
    ],
    ids=["4 GiB", "one byte too many", "release", "abort", "type 0", "type 8", "accept"],
)
def test_the_abort_says_why(data: bytes, reason: AbortReason) -> None:
    talk = in_state(State.ESTABLISHED)
    talk.hear(data)
    assert talk.said() == [(7, bytes([0, 0, 2, reason]))]


def test_after_a_header_that_was_refused_nothing_is_understood_any_more() -> None:
    talk = in_state(State.ESTABLISHED)
    talk.hear(b"\x04\0\xff\xff\xff\xff")
    talk.said()

    assert talk.hear(ABORT + associate_rq() * 10) == []

    assert talk.said() == []
    assert talk.buffer.is_empty
    assert talk.layer.state is State.AWAITING_CLOSE


def test_a_release_collision_ends_with_a_release_on_both_sides() -> None:
    talk = in_state(State.ESTABLISHED)
    talk.layer.release()
    assert talk.said() == [(5, bytes(4))]

    assert talk.hear(RELEASE_RQ) == [ReleaseAsked(is_collision=True)]
    assert talk.said() == []
    assert talk.hear(RELEASE_RP) == [Released()]
    talk.layer.answer_release(talk.now)

    assert talk.said() == [(6, bytes(4))]
    assert talk.layer.state is State.AWAITING_CLOSE


def test_data_that_was_on_its_way_when_we_asked_for_release_still_arrives() -> None:
    talk = in_state(State.AWAITING_RELEASE_REPLY)
    [indication] = talk.hear(echo())
    assert isinstance(indication, Arrived)
    assert talk.hear(RELEASE_RP) == [Released()]
    assert talk.layer.is_over


def test_an_abort_of_the_peer_is_told_with_its_source_and_reason() -> None:
    talk = in_state(State.ESTABLISHED)
    assert talk.hear(pdu(7, bytes([0, 0, 2, 5]))) == [Aborted(2, 5, by_peer=True)]
    assert talk.layer.is_over


# -- time ------------------------------------------------------------------------------------


def test_a_connection_that_asks_nothing_is_closed_when_artim_expires() -> None:
    talk = Talk()
    assert talk.layer.deadline == talk.now + 10
    assert talk.at(9.99) is None
    assert not talk.is_over()
    talk.at(0.02)
    assert talk.is_over()
    assert talk.said() == []


def test_a_request_that_drips_is_closed_when_artim_expires() -> None:
    talk = Talk()
    for byte in associate_rq()[:9]:
        talk.hear(bytes([byte]))
        talk.at(1)
        assert not talk.is_over()
    talk.hear(b"\0")
    talk.at(1)
    assert talk.is_over()


def test_a_peer_that_does_not_close_after_a_rejection_is_closed() -> None:
    talk = in_state(State.AWAITING_CLOSE)
    talk.at(1.9)
    assert not talk.is_over()
    talk.at(0.2)
    assert talk.is_over()


def test_a_pdu_that_drips_is_aborted_though_bytes_keep_coming() -> None:
    talk = in_state(State.ESTABLISHED)
    for byte in echo()[:19]:
        talk.hear(bytes([byte]))
        assert talk.at(1) is None
    talk.hear(b"\0")
    found = talk.at(1)
    assert isinstance(found, Aborted)
    assert talk.said() == [(7, bytes([0, 0, 2, 0]))]


def test_a_pdu_that_arrives_starts_the_time_of_the_next_anew() -> None:
    talk = in_state(State.ESTABLISHED)
    for _ in range(5):
        talk.hear(echo()[:20])
        talk.at(15)
        talk.hear(echo()[20:])
        assert talk.layer.is_established


def test_a_silent_association_is_aborted_and_a_talking_one_is_not() -> None:
    talk = in_state(State.ESTABLISHED)
    for _ in range(3):
        talk.at(59)
        talk.hear(echo())
    assert talk.layer.is_established
    assert isinstance(talk.at(60), Aborted)


def test_an_association_ends_after_its_longest_time_whatever_it_does() -> None:
    talk = Talk(Limits(lifetime_seconds=100))
    talk.hear(associate_rq())
    talk.layer.accept(ACCEPT)
    for _ in range(9):
        assert talk.at(11) is None
        talk.hear(echo())
    assert isinstance(talk.at(1), Aborted)


def test_the_deadline_is_the_first_of_all() -> None:
    talk = in_state(State.ESTABLISHED)
    assert talk.layer.deadline == talk.now + 60
    talk.hear(echo()[:5])
    assert talk.layer.deadline == talk.now + 20
    talk.hear(echo()[5:])
    assert talk.layer.deadline == talk.now + 60
