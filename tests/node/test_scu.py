"""The sender's network half: success is what the peer said, never what did not go wrong."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, SegmentationStorage

from node.pacs import Arrival, StandInPACS
from node.scu import Destination, OutgoingObject, SendOutcome, echo, send
from node.statuses import kind_of, meaning_of
from tests.node.receive.test_header import data_set_of
from tests.peers import AE_TITLE, Answer, ScriptedPACS, aborts, ct_image, destination_of, part10
from tests.peers import running as serving
from tests.tools import tool


@pytest.fixture
def files(tmp_path: Path) -> list[OutgoingObject]:
    """Three objects."""
    return [part10(ct_image(), tmp_path / f"{number}.dcm") for number in range(3)]


def answers(*statuses: int | None) -> Answer:
    return lambda number: statuses[number]


def test_objects_arrive_unchanged_in_their_order_over_one_association(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    told: list[tuple[int, str]] = []
    with serving(pacs):
        outcomes = send(
            destination_of(pacs), files, lambda index, outcome: told.append((index, outcome.kind))
        )
    assert outcomes == [SendOutcome("sent", 0, "")] * 3
    assert told == [(0, "sent"), (1, "sent"), (2, "sent")]
    assert pacs.associations == 1
    uids = [file.sop_instance_uid for file in files]
    assert [arrival.sop_instance_uid for arrival in pacs.arrivals] == uids
    for file, arrival in zip(files, pacs.arrivals, strict=True):
        assert data_set_of(arrival.path) == data_set_of(file.path)


def test_an_object_is_told_before_the_next_one_leaves(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    held: list[int] = []
    with serving(pacs):
        send(destination_of(pacs), files, lambda index, outcome: held.append(len(pacs.arrivals)))
    assert held == [1, 2, 3]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, "sent"),
        (0xB000, "sent"),
        (0xB006, "sent"),
        (0xB007, "sent"),
        (0x0111, "sent"),
        (0xA700, "retry"),
        (0xA7FF, "retry"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0xC211, "refused"),
        (0x0122, "refused"),
        (0x0124, "refused"),
        (0x0117, "refused"),
        (0xFFFF, "refused"),
    ],
)
def test_what_a_status_means_for_the_object(
    tmp_path: Path, files: list[OutgoingObject], status: int, kind: str
) -> None:
    with serving(ScriptedPACS(tmp_path / "pacs", answers(status, None, None))) as pacs:
        outcomes = send(destination_of(pacs), files)
    # After one that is to be sent later nothing more goes: a report never overtakes its SEG.
    rest = "retry" if kind == "retry" else "sent"
    assert [outcome.kind for outcome in outcomes] == [kind, rest, rest]
    assert outcomes[0].status == status
    if status:
        assert f"0x{status:04X}" in outcomes[0].sentence
        assert files[0].sop_instance_uid in outcomes[0].sentence
    assert kind_of(status) == kind
    assert meaning_of(status)


def test_an_abort_in_the_middle_leaves_the_rest_for_later(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    with serving(ScriptedPACS(tmp_path / "pacs", aborts(1))) as pacs:
        outcomes = send(destination_of(pacs), files)
    assert [outcome.kind for outcome in outcomes] == ["sent", "retry", "retry"]
    assert [outcome.status for outcome in outcomes] == [0, None, None]


def test_a_destination_that_never_answers_is_tried_later(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    pacs._answer = pacs.hangs
    with serving(pacs):
        began = time.monotonic()
        outcomes = send(destination_of(pacs, response_seconds=1.0), files)
        assert time.monotonic() - began < 20
        pacs.go_on.set()
    assert [outcome.kind for outcome in outcomes] == ["retry"] * 3
    assert "did not answer" in outcomes[0].sentence


def test_a_class_that_is_not_accepted_is_refused_and_the_others_are_sent(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    seg = part10(ct_image(SOPClassUID=SegmentationStorage), tmp_path / "seg.dcm")
    with serving(ScriptedPACS(tmp_path / "pacs", sop_classes=[CTImageStorage])) as pacs:
        outcomes = send(destination_of(pacs), [seg, *files])
    assert [outcome.kind for outcome in outcomes] == ["refused", "sent", "sent", "sent"]
    assert SegmentationStorage in outcomes[0].sentence


def test_a_destination_that_accepts_nothing_refuses(tmp_path: Path) -> None:
    seg = part10(ct_image(SOPClassUID=SegmentationStorage), tmp_path / "seg.dcm")
    with serving(ScriptedPACS(tmp_path / "pacs", sop_classes=[CTImageStorage])) as pacs:
        (outcome,) = send(destination_of(pacs), [seg])
    assert outcome.kind == "refused"
    assert "accepted no presentation context" in outcome.sentence


@pytest.mark.parametrize(
    ("rejection", "kind"),
    [((1, 1, 3), "refused"), ((2, 3, 2), "retry"), ((2, 3, 1), "retry"), ((1, 1, 7), "refused")],
    ids=["unknown_ae", "limit", "congestion", "wrong_ae"],
)
def test_a_rejected_association_says_why(
    tmp_path: Path, files: list[OutgoingObject], rejection: tuple[int, int, int], kind: str
) -> None:
    with serving(ScriptedPACS(tmp_path / "pacs", rejection=rejection)) as pacs:
        outcomes = send(destination_of(pacs), files)
    assert [outcome.kind for outcome in outcomes] == [kind] * 3
    assert "rejected the association" in outcomes[0].sentence


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_refused_connection_is_tried_later(files: list[OutgoingObject]) -> None:
    outcomes = send(Destination("127.0.0.1", closed_port(), "PACS", AE_TITLE), files)
    assert [outcome.kind for outcome in outcomes] == ["retry"] * 3
    assert "cannot be reached" in outcomes[0].sentence


def test_silence_instead_of_an_association_is_tried_later(
    files: list[OutgoingObject], silent_port: int
) -> None:
    there = Destination("127.0.0.1", silent_port, "PACS", AE_TITLE, associate_seconds=1.0)
    outcomes = send(there, files)
    assert [outcome.kind for outcome in outcomes] == ["retry"] * 3


@contextmanager
def stalling(port: int, after_bytes: int) -> Iterator[int]:
    """A way to a port that stops taking data after so many bytes; its own port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def carry() -> None:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            back = threading.Thread(target=give_back, args=(far, near))
            back.start()
            left = after_bytes
            while left > 0 and (data := near.recv(min(left, 4096))):
                far.sendall(data)
                left -= len(data)
            over.wait(60)
            for end in (near, far):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()
            near.close()
            far.close()

        def give_back(far: socket.socket, near: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := far.recv(4096):
                    near.sendall(data)

        carrier = threading.Thread(target=carry)
        carrier.start()
        yield listener.getsockname()[1]
        over.set()
        carrier.join()


def test_a_destination_that_stops_reading_does_not_hold_the_sender(tmp_path: Path) -> None:
    large = part10(ct_image(PixelData=bytes(30_000_000)), tmp_path / "large.dcm")
    with (
        serving(ScriptedPACS(tmp_path / "pacs")) as pacs,
        stalling(pacs.port, 100_000) as port,
    ):
        there = Destination("127.0.0.1", port, "PACS", AE_TITLE, response_seconds=1.0)
        began = time.monotonic()
        (outcome,) = send(there, [large])
        assert time.monotonic() - began < 30
    assert outcome.kind == "retry"


def test_a_host_name_that_nobody_knows_is_tried_later(files: list[OutgoingObject]) -> None:
    outcomes = send(Destination("no-such-host.invalid", 104, "PACS", AE_TITLE), files)
    assert [outcome.kind for outcome in outcomes] == ["retry"] * 3


def test_a_missing_file_is_tried_later_with_what_comes_after_it(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    files[1].path.unlink()
    with serving(ScriptedPACS(tmp_path / "pacs")) as pacs:
        outcomes = send(destination_of(pacs), files)
    assert [outcome.kind for outcome in outcomes] == ["sent", "retry", "retry"]


def test_a_file_that_is_not_the_named_object_is_never_sent(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    files[1].path.write_bytes(files[2].path.read_bytes())
    with serving(ScriptedPACS(tmp_path / "pacs")) as pacs:
        outcomes = send(destination_of(pacs), files)
    assert [outcome.kind for outcome in outcomes] == ["sent", "refused", "sent"]
    arrived = [arrival.sop_instance_uid for arrival in pacs.arrivals]
    assert arrived == [files[0].sop_instance_uid, files[2].sop_instance_uid]


def test_nothing_to_send_opens_no_association(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    with serving(pacs):
        assert send(destination_of(pacs), []) == []
    assert pacs.associations == 0


def test_echo_says_whether_a_destination_is_there(tmp_path: Path, silent_port: int) -> None:
    with serving(ScriptedPACS(tmp_path / "pacs")) as pacs:
        assert echo(destination_of(pacs)) == SendOutcome("sent", 0, "")
    with serving(ScriptedPACS(tmp_path / "other", rejection=(1, 1, 3))) as pacs:
        assert echo(destination_of(pacs)).kind == "refused"
    assert echo(Destination("127.0.0.1", closed_port(), "PACS", AE_TITLE)).kind == "retry"
    silent = Destination("127.0.0.1", silent_port, "PACS", AE_TITLE, associate_seconds=1.0)
    assert echo(silent).kind == "retry"


def test_dcmtk_storescp_gets_the_same_bytes(tmp_path: Path, files: list[OutgoingObject]) -> None:
    folder = tmp_path / "dcmtk"
    folder.mkdir()
    port = closed_port()
    command = [str(tool("storescp")), "-od", str(folder), "+B", "-aet", "PACS", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        there = Destination("127.0.0.1", port, "PACS", AE_TITLE)
        deadline = time.monotonic() + 20
        while echo(there).kind != "sent":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        outcomes = send(there, files)
    finally:
        server.terminate()
        server.wait()
    assert [outcome.kind for outcome in outcomes] == ["sent"] * 3
    received = {hashlib.sha256(data_set_of(path)[1]).digest() for path in folder.iterdir()}
    assert received == {hashlib.sha256(data_set_of(file.path)[1]).digest() for file in files}


def test_the_stand_in_pacs_names_files_by_digest_and_tells(
    tmp_path: Path, files: list[OutgoingObject]
) -> None:
    told: list[Arrival] = []
    arrived = threading.Event()

    def on_arrival(arrival: Arrival) -> None:
        told.append(arrival)
        arrived.set()

    with serving(StandInPACS(tmp_path / "pacs", on_arrival=on_arrival)) as pacs:
        send(destination_of(pacs), files[:1])
    assert arrived.wait(10)
    assert [arrival.path for arrival in told] == list((tmp_path / "pacs").iterdir())
    assert files[0].sop_instance_uid not in told[0].path.name
