"""TLS with DCMTK, openssl and pynetdicom as peers: who gets in, and who holds up nobody."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE as CallingAE
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from node.receive.access import PeerRule, User
from node.receive.settings import TLSSettings
from node.receive.tls import InvalidTLS, TLSFiles, end_dates, server_context
from tests.certificates import Authority, Issued, authority
from tests.node.receive.test_header import data_set_of
from tests.node.receive.test_receiver import eventually
from tests.peers import (
    AE_TITLE,
    LOOPBACK,
    MODALITY,
    RunningReceiver,
    ct_image,
    digest_of,
    encoded,
    part10,
    running_receiver,
    send_bytes,
)
from tests.tools import tool


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(ca: Authority) -> Issued:
    return ca.issue("node")


@pytest.fixture(scope="module")
def scanner(ca: Authority) -> Issued:
    return ca.issue("scanner")


@contextmanager
def tls_receiver(
    folder: Path, ca: Authority, ours: Issued, *peers: PeerRule, **values: Any
) -> Iterator[RunningReceiver]:
    """Run a receiver with a port for TLS beside the plain one."""
    tls = TLSSettings(ca.files(ours), "127.0.0.1", 0)
    chosen = peers or (PeerRule("modality", (MODALITY,), (LOOPBACK,), needs_tls=True),)
    with running_receiver(folder, tls=tls, peers=chosen, **values) as node:
        yield node


def dcmtk(
    program: str,
    port: int,
    ca: Authority,
    client: Issued | None,
    *more: str | Path,
    profile: str = "+py",
    calling: str = MODALITY,
) -> int:
    """Exit status of a DCMTK program over TLS."""
    shown: list[str | Path] = ["+tla"]
    if client is not None:
        shown = ["+tls", client.key, client.certificate]
    command = [tool(program), *shown, "+cf", ca.certificate, profile, "-aet", calling]
    command += ["-aec", AE_TITLE, "127.0.0.1", str(port), *more]
    return subprocess.run(
        list(map(str, command)), capture_output=True, check=False, timeout=60
    ).returncode


@contextmanager
def associated(
    port: int, context: ssl.SSLContext, calling: str = MODALITY, **values: Any
) -> Iterator[Any]:
    """Open an association over TLS with pynetdicom."""
    ae = CallingAE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
    ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
    assoc = ae.associate("127.0.0.1", port, ae_title=AE_TITLE, tls_args=(context, "node"), **values)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def client_context(ca: Authority, client: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca.certificate)
    context.check_hostname = False
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def test_a_modality_with_a_certificate_stores_over_tls(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    file = part10(ct_image(PixelData=os.urandom(600_000)), tmp_path / "ct.dcm")
    with tls_receiver(tmp_path, ca, ours) as node:
        assert dcmtk("storescu", node.receiver.tls_port, ca, scanner, file.path) == 0
        [stored] = node.stored_paths()
        assert data_set_of(stored)[1] == data_set_of(file.path)[1]


@pytest.mark.parametrize(
    ("profile", "is_let_in"), [("+py", True), ("+px", True), ("+pz", True), ("+pa", False)]
)
def test_profiles_of_bcp_195_are_served_and_older_ones_not(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued, profile: str, is_let_in: bool
) -> None:
    with tls_receiver(tmp_path, ca, ours) as node:
        status = dcmtk("echoscu", node.receiver.tls_port, ca, scanner, profile=profile)
        assert (status == 0) == is_let_in


def test_no_certificate_a_foreign_one_and_no_tls_are_refused(
    tmp_path: Path, ca: Authority, ours: Issued
) -> None:
    (tmp_path / "other").mkdir()
    stranger = authority(tmp_path / "other").issue("scanner")
    with tls_receiver(tmp_path, ca, ours) as node:
        port = node.receiver.tls_port
        assert dcmtk("echoscu", port, ca, None) != 0
        assert dcmtk("echoscu", port, ca, stranger) != 0
        plain = [tool("echoscu"), "-aet", MODALITY, "-aec", AE_TITLE, "-ta", "5", "127.0.0.1"]
        assert subprocess.run([*plain, str(port)], check=False, capture_output=True).returncode
        # And who must come over TLS is not let in by the plain port.
        done = subprocess.run([*plain, str(node.port)], check=False, capture_output=True)
        assert done.returncode
        assert [facts["reason"] for facts in node.named("association.rejected")] == [
            "calling_ae_title_not_recognized"
        ]
        assert not node.named("association.accepted")


def test_versions_before_1_2_are_refused(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    with tls_receiver(tmp_path, ca, ours) as node:
        for version, is_let_in in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            done = subprocess.run(
                [
                    tool("openssl"),
                    "s_client",
                    version,
                    "-cipher",
                    "ALL:@SECLEVEL=0",
                    "-cert",
                    scanner.certificate,
                    "-key",
                    scanner.key,
                    "-CAfile",
                    ca.certificate,
                    "-connect",
                    f"127.0.0.1:{node.receiver.tls_port}",
                ],
                input=b"",
                capture_output=True,
                check=False,
                timeout=30,
            )
            assert (b"no peer certificate available" not in done.stdout) == is_let_in, version


@pytest.mark.parametrize(
    "demand",
    [
        {"certificate_names": ("ct-2",)},
        {"fingerprints": ("0" * 64,)},
        {"networks": (ip_network("10.0.0.0/8"), ip_network("127.0.0.9/32"))},
    ],
    ids=["name", "fingerprint", "network"],
)
def test_title_address_and_certificate_must_be_of_one_peer(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued, demand: dict[str, Any]
) -> None:
    """The certificate is good and the AE title known, but they are not of the same peer."""
    first = PeerRule("ct-1", ("CT1",), (LOOPBACK,), certificate_names=("scanner",))
    second = replace(PeerRule("ct-2", ("CT2",), (LOOPBACK,)), **demand)
    with tls_receiver(tmp_path, ca, ours, first, second) as node:
        port = node.receiver.tls_port
        assert dcmtk("echoscu", port, ca, scanner, calling="CT1") == 0
        assert dcmtk("echoscu", port, ca, scanner, calling="CT2") != 0
        assert [facts["peer"] for facts in node.named("association.accepted")] == ["ct-1"]


def test_a_fingerprint_lets_its_certificate_in(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    peer = PeerRule("ct", (MODALITY,), (LOOPBACK,), fingerprints=(scanner.fingerprint,))
    with tls_receiver(tmp_path, ca, ours, peer) as node:
        assert dcmtk("echoscu", node.receiver.tls_port, ca, scanner) == 0


def test_a_peer_may_be_let_in_without_a_certificate(
    tmp_path: Path, ca: Authority, ours: Issued
) -> None:
    open_one = PeerRule("old", ("OLD",), (LOOPBACK,), needs_tls=True, needs_certificate=False)
    strict = PeerRule("new", ("NEW",), (LOOPBACK,), needs_tls=True)
    with tls_receiver(tmp_path, ca, ours, open_one, strict) as node:
        port = node.receiver.tls_port
        assert dcmtk("echoscu", port, ca, None, calling="OLD") == 0
        assert dcmtk("echoscu", port, ca, None, calling="NEW") != 0


def test_plain_may_be_off(tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued) -> None:
    with tls_receiver(tmp_path, ca, ours, is_plain=False) as node:
        assert dcmtk("echoscu", node.receiver.tls_port, ca, scanner) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), 2)


def test_silent_and_dripping_clients_hold_up_nobody(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    hello = bytes.fromhex("16030100c8010000c40303")
    with tls_receiver(tmp_path, ca, ours, guard={"handshake_seconds": 2.0}) as node:
        port = node.receiver.tls_port
        strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
        try:
            for number in range(len(hello)):
                for stranger in strangers[6:]:
                    stranger.sendall(hello[number : number + 1])
                if number % 4 == 0:
                    assert dcmtk("echoscu", port, ca, scanner) == 0
                time.sleep(0.3)
            # The limit is one for the whole handshake: who drips is cut all the same.
            for stranger in strangers:
                stranger.settimeout(20)
                assert stranger.recv(100) in (b"", b"\x15\x03\x01\x00\x02\x02\x32")
        except ConnectionError:
            pass
        finally:
            for stranger in strangers:
                stranger.close()
        eventually(lambda: node.receiver._listeners[1].live == 0)
        assert dcmtk("echoscu", port, ca, scanner) == 0


def test_connections_that_are_reset_before_their_turn_are_told_of_as_refused(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    with tls_receiver(tmp_path, ca, ours) as node:
        port = node.receiver.tls_port
        for _ in range(30):
            stranger = socket.create_connection(("127.0.0.1", port))
            stranger.sendall(b"\x16\x03\x01")
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stranger.close()
        eventually(lambda: len(node.named("connection.refused")) == 30)
        assert dcmtk("echoscu", port, ca, scanner) == 0


def test_silent_clients_make_room_before_their_time_is_over(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    with tls_receiver(tmp_path, ca, ours, guard={"handshake_seconds": 120.0}) as node:
        port = node.receiver.tls_port
        strangers = [socket.create_connection(("127.0.0.1", port))]
        try:
            time.sleep(0.2)  # the others come later, whoever is accepted first
            strangers += [socket.create_connection(("127.0.0.1", port)) for _ in range(59)]
            time.sleep(1.5)  # nobody is young any more
            assert dcmtk("echoscu", port, ca, scanner) == 0
            strangers[0].settimeout(20)
            with suppress(ConnectionError):
                assert strangers[0].recv(1) == b"", "who waited longest was let go"
        finally:
            for stranger in strangers:
                stranger.close()


def test_new_certificates_are_shown_to_new_connections_and_old_ones_go_on(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    renewed = ca.issue("node-renewed")
    ds = ct_image()
    with tls_receiver(tmp_path, ca, ours) as node:
        port = node.receiver.tls_port
        with associated(port, client_context(ca, scanner)) as assoc:
            settings = node.receiver.settings
            tls = TLSSettings(ca.files(renewed), "127.0.0.1", port)
            node.receiver.reconfigure(replace(settings, tls=tls))
            assert subject_of(port, ca, scanner) == "node-renewed"

            missing = TLSFiles(tmp_path / "missing", renewed.key, ca.certificate)
            node.receiver.reconfigure(replace(settings, tls=replace(tls, files=missing)))
            assert subject_of(port, ca, scanner) == "node-renewed"

            assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == 0
        [stored] = node.stored_paths()
        assert digest_of(data_set_of(stored)[1]) == digest_of(encoded(ds))


def subject_of(port: int, ca: Authority, client: Issued) -> str:
    """Common name of the certificate that a receiver shows."""
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        client_context(ca, client).wrap_socket(connection) as secured,
    ):
        shown: Any = secured.getpeercert()
        return str(shown["subject"][0][0][1])


def identity(user: bytes, passcode: bytes) -> UserIdentityNegotiation:
    found = UserIdentityNegotiation()
    found.user_identity_type = 2
    found.positive_response_requested = True
    found.primary_field, found.secondary_field = user, passcode
    return found


KNOWN = PeerRule("ct", (MODALITY,), (LOOPBACK,), user=User("ct", "secret"))


def test_a_peer_with_a_user_must_name_it(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    with tls_receiver(tmp_path, ca, ours, KNOWN) as node:
        port, context = node.receiver.tls_port, client_context(ca, scanner)
        good, bad = identity(b"ct", b"secret"), identity(b"ct", b"guess")
        with associated(port, context, ext_neg=[good]) as assoc:
            assert assoc.is_established
        for others in ([bad], []):
            with associated(port, context, ext_neg=others) as assoc:
                assert assoc.is_rejected
        ae = CallingAE(MODALITY)
        ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
        plain = ae.associate("127.0.0.1", node.port, ae_title=AE_TITLE, ext_neg=[good])
        assert plain.is_rejected, "a passcode in clear text is refused"
        reasons = {facts["reason"] for facts in node.named("association.rejected")}
        assert reasons == {"user_not_authenticated"}
        assert "secret" not in str(node.events)


def test_a_response_to_a_user_identity_comes_with_the_accept(
    tmp_path: Path, ca: Authority, ours: Issued, scanner: Issued
) -> None:
    with tls_receiver(tmp_path, ca, ours, KNOWN) as node:
        context = client_context(ca, scanner)
        asked = identity(b"ct", b"secret")
        with associated(node.receiver.tls_port, context, ext_neg=[asked]) as assoc:
            assert assoc.acceptor.user_identity is not None


def test_mistakes_in_files_have_sentences(tmp_path: Path, ca: Authority, ours: Issued) -> None:
    other = ca.issue("another")
    cases = [
        (TLSFiles(ours.certificate, other.key, ca.certificate), "cannot be used together"),
        (TLSFiles(tmp_path / "no.crt", ours.key, ca.certificate), "No such file"),
        (TLSFiles(ours.certificate, ours.key, tmp_path / "no.crt"), "authorities"),
        (TLSFiles(ours.certificate, ours.key, ours.key), "authorities"),
    ]
    for files, words in cases:
        with pytest.raises(InvalidTLS, match=words):
            server_context(files, demand=True)
    other.key.chmod(0o644)
    with pytest.raises(InvalidTLS, match="chmod 600"):
        server_context(ca.files(other), demand=True)


def test_end_dates_are_those_of_the_certificates(ca: Authority) -> None:
    short = ca.issue("short", days=3)
    left = end_dates(ca.files(short))["certificate"] - datetime.now(UTC)
    assert timedelta(days=2) < left <= timedelta(days=3)
