"""A certificate for receivers that are measured over TLS; made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SelfSigned:
    """A certificate that signs itself, and its key: PEM files."""

    certificate: Path
    key: Path


def self_signed(folder: Path) -> SelfSigned:
    """Make a certificate for 127.0.0.1 with an elliptic curve key (P-256).

    Raises
    ------
    RuntimeError
        openssl is not installed, or fails.
    """
    made = SelfSigned(folder / "receiver.crt", folder / "receiver.key")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("rows over TLS need the openssl program: apt-get install openssl")
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=127.0.0.1"]
    words += ["-keyout", str(made.key), "-out", str(made.certificate)]
    ended = subprocess.run([openssl, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"openssl made no certificate: {ended.stderr.strip()}")
    return made
