"""What could be read of a configuration file, for the checks between its parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from node.config.peers import Peer
from node.config.problems import Severity
from node.config.rules import Rule
from node.config.tables import Table
from node.config.yaml_lines import Path as Place

Found = tuple[Place, str] | tuple[Place, str, Severity]


@dataclass(frozen=True)
class Parts:
    """What could be read of a file; `root` is all of it, as text."""

    root: Mapping[str, object]
    sections: Mapping[str, Any]
    peers: Mapping[str, Peer]
    tables: Mapping[str, Table]
    rules: Mapping[int, Rule]

    @property
    def peer_names(self) -> Collection[str]:
        """Names of all peers, also of those with mistakes."""
        return self._names("peers")

    @property
    def table_names(self) -> Collection[str]:
        """Names of all tables, also of those with mistakes."""
        return self._names("tables")

    @property
    def rule_names(self) -> Collection[str]:
        """Names of all rules, also of those with mistakes."""
        rules = self.root.get("rules")
        listed = rules if isinstance(rules, list) else []
        return [str(rule["name"]) for rule in listed if isinstance(rule, dict) and "name" in rule]

    def input_names(self, number: int) -> Collection[str]:
        """Names of the inputs of a rule, also of those with mistakes."""
        rules = self.root.get("rules")
        rule = rules[number] if isinstance(rules, list) else {}
        inputs = rule.get("inputs") if isinstance(rule, dict) else {}
        return inputs.keys() if isinstance(inputs, dict) else ()

    def _names(self, section: str) -> Collection[str]:
        found = self.root.get(section)
        return found.keys() if isinstance(found, dict) else ()
