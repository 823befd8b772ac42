"""Who may open an association: address and AE title together name one peer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
ANY_AE_TITLE = "*"

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class PeerRule:
    """A peer that may open associations.

    Parameters
    ----------
    name : str
        Its name in the configuration.
    ae_titles : tuple of str
        Calling AE titles it uses; ``*``: any.
    networks : tuple of network
        Where it calls from; empty: anywhere.
    max_associations : int
        Most associations it may hold at a time.
    """

    name: str
    ae_titles: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    max_associations: int = 32

    def is_at(self, address: Address) -> bool:
        """Whether it may call from an address."""
        return not self.networks or any(address in network for network in self.networks)

    def is_called(self, ae_title: str) -> bool:
        """Whether it uses a calling AE title."""
        return ANY_AE_TITLE in self.ae_titles or ae_title in self.ae_titles


@dataclass(frozen=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ says about who calls whom."""

    address: str
    calling_ae_title: str
    called_ae_title: str
    application_context_name: str
    protocol_version: int = 1


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and a word for the log."""

    result: int
    source: int
    diagnostic: int
    reason: str


APPLICATION_CONTEXT_NOT_SUPPORTED = Rejection(1, 1, 2, "application_context_not_supported")
CALLING_AE_TITLE_NOT_RECOGNIZED = Rejection(1, 1, 3, "calling_ae_title_not_recognized")
CALLED_AE_TITLE_NOT_RECOGNIZED = Rejection(1, 1, 7, "called_ae_title_not_recognized")
PROTOCOL_VERSION_NOT_SUPPORTED = Rejection(1, 2, 2, "protocol_version_not_supported")
TEMPORARY_CONGESTION = Rejection(2, 3, 1, "disk_below_mark")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "local_limit_exceeded")
NO_REASON_GIVEN = Rejection(2, 1, 1, "internal_error")


def address_of(text: str) -> Address:
    """Read an IP address; IPv4 that came through an IPv6 socket counts as IPv4."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_listed(peers: Iterable[PeerRule], address: Address) -> bool:
    """Whether anybody may call from an address."""
    return any(peer.ae_titles and peer.is_at(address) for peer in peers)


def identify(
    request: AssociationRequest, peers: Iterable[PeerRule], ae_title: str
) -> PeerRule | Rejection:
    """Name the one peer that calls, or say why it is rejected.

    Parameters
    ----------
    request : AssociationRequest
    peers : iterable of PeerRule
        The first that fits is it.
    ae_title : str
        Our own.
    """
    if not request.protocol_version & 1:
        return PROTOCOL_VERSION_NOT_SUPPORTED
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    if request.called_ae_title.strip() != ae_title:
        return CALLED_AE_TITLE_NOT_RECOGNIZED
    address = address_of(request.address)
    for peer in peers:
        if peer.is_at(address) and peer.is_called(request.calling_ae_title.strip()):
            return peer
    return CALLING_AE_TITLE_NOT_RECOGNIZED
