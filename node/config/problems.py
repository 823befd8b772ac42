"""What is wrong with a configuration: a file, a line, a place, a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One mistake, or one thing an admin should know.

    Parameters
    ----------
    file : str
        Name of the file as it was given.
    line : int
        1 and up; 0 where no line applies.
    where : str
        Section or rule, such as ``rule head-ct-haemorrhage, when.Modality``.
    sentence : str
        What is wrong and what to write instead.
    severity : str
        ``error`` or ``warning``.
    """

    file: str
    line: int
    where: str
    sentence: str
    severity: Severity = "error"

    def __str__(self) -> str:
        note = "warning: " if self.severity == "warning" else ""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {note}{self.where}: {self.sentence}"


class ConfigError(ValueError):
    """Raised when a configuration file has mistakes; `problems` holds every one, by line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for the nearest known word, else the empty text."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""


def one_of(words: Iterable[str]) -> str:
    """Return ``a, b or c``."""
    *most, last = list(words)
    return f"{', '.join(most)} or {last}" if most else last
