"""YAML read as text only, with the line of every key; what YAML would guess, the schema decides.

``NO``, ``22:00`` and ``0104`` mean different things to different YAML readers. Here every scalar
stays the text that was written, and such text is an error unless it is quoted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import Scanner

from node.config.problems import ConfigError, Problem

MAX_BYTES = 1024 * 1024
MAX_NODES = 50_000
"""More than any honest file of that size needs; aliases that multiply exceed it at once."""

MAX_BRACKETS = 50
"""Within each other; the time that more of them take grows with the square of their number."""

Path = tuple[str | int, ...]

_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_STANDARD_TAGS = ("tag:yaml.org,2002:",)


class Scalar(str):
    """The text of one scalar; `plain` when it was written without quotes."""

    __slots__ = ("plain",)
    plain: bool

    def __new__(cls, text: str, *, plain: bool) -> Scalar:
        """Make one."""
        scalar = super().__new__(cls, text)
        scalar.plain = plain
        return scalar


@dataclass(frozen=True)
class Document:
    """A file as nested dicts, lists and scalars, and the line of every key and item.

    `problems` are mistakes in spite of which the rest of the file can be read, `doubtful` places
    whose value is not worth another word.
    """

    root: object
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...] = ()
    doubtful: frozenset[Path] = frozenset()

    def line(self, path: Path) -> int:
        """Line of a place, or of the nearest place around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(file: str, content: bytes) -> Document:
    """Read a YAML file.

    Parameters
    ----------
    file : str
        Its name, for the problems.
    content : bytes
        UTF-8, at most 1 MiB.

    Raises
    ------
    ConfigError
        The file is too large, is not one YAML mapping, or holds tabs. Duplicate keys, tags and
        sexagesimal numbers are in `Document.problems`, so that they hide no other mistake.
    """

    def fail(line: int, sentence: str) -> Problem:
        return Problem(file, line, "syntax", sentence)

    if len(content) > MAX_BYTES:
        raise ConfigError([fail(0, f"The file has {len(content)} bytes; at most {MAX_BYTES}.")])
    text = _text(content, fail)
    tabs = [
        fail(number, "A tab indents this line. YAML wants spaces.")
        for number, line in enumerate(text.splitlines(), 1)
        if re.match(r" *\t+ *[^\s#]", line)
    ]
    if tabs:
        raise ConfigError(tabs)
    walk = _Walk(fail)
    root = walk.value(_compose(text, fail), ())
    if not isinstance(root, dict):
        sentence = "The file must hold sections such as node: and rules:."
        raise ConfigError([*walk.problems, fail(1, sentence)])
    return Document(root, walk.lines, tuple(walk.problems), frozenset(walk.doubtful))


def _text(content: bytes, fail: Callable[[int, str], Problem]) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([fail(line, "The file is not UTF-8 text.")]) from error


class _Scanner(Scanner):
    """Stops at brackets that are nested too deeply, before they take seconds to read."""

    def fetch_flow_collection_start(self, token: Any, to_push: str) -> None:
        if self.flow_level >= MAX_BRACKETS:
            mark = self.reader.get_mark()
            raise MarkedYAMLError(problem="brackets are nested too deeply", problem_mark=mark)
        super().fetch_flow_collection_start(token, to_push)


def _compose(text: str, fail: Callable[[int, str], Problem]) -> Node:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ReusedAnchorWarning)
            yaml = YAML(typ="safe", pure=True)
            yaml.Scanner = _Scanner
            node: Node | None = yaml.compose(text)
    except ReusedAnchorWarning as error:
        raise ConfigError([fail(0, "An anchor (&name) is defined twice.")]) from error
    except RecursionError as error:
        raise ConfigError([fail(0, "The brackets are nested too deeply.")]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = _hint(text, mark.line if mark else 0)
        reason = f"{error.context or ''} {error.problem or 'unreadable'}".strip()
        sentence = f"This is not YAML: {reason}.{hint}"
        raise ConfigError([fail(mark.line + 1 if mark else 0, sentence)]) from error
    except YAMLError as error:
        sentence = "The file holds characters that YAML does not allow."
        raise ConfigError([fail(0, sentence)]) from error
    if node is None:
        raise ConfigError([fail(1, "The file is empty. Write one with: scorenode init.")])
    return node


def _hint(text: str, line: int) -> str:
    lines = text.splitlines()
    written = lines[line] if line < len(lines) else ""
    if re.search(r":\s*[<>]=?", written):
        return " Operators are words here: write min: or max: in place of > and <."
    if re.search(r'"[^"]*\\', written):
        return " Put a pattern with a backslash between single quotes."
    if re.search(r":\s*[%@`!&*]", written):
        return " Put a value that starts with a special character between single quotes."
    return ""


class _Walk:
    """Turns nodes into values, noting lines and problems."""

    def __init__(self, fail: Callable[[int, str], Problem]) -> None:
        self.fail = fail
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.doubtful: set[Path] = set()
        self.visited = 0
        self.above: set[int] = set()

    def value(self, node: Node, path: Path) -> object:
        self._count(node)
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._check_tag(node, path)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self.above.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.value(item, (*path, n)) for n, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)  # noqa: S101 there are three kinds of node
            return self._mapping(node, path)
        finally:
            self.above.discard(id(node))

    def _count(self, node: Node) -> None:
        self.visited += 1
        if id(node) in self.above:
            self._refuse(node, "This alias contains itself.")
        if self.visited > MAX_NODES:
            self._refuse(node, f"The file and its aliases hold more than {MAX_NODES} values.")

    def _refuse(self, node: Node, sentence: str) -> None:
        raise ConfigError([*self.problems, self.fail(node.start_mark.line + 1, sentence)])

    def _check_tag(self, node: Node, path: Path) -> None:
        tag = str(node.tag)
        if not tag.startswith(_STANDARD_TAGS):
            self.doubtful.add(path)
            self._note(node, f"The tag {tag[:40]} is not allowed. Put the value in quotes.")

    def _note(self, node: Node, sentence: str) -> None:
        self.problems.append(self.fail(node.start_mark.line + 1, sentence))

    def _scalar(self, node: ScalarNode, path: Path) -> Scalar:
        text, plain = str(node.value), node.style is None
        if plain and _SEXAGESIMAL.fullmatch(text):
            self.doubtful.add(path)
            self._note(node, f"{text} without quotes is a base 60 number to YAML. Write '{text}'.")
        return Scalar(text, plain=plain)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, "A key must be a word, not a list or a section.")
                continue
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                first = self.lines[(*path, key)]
                self._note(key_node, f"The key {key} is here twice; the first is in line {first}.")
                continue
            self.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found
