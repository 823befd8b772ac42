"""TLS for the receiver: which versions and suites, whose certificates, and when those end.

References
----------
DICOM PS3.15 annex B, BCP 195 (RFC 9325) TLS Secure Transport Connection Profiles.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from node.receive.access import PeerCertificate

SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of TLS 1.3 are all authenticated and forward secret."""


class InvalidTLS(ValueError):
    """Raised when certificates or keys cannot be used; the sentence says which and why."""


@dataclass(frozen=True)
class TLSFiles:
    """Where our certificate lies, and who signs those of peers.

    Parameters
    ----------
    certificate, key : Path
        PEM; ours, with the chain, and its private key.
    authorities : Path
        PEM; whose signature makes a peer's certificate good.
    """

    certificate: Path
    key: Path
    authorities: Path


def server_context(files: TLSFiles, *, demand: bool) -> ssl.SSLContext:
    """Make the context of a listener.

    Parameters
    ----------
    files : TLSFiles
    demand : bool
        Whether the handshake fails for a peer without certificate; otherwise it is asked for one,
        and the association is rejected where its peer needs one.

    Raises
    ------
    InvalidTLS
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if files.key.exists() and files.key.stat().st_mode & 0o077:
        raise InvalidTLS(f"The key {files.key} can be read by others: chmod 600 it.")
    context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_OPTIONAL
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidTLS(
            f"The certificate {files.certificate} and the key {files.key} cannot be used together "
            f"({_why(error)})."
        ) from error
    try:
        context.load_verify_locations(files.authorities)
    except (OSError, ValueError) as error:
        raise InvalidTLS(
            f"The authorities in {files.authorities} cannot be read ({_why(error)})."
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error)


def end_dates(files: TLSFiles) -> Mapping[str, datetime]:
    """Tell when the first certificate of each file ends.

    Raises
    ------
    InvalidTLS
        A file cannot be read.
    """
    from cryptography import x509

    found = {}
    for name in ("certificate", "authorities"):
        path: Path = getattr(files, name)
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidTLS(f"{path} holds no certificate that can be read.") from error
        found[name] = min(one.not_valid_after_utc for one in certificates)
    return found


def certificate_of(connection: socket.socket) -> PeerCertificate | None:
    """Tell what the certificate of a connection's peer says; None where it has shown none."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    encoded = connection.getpeercert(binary_form=True)
    if encoded is None:
        return None
    shown: Mapping[str, Any] = connection.getpeercert() or {}
    names = [
        value
        for relative in shown.get("subject", ())
        for kind, value in relative
        if kind == "commonName"
    ]
    names += [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    return PeerCertificate(tuple(names), hashlib.sha256(encoded).hexdigest())
