"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from node.receive.tls import TLSFiles
from tests.tools import tool


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True)
class Authority:
    """Signs certificates."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.crt"

    def issue(self, name: str, days: int = 90, address: str = "") -> Issued:
        """Sign a certificate for a name, and for an IP address where one is given."""
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{address}" if address else "")
        issued = Issued(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        _openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            issued.key,
            "-out",
            request,
        )
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            self.certificate,
            "-CAkey",
            self.folder / f"{self.name}.key",
            "-CAcreateserial",
            "-days",
            days,
            *(("-extfile", extensions) if address else ()),
            "-out",
            issued.certificate,
        )
        issued.key.chmod(0o600)
        return issued

    def files(self, issued: Issued) -> TLSFiles:
        """What a receiver needs that shows a certificate and asks for ours."""
        return TLSFiles(issued.certificate, issued.key, self.certificate)


def authority(folder: Path, name: str = "authority") -> Authority:
    """Make an authority."""
    made = Authority(folder, name)
    _openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        90,
        "-subj",
        f"/CN={name}",
        "-keyout",
        folder / f"{name}.key",
        "-out",
        made.certificate,
    )
    return made


def _openssl(*arguments: str | int | Path) -> None:
    subprocess.run(
        [tool("openssl"), *map(str, arguments)], check=True, capture_output=True, timeout=60
    )
