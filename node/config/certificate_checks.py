"""Whether the certificates and keys that a file names can be read and are still valid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from node.config.parts import Found, Parts
from node.config.problems import Severity
from node.config.tables import REDCapSource
from node.config.yaml_lines import Path as Place

SOON = timedelta(days=30)


def certificate_checks(parts: Parts, now: datetime | None = None) -> Iterator[Found]:
    """Find files that cannot be used for TLS, and those that soon cannot."""
    now = now or datetime.now(UTC)
    for place, path, is_key in _files(parts):
        for sentence, severity in _trouble(path, is_key, now):
            yield place, sentence, severity


def _files(parts: Parts) -> Iterator[tuple[Place, Path, bool]]:
    node = parts.sections.get("node")
    if node is not None and node.tls is not None:
        for key in ("certificate", "key", "authorities"):
            yield ("node", "tls", key), getattr(node.tls, key), key == "key"
    for name, peer in parts.peers.items():
        for key, path in (
            ("ca", peer.tls.authorities),
            ("cert", peer.tls.certificate),
            ("key", peer.tls.key),
        ):
            if path is not None:
                yield ("peers", name, "tls", key), path, key == "key"
    for name, table in parts.tables.items():
        if isinstance(table.source, REDCapSource) and table.source.authorities is not None:
            yield ("tables", name, "redcap", "ca"), table.source.authorities, False


def _trouble(path: Path, is_key: bool, now: datetime) -> Iterator[tuple[str, Severity]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        yield f"The file {path.name} cannot be read: {error.strerror}.", "error"
        return
    try:
        if is_key:
            load_pem_private_key(data, password=None)
            return
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError):
        kind = "private key without a passphrase" if is_key else "certificate"
        yield f"The file {path.name} holds no {kind} in PEM form.", "error"
        return
    end = min(certificate.not_valid_after_utc for certificate in found)
    if end <= now:
        yield f"The certificate in {path.name} ended on {end:%Y-%m-%d}.", "error"
    elif end - now < SOON:
        yield f"The certificate in {path.name} ends on {end:%Y-%m-%d}.", "warning"
