"""What an admin decides about receiving."""

from __future__ import annotations

from dataclasses import dataclass

from node.receive.access import PeerRule
from node.receive.tls import TLSFiles


@dataclass(frozen=True)
class TLSSettings:
    """A port on which connections begin with TLS."""

    files: TLSFiles
    host: str = "0.0.0.0"  # noqa: S104 - as for the plain port
    port: int = 2762


@dataclass(frozen=True)
class ReceiverSettings:
    """Whom the receiver serves, and where.

    Parameters
    ----------
    ae_title : str
        Our own; a peer that calls anybody else is rejected.
    peers : tuple of PeerRule
        Who may open associations; nobody else is answered.
    host, port
        Where to listen; port 0 takes any free one.
    max_associations : int
    max_pdu_bytes : int
        Longest P-DATA-TF PDU we take.
    idle_seconds : float
        After which a silent association is aborted.
    drain_seconds : float
        How long `Receiver.stop` lets associations end by themselves.
    owner : str
        This process, for the rows of associations.
    tls : TLSSettings or None
    is_plain : bool
        Whether there is a port without TLS, too.
    buffer_bytes : int
        For what is read from the network, as long as it lasts.
    """

    ae_title: str
    peers: tuple[PeerRule, ...]
    host: str = "0.0.0.0"  # noqa: S104 - an Application Entity is there to be reached
    port: int = 11112
    max_associations: int = 64
    max_pdu_bytes: int = 131_072
    idle_seconds: float = 60.0
    drain_seconds: float = 10.0
    owner: str = ""
    tls: TLSSettings | None = None
    is_plain: bool = True
    buffer_bytes: int = 64 << 20
