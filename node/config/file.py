"""The configuration file: read once, checked completely, handed on as frozen values."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from node.config import checks, schema
from node.config.base import INNER
from node.config.certificate_checks import certificate_checks
from node.config.completion import Completion
from node.config.parts import Found, Parts
from node.config.peers import Peer
from node.config.problems import ConfigError, Problem, Severity, did_you_mean
from node.config.quantities import shape
from node.config.rest import is_near, mistaken, rest_of
from node.config.rule_checks import ModelCard, against_models, rule_checks
from node.config.rules import Rule, RuleLines
from node.config.sections import (
    SECTIONS,
    Alerts,
    ModelsSection,
    NodeSection,
    Retention,
    Unmatched,
)
from node.config.tables import Table, TableLines
from node.config.yaml_lines import MAX_BYTES, Document, parse
from node.config.yaml_lines import Path as Place

SCHEMA = 1
SYSTEM_DATA_FOLDER = Path("/var/lib/scorenode")
_INLINE_PASSWORD = re.compile(r"://[^/@:\s]*:(?!\$\{)[^/@\s]+@")

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """Everything the file says.

    Parameters
    ----------
    path : Path
    digest : str
        SHA-256 of the content, whatever its comments and order of keys; without the secrets
        that the file refers to.
    node : NodeSection
    peers : mapping
        Name to `Peer`.
    completion : Completion
    models : ModelsSection
    rules : tuple of Rule
        In the order of the file.
    unmatched : Unmatched
    retention : Retention
    alerts : Alerts
    tables : mapping
        Name to `Table`.
    content : bytes
        The file itself, for copies.
    warnings : tuple of Problem
        What an admin should know although the file can be used.
    """

    path: Path
    digest: str
    node: NodeSection
    peers: Mapping[str, Peer]
    completion: Completion
    models: ModelsSection
    rules: tuple[Rule, ...]
    unmatched: Unmatched
    retention: Retention
    alerts: Alerts = field(default_factory=Alerts)
    tables: Mapping[str, Table] = field(default_factory=dict)
    content: bytes = field(default=b"", repr=False)
    warnings: tuple[Problem, ...] = ()

    def rule(self, name: str) -> Rule:
        """Look a rule up by name; KeyError when there is none."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(f"no rule {name!r}")

    def completion_of(self, peer: str) -> Completion:
        """When series from a peer count as complete."""
        own = self.peers[peer].completion if peer in self.peers else None
        return self.completion if own is None else own.over(self.completion)

    def accepted_peers(self) -> tuple[Peer, ...]:
        """Peers that may associate with this node."""
        names = self.peers if self.node.accept_from is None else self.node.accept_from
        return tuple(self.peers[name] for name in names if self.peers[name].sends_as)


