"""The command line as a whole."""

from __future__ import annotations

from node.cli import (
    commands,
    config_commands,
    evaluate_command,
    event_command,
    explain_command,
    local_commands,
    model_commands,
    origin_commands,
    peer_commands,
    query_commands,
    report_commands,
    result_commands,
    rules_commands,
    table_commands,
    training_commands,
    watch,
)
from node.cli.app import app

__all__ = [
    "app",
    "commands",
    "config_commands",
    "evaluate_command",
    "event_command",
    "explain_command",
    "local_commands",
    "main",
    "model_commands",
    "origin_commands",
    "peer_commands",
    "query_commands",
    "report_commands",
    "result_commands",
    "rules_commands",
    "table_commands",
    "training_commands",
    "watch",
]


def main() -> None:
    """Run ``scorenode``."""
    app()
