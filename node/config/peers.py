"""Peers of the configuration file: other Application Entities, and how they are told apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.base import CLOSED, DAY_SECONDS, INNER, Flag, Seconds, Text
from node.config.completion import PeerCompletion
from node.config.quantities import each, listed, scalar, text, texts, whole, word
from node.config.secrets import secret, url
from node.config.windows import DayWindow, day_window

Network = IPv4Network | IPv6Network
ANY_AE_TITLE = "*"


def ae_title(value: object) -> str:
    """AE title (VR AE): 1 to 16 printable ASCII characters, no backslash."""
    written = text(value)
    if len(written) > 16:
        raise ValueError(f"'{written[:64]}' has {len(written)} characters; an AE title at most 16.")
    if not re.fullmatch(r"[ -\[\]-~]+", written):
        raise ValueError(f"'{written}' is not an AE title: ASCII letters, digits and signs, no \\.")
    return written


def ae_titles(value: object) -> tuple[str, ...]:
    """List of AE titles, or the one that means any."""
    titles = each(value, ae_title)
    if ANY_AE_TITLE in titles and len(titles) > 1:
        raise ValueError("'*' means any AE title, so it stands alone.")
    return titles


def networks(value: object) -> tuple[Network, ...]:
    """List of networks."""
    return each(value, lambda item: _network(scalar(item)))


def _network(written: str) -> Network:
    try:
        return ip_network(written)
    except ValueError as error:
        near = ""
        try:
            near = f" Did you mean {ip_network(written, strict=False)}?"
        except ValueError:
            near = " Write 10.4.0.0/24."
        raise ValueError(f"'{written[:64]}' is not a network.{near}") from error


def host(value: object) -> str:
    """Host name or IP address."""
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", written):
        raise ValueError(f"'{written[:64]}' is neither a host name nor an IP address.")
    return written


def path(value: object, info: ValidationInfo) -> Path:
    """Path; a relative one counts from the folder of the file."""
    folder: Path = info.context["folder"] if info.context else Path()
    written = text(value)
    try:
        return folder / Path(written).expanduser()
    except RuntimeError as error:
        sentence = f"'{written[:64]}' begins with ~ and the name of nobody who has a home folder."
        raise ValueError(sentence) from error


def paths(value: object, info: ValidationInfo) -> tuple[Path, ...]:
    """List of paths."""
    return each(value, lambda item: path(item, info))


def fingerprints(value: object) -> tuple[str, ...]:
    """List of SHA-256 digests of certificates."""
    found = tuple(scalar(item).replace(":", "").lower() for item in listed(value))
    for one in found:
        if not re.fullmatch(r"[0-9a-f]{64}", one):
            raise ValueError(
                "A fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits, as "
                "openssl x509 -noout -fingerprint -sha256 -in FILE prints them."
            )
    return found


Host = Annotated[str, BeforeValidator(host)]
AETitle = Annotated[str, BeforeValidator(ae_title)]
FilePath = Annotated[Path, BeforeValidator(path)]

_Demand = Annotated[Literal["required", "optional"], BeforeValidator(word("required", "optional"))]


@dataclass(frozen=True)
class Address:
    """Where a peer is called."""

    __pydantic_config__ = CLOSED

    host: Host
    port: Annotated[int, BeforeValidator(whole(1, 65535))]
    ae_title: AETitle


DEMANDS = ("required", "optional")


def _tls(value: object) -> object:
    return value if isinstance(value, dict) else {"receive": word(*DEMANDS)(value)}


@dataclass(frozen=True)
class PeerTLS:
    """TLS with one peer: whether it must come over it, and the files (PEM) to call it with.

    It is called over TLS where `authorities` are given, in the clear where not.
    """

    __pydantic_config__ = CLOSED

    receive: _Demand = "optional"
    authorities: Annotated[FilePath | None, Field(alias="ca")] = None
    certificate: Annotated[FilePath | None, Field(alias="cert")] = None
    key: FilePath | None = None


@dataclass(frozen=True)
class Sending:
    """How results are sent to a peer.

    Parameters
    ----------
    ae_title : str or None
        Ours when we call it; None: that of the node.
    associations : int
        Most at a time.
    window : DayWindow or None
        Hours in which it is called, local time.
    connect_seconds, association_seconds, answer_seconds : float or None
        How long to wait for TCP, for the answer to A-ASSOCIATE-RQ, for each answer to a message;
        None: the peer's timeout (10 s for TCP at most).
    report_seconds : float
        Within which it must report on a storage commitment; then the objects are sent again.
    """

    __pydantic_config__ = CLOSED

    ae_title: AETitle | None = None
    associations: Annotated[int, BeforeValidator(whole(1, 32))] = 1
    window: Annotated[DayWindow | None, BeforeValidator(day_window)] = None
    connect_seconds: Annotated[Seconds | None, Field(alias="connect_timeout")] = None
    association_seconds: Annotated[Seconds | None, Field(alias="association_timeout")] = None
    answer_seconds: Annotated[Seconds | None, Field(alias="answer_timeout")] = None
    report_seconds: Annotated[Seconds, Field(alias="report_within")] = DAY_SECONDS


def _web_url(value: object, info: ValidationInfo) -> str:
    return url(("https", "http"), value, info).rstrip("/")


@dataclass(frozen=True)
class DICOMweb:
    """A destination that is called by DICOMweb (STOW-RS, QIDO-RS)."""

    __pydantic_config__ = CLOSED

    url: Annotated[str, BeforeValidator(_web_url)]
    token: Annotated[str, BeforeValidator(secret)] = field(default="", repr=False)
    authorities: Annotated[FilePath | None, Field(alias="ca")] = None


@dataclass(frozen=True)
class Supports:
    """Services a peer offers; None: not declared."""

    __pydantic_config__ = CLOSED

    commitment: Flag | None = None
    find: Flag | None = None
    move: Flag | None = None
    get: Flag | None = None


@dataclass(frozen=True)
class User:
    """The user that a peer must name when it calls; the passcode stands outside the file."""

    __pydantic_config__ = CLOSED

    name: Text
    passcode: Annotated[str, BeforeValidator(secret)] = field(repr=False)


@dataclass(frozen=True)
class Peer:
    """Another Application Entity.

    Parameters
    ----------
    name : str
        Its key in the file.
    address : Address or None
        Where it is called by DIMSE.
    dicomweb : DICOMweb or None
        Where it is called by DICOMweb.
    folder : Path or None
        Where its objects are put as files.
    sending : Sending
    sends_as : tuple of str
        Calling AE titles it uses; ``*``: any. Empty: it sends nothing.
    from_networks : tuple of network
        Empty: from anywhere.
    tls : PeerTLS
    supports : Supports
    client_certificate : str
        ``required`` (where it comes over TLS) or ``optional``.
    certificate_names : tuple of str
        Common names or DNS names, of which its certificate must have one.
    fingerprints : tuple of str
        SHA-256 of its certificate; several, so that it can be renewed.
    user : User or None
        None: user identities are not looked at.
    max_associations : int
    takes_demonstration : bool
        Whether results of demonstration models may go there.
    timeout_seconds : float
        Of connecting to it, and of each answer.
    completion : PeerCompletion or None
        What is different for the series it sends.
    """

    __pydantic_config__ = CLOSED

    name: Annotated[str, Field(alias=f"{INNER}name")]
    address: Address | None = None
    dicomweb: DICOMweb | None = None
    folder: FilePath | None = None
    sending: Sending = field(default_factory=Sending)
    sends_as: Annotated[tuple[str, ...], BeforeValidator(ae_titles)] = ()
    from_networks: Annotated[tuple[Network, ...], BeforeValidator(networks)] = ()
    tls: Annotated[PeerTLS, BeforeValidator(_tls)] = field(default_factory=PeerTLS)
    supports: Supports = field(default_factory=Supports)
    client_certificate: _Demand = "required"
    certificate_names: Annotated[tuple[str, ...], BeforeValidator(texts)] = ()
    fingerprints: Annotated[tuple[str, ...], BeforeValidator(fingerprints)] = ()
    user: User | None = None
    max_associations: Annotated[int, BeforeValidator(whole(1, 10000))] = 32
    takes_demonstration: Flag = False
    timeout_seconds: Annotated[Seconds, Field(alias="timeout")] = 30.0
    completion: PeerCompletion | None = None

    @property
    def counts(self) -> bool:
        """Whether it can be asked how many instances of a series it holds."""
        return bool(self.sends_as and self.address and self.supports.find)

    @property
    def takes_results(self) -> bool:
        """Whether anything can be sent to it."""
        return any((self.address, self.dicomweb, self.folder))
