"""The roles of a node's processes, and how long one may be silent."""

from __future__ import annotations

ROLES = ("receiver", "coordinator", "worker", "infer", "sender")
SILENT_SECONDS = 20.0
"""A process that has said nothing for so long does not run: it speaks every five."""
