"""Who may open an association: address, AE title and certificate together name one peer."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
ANY_AE_TITLE = "*"
_USERNAME_AND_PASSCODE = 2

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class PeerCertificate:
    """What a peer's certificate says, once its signature was found good.

    Parameters
    ----------
    names : tuple of str
        Common name and DNS names.
    fingerprint : str
        SHA-256 of the certificate, 64 hexadecimal digits.
    """

    names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class User:
    """Username and passcode that a peer must give (PS3.7 D.3.3.7)."""

    name: str
    passcode: str = field(repr=False)

    def is_named_by(self, request: AssociationRequest) -> bool:
        """Whether a request names this user; never in the clear."""
        found = request.identity
        if found is None or found.kind != _USERNAME_AND_PASSCODE or not request.is_tls:
            return False
        return hmac.compare_digest(found.primary, self.name.encode()) & hmac.compare_digest(
            found.secondary, self.passcode.encode()
        )


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
    needs_tls, needs_certificate : bool
        Whether it must come over TLS; whether it must show a certificate where it does.
    certificate_names, fingerprints : tuple of str
        What its certificate must say: one of these names, be one of these; empty: anything that
        an authority has signed.
    user : User or None
        Whom it must name; None: user identities are not looked at.
    """

    name: str
    ae_titles: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    max_associations: int = 32
    needs_tls: bool = False
    needs_certificate: bool = True
    certificate_names: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    user: User | None = None

    def is_at(self, address: Address) -> bool:
        """Whether it may call from an address."""
        return not self.networks or any(address in network for network in self.networks)

    def is_called(self, ae_title: str) -> bool:
        """Whether it uses a calling AE title."""
        return ANY_AE_TITLE in self.ae_titles or ae_title in self.ae_titles

    def is_proved_by(self, request: AssociationRequest) -> bool:
        """Whether a request came the way this peer must come, with its certificate."""
        names_one = bool(self.certificate_names or self.fingerprints)
        if not request.is_tls:
            return not (self.needs_tls or names_one)
        certificate = request.certificate
        if certificate is None:
            return not (self.needs_certificate or names_one)
        if self.fingerprints and certificate.fingerprint not in self.fingerprints:
            return False
        wanted = {name.casefold() for name in self.certificate_names}
        return not wanted or any(name.casefold() in wanted for name in certificate.names)


@dataclass(frozen=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ says about who calls whom, and how it came."""

    address: str
    calling_ae_title: str
    called_ae_title: str
    application_context_name: str
    protocol_version: int = 1
    is_tls: bool = False
    certificate: PeerCertificate | None = None
    identity: UserIdentity | None = None


@dataclass(frozen=True)
class UserIdentity:
    """Who an A-ASSOCIATE-RQ says that the user is (PS3.7 D.3.3.7); never logged.

    Parameters
    ----------
    kind : int
        1 username, 2 username and passcode, 3 Kerberos ticket, 4 SAML assertion, 5 JSON Web Token.
    primary, secondary : bytes
        Username, ticket, assertion or token; passcode.
    wants_response : bool
    """

    kind: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(repr=False)
    wants_response: bool = False


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
USER_NOT_AUTHENTICATED = Rejection(1, 1, 1, "user_not_authenticated")


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
        The first that fits is it. Peers with ``*`` are nobody whom another peer names: who calls
        by a title and from an address of such a peer must prove to be it.
    ae_title : str
        Our own.
    """
    if not request.protocol_version & 1:
        return PROTOCOL_VERSION_NOT_SUPPORTED
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    if request.called_ae_title.strip() != ae_title:
        return CALLED_AE_TITLE_NOT_RECOGNIZED
    title, address = request.calling_ae_title.strip(), address_of(request.address)
    if not title.isprintable():
        return CALLING_AE_TITLE_NOT_RECOGNIZED
    fitting = [peer for peer in peers if peer.is_at(address) and peer.is_called(title)]
    named = [peer for peer in fitting if title in peer.ae_titles]
    for peer in named or fitting:
        if peer.is_proved_by(request):
            is_known = peer.user is None or peer.user.is_named_by(request)
            return peer if is_known else USER_NOT_AUTHENTICATED
    return CALLING_AE_TITLE_NOT_RECOGNIZED
