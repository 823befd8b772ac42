"""What a process that runs a model may take, as whoever started it says; imports nothing."""

from __future__ import annotations

MEMORY_LIMIT = "SCORENODE_STEP_MEMORY"
"""Environment variable: bytes a step may hold, set in the process that runs it."""
