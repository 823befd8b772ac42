"""PDUs, PDVs and command sets, against pynetdicom's encoders and decoders."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any, cast

import pytest
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RP, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from node.receive.engine import pdu
from node.receive.engine.commands import Command, InvalidCommand, decode, response, text
from node.receive.engine.messages import MessageError, MessageReader, Part, Request
from node.receive.engine.pdu import COMMAND, LAST
from node.statuses import CANNOT_UNDERSTAND, Status
from tests.node.receive.engine import conversations
from tests.node.receive.engine.conversations import CT, echo_rq, element, other_rq, store_rq, us


def fragments(message: Any, primitive: Any) -> list[P_DATA]:
    message.primitive_to_message(primitive)
    return list(message.encode_msg(3, 16_384))


def test_a_request_that_pynetdicom_encodes_is_read() -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 4711, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3.4.5"
    request.DataSet = BytesIO(b"data")

    parts = fragments(dimse_messages.C_STORE_RQ(), request)

    raw = b"".join(data[1:] for _, data in parts[0].presentation_data_value_list)
    command = decode(raw)
    assert command == Command(1, 4711, True, CT.encode() + b"\0", b"1.2.3.4.5\0")
    assert text(command.sop_class_uid) == CT
    assert text(command.sop_instance_uid) == "1.2.3.4.5"


def decoded_by_pynetdicom(message: Any, data: bytes, most: int) -> Any:
    at = 0
    while at < len(data):
        _, length = pdu.header_of(data, at)
        found = P_DATA_TF()
        found.decode(data[at : at + 6 + length])
        assert length <= (most or len(data))
        message.decode_msg(found.to_primitive())
        at += 6 + length
    return message.message_to_primitive()


@pytest.mark.parametrize("most", [0, 16_384, 64, 20], ids=["any", "16 KiB", "64", "20"])
def test_a_response_is_read_by_pynetdicom_whatever_length_the_peer_takes(most: int) -> None:
    command = decode(store_rq("1.2.3.4.5", message_id=9))
    status = Status(CANNOT_UNDERSTAND, "data set cannot be read at (7fe0,0010)", (0x7FE00010,))

    sent = pdu.p_data(3, response(command, status), most)

    answer = decoded_by_pynetdicom(dimse_messages.C_STORE_RSP(), sent, most)
    assert type(answer) is C_STORE
    assert answer.MessageIDBeingRespondedTo == 9
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (CT, "1.2.3.4.5")
    assert (answer.Status, str(answer.ErrorComment)) == (CANNOT_UNDERSTAND, status.comment)
    assert getattr(answer, "OffendingElement") == 0x7FE00010  # noqa: B009 - not in its stubs


def test_an_echo_response_is_the_bytes_pynetdicom_sends() -> None:
    theirs = C_ECHO()
    theirs.MessageIDBeingRespondedTo, theirs.Status = 5, 0
    theirs.AffectedSOPClassUID = conversations.VERIFICATION
    [part] = fragments(dimse_messages.C_ECHO_RSP(), theirs)
    whole = P_DATA_TF()
    whole.from_primitive(part)

    assert pdu.p_data(3, response(decode(echo_rq(5)), Status(0))) == whole.encode()


def test_the_short_pdus_are_read_by_pynetdicom() -> None:
    abort = A_ABORT_RQ()
    abort.decode(pdu.a_abort(2, 6))
    assert (abort.source, abort.reason_diagnostic) == (2, 6)
    reject = A_ASSOCIATE_RJ()
    reject.decode(pdu.a_associate_rj(2, 3, 1))
    assert (reject.result, reject.source, reject.reason_diagnostic) == (2, 3, 1)
    assert A_RELEASE_RQ().encode() == pdu.A_RELEASE_RQ
    assert A_RELEASE_RP().encode() == pdu.A_RELEASE_RP


@pytest.mark.parametrize("field", [0x10, 0x20, 0x21, 0x110, 0x120, 0x130, 0x140, 0x150, 0x100])
def test_a_response_to_another_operation_has_its_field_and_its_message_id(field: int) -> None:
    answer = conversations.elements_of(response(decode(other_rq(field)), Status(0x0211)))
    assert answer[0x0100] == field | 0x8000
    assert (answer[0x0120], answer[0x0900], answer[0x0800]) == (7, 0x0211, 0x0101)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        echo_rq()[:-1],
        echo_rq() + b"\0",
        echo_rq().replace(element(0x0110, us(1)), b""),
        echo_rq().replace(element(0x0800, us(0x0101)), b""),
        other_rq(0x8001),
        other_rq(0x7777),
        store_rq("1.2").replace(b"\0\0\x10\1", b"\1\0\x10\1") + element(0x0110, b"12345678"),
        element(0x0100, b"\xff\xff\xff\xff"),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_is_no_request_is_not_read(data: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode(data)


def test_mutated_command_sets_are_read_or_refused_and_nothing_else() -> None:
    random.seed(3)
    for _ in range(20_000):
        data = bytearray(random.choice((store_rq("1.2.3"), echo_rq(), other_rq(0x20))))
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        del data[random.randrange(len(data)) :: random.choice((1, 1000))]
        try:
            command = decode(data)
        except InvalidCommand:
            continue
        response(command, Status(0))
        text(command.sop_instance_uid)


# -- messages --------------------------------------------------------------------------------


def take(reader: MessageReader, context_id: int, control: int, data: bytes) -> object:
    return reader.take(context_id, control, memoryview(data))


def test_a_command_cut_at_every_byte_is_one_request() -> None:
    whole = store_rq("1.2.3")
    for at in range(1, len(whole)):
        reader = MessageReader({3})
        assert take(reader, 3, COMMAND, whole[:at]) is None
        assert not reader.is_between_messages
        found = take(reader, 3, COMMAND | LAST, whole[at:])
        assert found == Request(3, decode(whole))
        assert take(reader, 3, 0, b"a") is Part.MORE
        assert take(reader, 3, LAST, b"") is Part.LAST
        assert reader.is_between_messages


WHOLE = (3, COMMAND | LAST, store_rq("1.2.3"))


@pytest.mark.parametrize(
    "values",
    [
        [(5, COMMAND | LAST, store_rq("1.2.3"))],
        [(3, 0, b"data")],
        [(3, LAST, b"data")],
        [WHOLE, WHOLE],
        [WHOLE, (1, 0, b"data")],
        [WHOLE, (3, 0, b"data"), (3, COMMAND, b"x")],
        [(3, COMMAND, echo_rq()[:9]), (1, COMMAND | LAST, echo_rq()[9:])],
        [(3, COMMAND | LAST, b"nonsense")],
        [(3, COMMAND | LAST, other_rq(0x8001))],
        [(3, COMMAND, bytes(9000)), (3, COMMAND, bytes(9000))],
    ],
    ids=[
        "context not accepted",
        "data first",
        "last data first",
        "command for data",
        "data by another context",
        "command in data",
        "command by two contexts",
        "no command",
        "a response",
        "command too long",
    ],
)
def test_what_cannot_come_here_is_an_error(values: list[tuple[int, int, bytes]]) -> None:
    reader = MessageReader({1, 3})
    for value in values[:-1]:
        take(reader, *value)
    with pytest.raises(MessageError):
        take(reader, *cast(Any, values[-1]))
