"""C-STORE, C-FIND and C-MOVE over TLS with Orthanc, which wants to see our certificate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.config.peers import Address, Peer, PeerTLS
from node.destinations import destination_of
from node.query import QueryFailed, find, move
from node.receive.access import PeerRule
from node.scu import Destination, echo, send
from tests.certificates import Authority, Issued, authority
from tests.end_to_end.harness import until
from tests.end_to_end.pacs import orthanc
from tests.peers import AE_TITLE, LOOPBACK, ct_image, part10, running_receiver

pytestmark = pytest.mark.slow


def _peer(port: int, ca: Authority | None, ours: Issued | None) -> Destination:
    tls = PeerTLS(
        authorities=ca.certificate if ca else None,
        certificate=ours.certificate if ours else None,
        key=ours.key if ours else None,
    )
    address = Address("127.0.0.1", port, "PACS")
    return destination_of(Peer("PACS", address, tls=tls, timeout_seconds=20.0), AE_TITLE)


def test_images_are_stored_found_and_moved_over_tls(tmp_path: Path) -> None:
    ca, other = authority(tmp_path), authority(tmp_path, "other")
    theirs, ours = ca.issue("pacs", address="127.0.0.1"), ca.issue("node")
    secure = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(ca.certificate),
        "DicomTlsRemoteCertificateRequired": True,
    }
    images = [ct_image() for _ in range(3)]
    uids = {"StudyInstanceUID": images[0].StudyInstanceUID}
    pacs_rule = PeerRule("pacs", ("PACS",), (LOOPBACK,))
    with (
        running_receiver(tmp_path, peers=(pacs_rule,)) as receiver,
        orthanc(tmp_path / "orthanc", receiver.port, more=secure) as pacs,
    ):
        there = _peer(pacs.port, ca, ours)
        until(lambda: echo(there).kind == "sent", "Orthanc to answer C-ECHO over TLS", 60)

        sent = send(there, [part10(ds, tmp_path / f"{n}.dcm") for n, ds in enumerate(images)])
        (found,) = find(there, "SERIES", uids)
        counted = move(there, images[0].StudyInstanceUID)

        assert [outcome.kind for outcome in sent] == ["sent"] * 3
        assert found["NumberOfSeriesRelatedInstances"] == [3.0]
        assert (counted.completed, counted.failed) == (3, 0)
        assert len(receiver.stored_paths()) == 3

        strangers = {
            "its certificate is not signed by whom we trust": _peer(pacs.port, other, ours),
            "we show no certificate": _peer(pacs.port, ca, None),
            "we call it in the clear": _peer(pacs.port, None, None),
            "its certificate is of another host": replace(there, host="localhost"),
        }
        for why, stranger in strangers.items():
            assert echo(stranger).kind == "retry", why
            with pytest.raises(QueryFailed):
                find(stranger, "SERIES", uids)
