"""Five hundred associations of fifty peers at once: caps and memory hold, nothing is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network

import pytest

from benchmarks.acknowledged import CT, EXPLICIT_VR, answer_of, generated, limit_waiting
from benchmarks.sender import associate_rq, data_pdus, receive, release, store_rq
from node.receive.access import PeerRule
from tests.durability.memory import forget_peak, peak_bytes
from tests.durability.proof import assert_all_held
from tests.durability.receiver_process import ReceiverProcess, Setup

PEERS, EACH = 50, 10
MOST_OF_ONE = 4
MOST_BYTES_EACH = 4 << 20
MOST_PDU = 16_384
LOCAL_LIMIT_EXCEEDED = bytes((0, 2, 3, 2))
"""Reserved; rejected transient; by the service provider (presentation); local limit exceeded."""


def address_of(peer: int) -> str:
    return f"127.0.1.{peer + 1}"


def rule_of(peer: int) -> PeerRule:
    network = ip_network(f"{address_of(peer)}/32")
    return PeerRule(f"peer{peer}", (f"PEER{peer}",), (network,), MOST_OF_ONE)


def opened(port: int, peer: int, stack: ExitStack) -> tuple[socket.socket, int, bytes]:
    """Ask for an association as a peer does; the connection, and the answer."""
    connection = socket.create_connection(("127.0.0.1", port), 60, (address_of(peer), 0))
    stack.callback(connection.close)
    limit_waiting(connection)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(associate_rq({1: (CT, EXPLICIT_VR)}, f"PEER{peer}".encode()))
    kind, body = receive(connection)
    if kind == 3:
        connection.close()  # as whoever is rejected does
    return connection, kind, body


def halves(number: int) -> Iterator[bytes]:
    """A C-STORE request, in two parts that do not end where a PDU ends."""
    one = generated(number)
    command = data_pdus(1, store_rq(one, 1), 1, MOST_PDU)
    whole = command + data_pdus(1, one.data, 0, MOST_PDU)
    yield whole[: len(whole) // 2]
    yield whole[len(whole) // 2 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "expected"),
    [(1000, PEERS * MOST_OF_ONE), (150, 150)],
    ids=["for each peer", "in all"],
)
def test_five_hundred_associations_of_fifty_peers_keep_caps_and_memory(
    setup: Setup, most: int, expected: int
) -> None:
    setup = replace(setup, peers=tuple(map(rule_of, range(PEERS))), max_associations=most)
    with ReceiverProcess(setup) as receiver, ExitStack() as stack, ThreadPoolExecutor(25) as pool:
        forget_peak(receiver.pid)
        before = peak_bytes(receiver.pid)
        asked = [peer for _ in range(EACH) for peer in range(PEERS)]
        answers = list(pool.map(lambda peer: opened(receiver.port, peer, stack), asked))
        accepted = [
            (peer, connection)
            for peer, (connection, kind, _) in zip(asked, answers, strict=True)
            if kind == 2
        ]

        parts = [halves(number) for number in range(len(accepted))]
        for (_, connection), part in zip(accepted, parts, strict=True):
            connection.sendall(next(part))
        growth = peak_bytes(receiver.pid) - before
        for (_, connection), part in zip(accepted, parts, strict=True):
            connection.sendall(next(part))
        statuses = [answer_of(connection).status for _, connection in accepted]
        for _, connection in accepted:
            release(connection)

    rejected = [body for _, kind, body in answers if kind == 3]
    of_each = [sum(other == peer for other, _ in accepted) for peer in range(PEERS)]
    assert len(accepted) == expected
    assert max(of_each) <= MOST_OF_ONE
    assert len(rejected) == PEERS * EACH - expected
    assert set(rejected) == {LOCAL_LIMIT_EXCEEDED}
    assert statuses == [0] * expected
    assert growth <= MOST_BYTES_EACH * expected
    assert_all_held(setup, range(expected))
    print(f"{expected} associations at once: {growth / expected / 1024:.0f} KiB each")
