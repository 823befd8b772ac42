"""The command line as a whole."""

from __future__ import annotations

from node.cli import commands, local_commands
from node.cli.app import app

__all__ = ["app", "commands", "local_commands", "main"]


def main() -> None:
    """Run ``scorenode``."""
    app()
