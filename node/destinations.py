"""Where results go: a peer that is called by DIMSE or DICOMweb, or a folder."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from node.config.peers import Peer, PeerTLS
from node.finding import FindCall
from node.folder_call import FolderCall
from node.scu import Call, Destination, OutgoingObject, SendOutcome, echo
from node.stow import WebCall
from storage.base import Delivery
from storage.destinations import Door


class StoreCall(Protocol):
    """A way to one destination that is open for a while: an association, a session, a folder."""

    @property
    def failure(self) -> SendOutcome | None:
        """Why nothing can be sent now; None: something can."""

    def store(self, file: OutgoingObject) -> SendOutcome:
        """Send one object."""

    def end(self) -> None:
        """Close it."""


class Lookup(Protocol):
    """A way to ask one destination what it holds."""

    @property
    def failure(self) -> SendOutcome | None:
        """Why nothing can be asked now; None: something can."""

    def holds(self, item: Delivery) -> bool | None:
        """Whether it holds an object; None: it did not say."""

    def end(self) -> None:
        """Close it."""


def open_call(peer: Peer, own_ae_title: str, contexts: Sequence[tuple[str, str]]) -> StoreCall:
    """Open the way to a destination.

    Parameters
    ----------
    peer : Peer
    own_ae_title : str
        Of the node.
    contexts : sequence of tuple of str
        SOP Class and transfer syntax of everything that may be sent.

    Raises
    ------
    ValueError
        Nothing can be sent to this peer.
    """
    if peer.address is not None:
        return Call(destination_of(peer, own_ae_title), contexts)
    return _other(peer)


def open_lookup(peer: Peer, own_ae_title: str) -> Lookup:
    """Open a way to ask a destination what it holds.

    Raises
    ------
    ValueError
        Nothing can be sent to this peer.
    """
    if peer.address is not None:
        return FindCall(destination_of(peer, own_ae_title))
    return _other(peer)


def ping(peer: Peer, own_ae_title: str) -> SendOutcome:
    """Ask a destination whether it is there."""
    if peer.address is not None:
        return echo(destination_of(peer, own_ae_title))
    call = _other(peer)
    try:
        return call.ping()
    finally:
        call.end()


def _other(peer: Peer) -> WebCall | FolderCall:
    """Give the way to a destination that is not called by DIMSE."""
    sending = peer.sending
    if peer.dicomweb is not None:
        return WebCall(
            peer.name,
            peer.dicomweb,
            connect_seconds=sending.connect_seconds or min(peer.timeout_seconds, 10.0),
            answer_seconds=sending.answer_seconds or peer.timeout_seconds,
        )
    if peer.folder is not None:
        return FolderCall(peer.folder)
    raise ValueError(f"peer {peer.name} takes no results")


def destination_of(peer: Peer, own_ae_title: str) -> Destination:
    """Where a peer is called; its address must be known."""
    if peer.address is None:
        raise ValueError(f"peer {peer.name} has no address")
    sending, timeout = peer.sending, peer.timeout_seconds
    context, trouble = None, ""
    try:
        context = _client_context(peer.tls)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or type(error).__name__
        trouble = f"{peer.name} cannot be called: a file under its tls cannot be used ({reason})"
    return Destination(
        host=peer.address.host,
        port=peer.address.port,
        ae_title=peer.address.ae_title,
        own_ae_title=sending.ae_title or own_ae_title,
        connect_seconds=sending.connect_seconds or min(timeout, 10.0),
        associate_seconds=sending.association_seconds or timeout,
        response_seconds=sending.answer_seconds or timeout,
        tls=context,
        trouble=trouble,
    )


def _client_context(tls: PeerTLS) -> ssl.SSLContext | None:
    """Make what a peer is called with over TLS; None: it is called in the clear."""
    if tls.authorities is None:
        return None
    context = ssl.create_default_context(cafile=str(tls.authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def doors_of(peers: Mapping[str, Peer], now: datetime) -> dict[str, Door]:
    """How each destination may be called now.

    Parameters
    ----------
    peers : mapping
        Name to peer.
    now : datetime
        Local time.
    """
    return {
        name: Door(
            associations=peer.sending.associations,
            **({"opens_in": peer.sending.window.opens_in(now)} if peer.sending.window else {}),
        )
        for name, peer in peers.items()
        if peer.takes_results
    }
