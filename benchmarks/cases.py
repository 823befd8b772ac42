"""What is measured, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Parameters
    ----------
    load : str
    associations : int
    one_each : bool
        Whether every instance gets an association of its own.
    sender : str
        ``fast``: ours; else one of DCMTK's, and nobody is told to switch Nagle's algorithm off.
    is_tls : bool
        Whether connections begin with TLS 1.3, with receivers that can.
    """

    load: str
    associations: int
    one_each: bool = False
    sender: str = "fast"
    is_tls: bool = False

    def __str__(self) -> str:
        words = f"{self.load} x {self.associations}" + (", one each" if self.one_each else "")
        words += ", TLS" if self.is_tls else ""
        return words if self.sender == "fast" else f"{self.load}, stock {self.sender}"


@dataclass(frozen=True)
class Measured:
    """What one receiver did in one round of one case."""

    server: str
    case: Case
    instances_per_second: float
    megabytes_per_second: float
    cpu_ms_per_instance: float
    sender_ms_per_instance: float
    peak_mb: float
    p50_ms: float
    p99_ms: float
    failed: int