def load(path: Path, origin: Path | None = None) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path : Path
    origin : Path or None
        The file that `path` is a copy of: what it names lies beside that one.

    Raises
    ------
    ConfigError
        The file cannot be used; `problems` holds every mistake.
    """
    config, problems = _read(Path(path), origin)
    if config is None:
        raise ConfigError(problems)
    return config


def check(
    path: Path,
    *,
    pipelines: Collection[str],
    models: Collection[str],
    cards: Mapping[str, ModelCard] | None = None,
) -> list[Problem]:
    """List everything wrong or doubtful in a configuration file, by line.

    Parameters
    ----------
    path : Path
    pipelines, models : collection of str
        Names of what is installed.
    cards : mapping or None
        Name of a model to what its manifest says.
    """
    path = Path(path)
    try:
        reader = _Reader(path)
    except ConfigError as error:
        return error.problems
    reader.read()
    reader.note_all(
        lambda parts: (
            *checks.installed(parts, pipelines, models),
            *against_models(parts, cards or {}),
            *certificate_checks(parts),
        )
    )
    return sorted(reader.problems, key=lambda problem: problem.line)


def model_folders(path: Path) -> tuple[Path, ...]:
    """Folders of model packages that a file names, whatever else is wrong in it."""
    try:
        reader = _Reader(Path(path))
    except ConfigError:
        return ()
    reader.read()
    found: ModelsSection | None = reader.readable("models")
    return found.folders if found else ()


def _read(path: Path, origin: Path | None) -> tuple[Config | None, list[Problem]]:
    reader = _Reader(path, origin)
    config = reader.read()
    return config, reader.problems


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        sentence = f"The file cannot be read: {error.strerror}."
        raise ConfigError([Problem(str(path), 0, "file", sentence)]) from error


_ADAPTERS: Mapping[type[Any], TypeAdapter[Any]] = {
    **{kind: TypeAdapter(kind) for kind in (*SECTIONS.values(), Peer, RuleLines)},
    Table: TypeAdapter(TableLines),
}
_INSTEAD: Mapping[type[Any], Mapping[str, object]] = {
    RuleLines: {"name": "unnamed", "mode": "shadow"},
    NodeSection: {"ae_title": "SCORENODE"},
    Completion: {"max_wait": "36500d"},
}
"""What stands in for keys that are missing or wrong, so that no check trips over that."""


class _Reader:
    """Reads one file piece by piece, so that a mistake in one hides none in another."""

    def __init__(self, path: Path, origin: Path | None = None) -> None:
        content = _content(path)
        self.content = content
        self.path = path = origin or path
        self.document: Document = parse(str(path), content)
        self.root = _mapping(self.document.root)
        self.problems: list[Problem] = list(self.document.problems)
        self.sections: dict[str, Any] = {}
        self.peers: dict[str, Peer] = {}
        self.tables: dict[str, Table] = {}
        self.rules: dict[int, Rule] = {}
        self.rest: dict[Place, Any] = {}
        self.mistakes: set[Place] = set()
        if _INLINE_PASSWORD.search(content.decode("utf-8-sig")):
            self._warn_of_password()

    def read(self) -> Config | None:
        """Return the configuration, or None where `problems` holds an error."""
        self._check_vocabulary()
        for name, kind in SECTIONS.items():
            self.sections[name] = self._piece(kind, self.root.get(name, {}), (name,))
        self.peers = self._named("peers", Peer)
        self.tables = self._named("tables", Table)
        self._read_rules()
        today = datetime.now(UTC).astimezone().date()
        self.note_all(lambda parts: (*checks.consistent(parts), *rule_checks(parts, today)))
        if any(problem.severity == "error" for problem in self.problems):
            return None
        return self._config()

    def parts(self) -> Parts:
        """Whatever of the file could be read."""
        return Parts(self.root, self.sections, self.peers, self.tables, self.rules)

    def readable(self, section: str) -> Any:
        """Return a section, or what can be read of it; None where that is nothing."""
        return self._parts_of_the_rest().sections.get(section)

    def note_all(self, find: Callable[[Parts], Iterable[Found]]) -> None:
        """Add what a check finds in whatever could be read.

        Of pieces with mistakes it looks at the rest, where only errors in that very piece count.
        """
        for found in find(self.parts()):
            self.note(*found)
        known = {(problem.line, problem.sentence) for problem in self.problems}
        for found in find(self._parts_of_the_rest()):
            place, sentence, *severity = found
            if (
                not severity
                and any(len(place) > len(own) and place[: len(own)] == own for own in self.rest)
                and not is_near(place, self.mistakes)
                and (self.document.line(place), sentence) not in known
            ):
                self.note(*found)

    def _parts_of_the_rest(self) -> Parts:
        sections, rules = dict(self.sections), dict[int, Rule]()
        for place, found in self.rest.items():
            match place:
                case ("rules", int(number)) if found is not None:
                    rules[number] = found.rule
                case (str(name),) if found is not None:
                    sections[name] = found
        return Parts(self.root, sections, self.peers, self.tables, rules)

    def note(self, place: Place, sentence: str, severity: Severity = "error") -> None:
        """Add a problem at a place of the file, unless its value is a problem of YAML's."""
        if any(place[: len(one)] == one for one in self.document.doubtful):
            return
        line = self.document.line(place)
        where = schema.where(place, self.root)
        self.problems.append(Problem(str(self.path), line, where, sentence, severity))

    def _warn_of_password(self) -> None:
        if self.path.stat().st_mode & (stat.S_IROTH | stat.S_IRGRP):
            self.note(
                ("node",),
                "A URL holds a password and others can read this file. Write "
                "${env:NAME} or ${file:PATH} in its place, or chmod 600 the file.",
                "warning",
            )

    def _check_vocabulary(self) -> None:
        known = ("schema", *SECTIONS, "peers", "tables", "rules")
        for key in self.root.keys() - set(known):
            near = did_you_mean(key, known)
            self.note((key,), f"'{key[:64]}' is not a section.{near}")
        for key in ("schema", "node", "rules"):
            if key not in self.root:
                self.note((), f"The section {key}: is missing.")
        schema = str(self.root.get("schema", SCHEMA))
        if schema != str(SCHEMA):
            self.note(("schema",), f"This scorenode reads schema {SCHEMA}, not '{schema[:64]}'.")

    def _named(self, section: str, kind: type[T]) -> dict[str, T]:
        """Read a section that holds many of a kind, each under its name."""
        entries, found = self.root.get(section, {}), {}
        if not isinstance(entries, dict):
            self.note((section,), f"This wants names of {section}, not {shape(entries)}.")
            return {}
        for name, value in entries.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                self.note((section, name), "A name has letters, digits, . _ and - only.")
            entry = self._piece(kind, value, (section, name), name=name)
            if entry is not None:
                found[name] = entry
        return found

    def _read_rules(self) -> None:
        rules = self.root.get("rules", [])
        if not isinstance(rules, list):
            self.note(("rules",), "This wants a list of rules: '- name: ...' for each.")
            return
        for number, value in enumerate(rules):
            lines = self._piece(RuleLines, value, ("rules", number))
            if lines is not None:
                self.rules[number] = lines.rule

    def _piece(self, kind: type[T], value: object, place: Place, **inner: str) -> T | None:
        if isinstance(value, dict):
            value = value | {f"{INNER}{key}": text for key, text in inner.items()}
        context = {"folder": self.path.parent}
        try:
            found: T = _ADAPTERS[kind].validate_python(value, context=context)
        except ValidationError as error:
            for mistake in error.errors():
                location = tuple(p for p in mistake["loc"] if not str(p).startswith(INNER))
                self.note((*place, *location), schema.sentence(kind, mistake))
            self.mistakes |= {(*place, *one) for one in mistaken(error)}
            if len(place) == 1 or kind is RuleLines:
                instead = _INSTEAD.get(kind, {})
                self.rest[place] = rest_of(_ADAPTERS[kind], value, error, context, instead)
            return None
        return found

    def _config(self) -> Config:
        canonical = json.dumps(self.root, sort_keys=True, ensure_ascii=True)
        return Config(
            path=self.path,
            digest=hashlib.sha256(canonical.encode()).hexdigest(),
            node=self._with_folders(self.sections["node"]),
            peers=self.peers,
            completion=self.sections["completion"],
            models=self.sections["models"],
            rules=tuple(self._settled(rule) for rule in self.rules.values()),
            unmatched=self.sections["unmatched"],
            retention=self.sections["retention"],
            alerts=self.sections["alerts"],
            tables=self.tables,
            content=self.content,
            warnings=tuple(p for p in self.problems if p.severity == "warning"),
        )

    def _settled(self, rule: Rule) -> Rule:
        """Fill in what a rule leaves to ``completion``."""
        completion: Completion = self.sections["completion"]
        return replace(
            rule,
            if_incomplete=rule.if_incomplete or completion.if_incomplete,
            late_instances=rule.late_instances or completion.late_instances,
        )

    def _with_folders(self, node: NodeSection) -> NodeSection:
        """Fill in what depends on the file's place."""
        data = node.data_folder
        if "data" not in _mapping(self.root["node"]):
            own = self.path.parent / "node-data"
            data = SYSTEM_DATA_FOLDER if SYSTEM_DATA_FOLDER.is_dir() else own
        data = data.absolute()
        url = node.database_url or f"sqlite:///{data / 'node.db'}"
        return replace(node, data_folder=data, database_url=url)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
