"""Report templates in YAML: read once, every mistake told at once with its line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from models.base import Code
from node.config.problems import ConfigError, Problem, did_you_mean, one_of
from node.config.quantities import flag, shape
from node.config.template_codes import CodeBook
from node.config.yaml_lines import MAX_BYTES, Document, Scalar, parse
from node.config.yaml_lines import Path as Place
from sr_templates.checks.texts import unfit
from sr_templates.code_tables import LocalCode
from sr_templates.described import (
    IF_MISSING,
    ITEM,
    KINDS,
    OF_SEGMENTS,
    QUALIFICATIONS,
    SEGMENTS,
    EvaluationLine,
    GroupLine,
    IfMissing,
    MeasurementLine,
    PrivateScheme,
    ReportTemplate,
    TextLine,
)
from sr_templates.outputs import Outputs, undeclared

TOP = (
    "template", "version", "procedure", "qualification", "statement", "image_library", "private",
    "local_codes", "groups",
)  # fmt: skip
PRIVATE = ("designator", "uid", "organisation", "codes")
LOCAL = ("code", "source", "reviewed")
GROUP = (
    "id", "kind", "for_each", "tracking", "finding", "category", "site", "measurements",
    "evaluations", "texts",
)  # fmt: skip
MEASUREMENT = (
    "name", "value", "unit", "digits", "range", "method", "if_missing", "observed",
)  # fmt: skip
EVALUATION = ("name", "value", "map")
TEXT = ("name", "value", "if_missing")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
NOTHING: Code = ("", "", "")
"""What stands for a code that could not be read; its problem is told."""


def load_template(path: Path, outputs: Outputs | None = None) -> ReportTemplate:
    """Read and check a report template.

    Parameters
    ----------
    path : Path
    outputs : Outputs or None
        What the model declares to say; None: paths are not compared with it.

    Raises
    ------
    ConfigError
        The file cannot be used; `problems` holds every mistake.
    """
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        sentence = f"The file cannot be read: {error.strerror}."
        raise ConfigError([Problem(str(path), 0, "file", sentence)]) from error
    reader = _Reader(str(path), parse(str(path), content))
    template = reader.template(hashlib.sha256(content).hexdigest())
    if outputs is not None:
        for place, sentence in undeclared(template, outputs):
            reader.note(place, sentence)
    if reader.problems:
        raise ConfigError(reader.problems)
    return template


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class _Reader:
    """Turns the values of one file into a template, noting what is wrong with them."""

    def __init__(self, file: str, document: Document) -> None:
        self.file, self.document = file, document
        self.problems: list[Problem] = list(document.problems)
        self.codes = CodeBook(None, ())

    def note(self, place: Place, sentence: str) -> None:
        """Add a problem at a place of the file."""
        where = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in place)
        line = self.document.line(place)
        self.problems.append(Problem(self.file, line, where.lstrip(".") or "file", sentence))

    def template(self, digest: str) -> ReportTemplate:
        """Read the whole file."""
        root = self.section(self.document.root, (), TOP, ("template", "version", "groups"))
        private = self.private(root.get("private"), ("private",))
        local = tuple(self.each(root, "local_codes", (), self.local_code))
        self.codes = CodeBook(private, local)
        groups = tuple(self.each(root, "groups", (), self.group))
        if not groups and "groups" in root:
            self.note(("groups",), "A report needs at least one group.")
        self.unique([group.id for group in groups])
        return ReportTemplate(
            name=self.text(root, "template", (), most=40),
            version=self.text(root, "version", (), most=16),
            groups=groups,
            digest=digest,
            procedure=self.code(root, "procedure", ()),
            qualification=self.choice(root, "qualification", (), QUALIFICATIONS),
            statement=self.text(root, "statement", (), most=1024),
            private=private,
            local_codes=local,
            image_library=self.yes(root, "image_library", ()),
        )

    def private(self, value: object, place: Place) -> PrivateScheme | None:
        """Read the site's own coding scheme."""
        if value is None:
            return None
        section = self.section(value, place, PRIVATE, PRIVATE)
        designator = self.text(section, "designator", place, most=16)
        if designator and not designator.startswith("99"):
            self.note((*place, "designator"), "A private scheme begins with 99, such as 99SITE.")
        uid = self.text(section, "uid", place, most=64)
        if uid and not _UID.fullmatch(uid):
            self.note(
                (*place, "uid"), "This is no UID: digits and dots, no number with a zero first."
            )
        declared = self.section(section.get("codes", {}), (*place, "codes"), None)
        for value_, meaning in declared.items():
            if len(value_) > 16 or not isinstance(meaning, str) or not 0 < len(meaning) <= 64:
                sentence = "A private code is VALUE: meaning, at most 16 and 64 characters."
                self.note((*place, "codes", value_), sentence)
        meanings = {str(key): str(meaning) for key, meaning in declared.items()}
        organisation = self.text(section, "organisation", place, most=64)
        return PrivateScheme(designator, uid, organisation, meanings)

    def local_code(self, value: object, place: Place) -> LocalCode:
        """Read a code that somebody looked up outside PS3.16."""
        section = self.section(value, place, LOCAL, LOCAL)
        code = self.three_texts(section.get("code"), (*place, "code"))
        if code != NOTHING:
            for sentence in CodeBook.contradictions(code):
                self.note((*place, "code"), sentence)
        reviewed = self.text(section, "reviewed", place, most=10)
        if reviewed and not _is_date(reviewed):
            self.note((*place, "reviewed"), "Write the date of the review as 2026-03-01.")
        return LocalCode(*code, self.text(section, "source", place, most=256), reviewed)

    def group(self, value: object, place: Place) -> GroupLine:
        """Read one group."""
        section = self.section(value, place, GROUP, ("id", "kind", "finding"))
        kind = self.choice(section, "kind", place, KINDS)
        for_each = self.path(section, "for_each", place, inside=False)
        if kind in OF_SEGMENTS and for_each != SEGMENTS:
            self.note(place, f"A {kind} group is written for each segment: for_each: {SEGMENTS}.")
        name = self.text(section, "id", place, most=32)
        if name and not _WORD.fullmatch(name):
            self.note((*place, "id"), "An id has letters, digits, _ and - only.")
        inside = bool(for_each)
        return GroupLine(
            id=name,
            kind=next((known for known in KINDS if known == kind), "image"),
            finding=self.code(section, "finding", place) or NOTHING,
            tracking=self.text(section, "tracking", place, most=64),
            for_each=for_each,
            category=self.code(section, "category", place),
            site=self.code(section, "site", place),
            measurements=tuple(
                self.each(
                    section, "measurements", place, lambda v, p: self.measurement(v, p, inside)
                )
            ),
            evaluations=tuple(
                self.each(section, "evaluations", place, lambda v, p: self.evaluation(v, p, inside))
            ),
            texts=tuple(
                self.each(section, "texts", place, lambda v, p: self.text_line(v, p, inside))
            ),
        )

    def measurement(self, value: object, place: Place, inside: bool) -> MeasurementLine:
        """Read one number."""
        section = self.section(value, place, MEASUREMENT, ("name", "value", "unit"))
        unit = self.code(section, "unit", place) or NOTHING
        if unit != NOTHING and unit[0] != "UCUM":
            self.note((*place, "unit"), "A unit is a code of UCUM.")
        return MeasurementLine(
            name=self.code(section, "name", place) or NOTHING,
            value=self.path(section, "value", place, inside=inside),
            unit=unit,
            digits=int(
                self.number(
                    section.get("digits", Scalar("3", plain=True)),
                    (*place, "digits"),
                    least=0,
                    most=9,
                    whole=True,
                )
            ),
            range=self.range(section.get("range"), (*place, "range")),
            method=self.code(section, "method", place),
            if_missing=self.if_missing(section, place),
            observed=self.path(section, "observed", place, inside=inside),
        )

    def if_missing(self, section: Mapping[str, object], place: Place) -> IfMissing:
        """Read what happens where a value is missing."""
        return (
            "comment"
            if self.choice(section, "if_missing", place, IF_MISSING) == "comment"
            else "refuse"
        )

    def text_line(self, value: object, place: Place, inside: bool) -> TextLine:
        """Read one text."""
        section = self.section(value, place, TEXT, ("name", "value"))
        return TextLine(
            name=self.code(section, "name", place) or NOTHING,
            value=self.path(section, "value", place, inside=inside),
            if_missing=self.if_missing(section, place),
        )

    def evaluation(self, value: object, place: Place, inside: bool) -> EvaluationLine:
        """Read one choice of codes."""
        section = self.section(value, place, EVALUATION, EVALUATION)
        words = self.section(section.get("map", {}), (*place, "map"), None)
        if not words and isinstance(section.get("map"), dict):
            self.note((*place, "map"), "A map needs at least one word of the model's.")
        return EvaluationLine(
            name=self.code(section, "name", place) or NOTHING,
            value=self.path(section, "value", place, inside=inside),
            map={word: self.code(words, word, (*place, "map")) or NOTHING for word in words},
        )

    def section(
        self,
        value: object,
        place: Place,
        known: Sequence[str] | None,
        needed: Iterable[str] = (),
    ) -> Mapping[str, object]:
        """Check the keys of a section; `known` None: any."""
        if not isinstance(value, dict):
            self.note(place, f"This wants a section of keys, not {shape(value)}.")
            return {}
        if known is not None:
            for key in value.keys() - set(known):
                near = did_you_mean(key[:64], known) or f" Known here: {one_of(known)}."
                self.note((*place, key), f"The key '{key[:64]}' is not known.{near}")
        for key in needed:
            if key not in value:
                self.note(place, f"The key {key} is missing.")
        return value

    def each(
        self,
        section: Mapping[str, object],
        key: str,
        place: Place,
        read: Callable[[object, Place], Any],
    ) -> list[Any]:
        """Read every item of a list."""
        value = section.get(key, [])
        if not isinstance(value, list):
            self.note((*place, key), f"This wants a list, not {shape(value)}.")
            return []
        return [read(item, (*place, key, number)) for number, item in enumerate(value)]

    def text(self, section: Mapping[str, object], key: str, place: Place, *, most: int) -> str:
        """Read a text; empty where there is none."""
        value = section.get(key, "")
        if not isinstance(value, str) or (key in section and not value.strip()):
            self.note((*place, key), f"This wants a text, not {shape(value)}.")
            return ""
        if len(value) > most:
            self.note((*place, key), f"This has {len(value)} characters; at most {most}.")
        if why := unfit(value):
            self.note((*place, key), f"This {why}; no report that says it would leave.")
        return str(value)

    def yes(self, section: Mapping[str, object], key: str, place: Place) -> bool:
        """Read yes or no; no where there is none."""
        try:
            return key in section and flag(section[key])
        except ValueError as error:
            self.note((*place, key), str(error))
            return False

    def choice(
        self, section: Mapping[str, object], key: str, place: Place, known: Sequence[str]
    ) -> str:
        """Read one of several words; empty where there is none."""
        value = self.text(section, key, place, most=64)
        if value and value not in known:
            near = did_you_mean(value, known)
            self.note((*place, key), f"'{value[:64]}' is none of {one_of(known)}.{near}")
            return ""
        return value

    def path(self, section: Mapping[str, object], key: str, place: Place, *, inside: bool) -> str:
        """Read a dotted path into the model's output; empty where there is none."""
        value = self.text(section, key, place, most=128)
        if value and not _PATH.fullmatch(value):
            self.note((*place, key), "A path is words with dots between, such as study.volume.")
        elif value.startswith(f"{ITEM}.") and not inside:
            self.note((*place, key), "item. is for groups with for_each only.")
        return value

    def number(
        self, value: object, place: Place, least: float, most: float, *, whole: bool = False
    ) -> float:
        """Read a number within limits."""
        if not isinstance(value, str) or not _NUMBER.fullmatch(value):
            self.note(place, f"This wants a number, not {shape(value)}.")
            return least
        found = float(value)
        if whole and not found.is_integer():
            self.note(place, "This wants a whole number.")
        if not least <= found <= most:
            self.note(place, f"This wants a number from {least:g} to {most:g}.")
        return found

    def range(self, value: object, place: Place) -> tuple[float, float] | None:
        """Read least and largest value."""
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            self.note(place, "A range is [least, largest].")
            return None
        low, high = (self.number(v, (*place, n), -1e12, 1e12) for n, v in enumerate(value))
        if low > high:
            self.note(place, "The least value of a range comes first.")
        return low, high

    def code(self, section: Mapping[str, object], key: str, place: Place) -> Code | None:
        """Read a code and look it up; None where there is none."""
        if key not in section:
            return None
        code = self.three_texts(section[key], (*place, key))
        if code != NOTHING:
            for sentence in self.codes.mistakes(code):
                self.note((*place, key), sentence)
        return code

    def three_texts(self, value: object, place: Place) -> Code:
        """Read ``[SCHEME, "value", "meaning"]``."""
        if (
            not isinstance(value, list)
            or len(value) != 3
            or not all(isinstance(item, str) and item.strip() for item in value)
        ):
            self.note(place, 'A code is [SCHEME, "value", "meaning"].')
            return NOTHING
        written = value[1]
        if isinstance(written, Scalar) and written.plain and _NUMBER.fullmatch(written):
            self.note(
                place, f'Put {written} in quotes ("{written}"): without, YAML reads a number.'
            )
        scheme, text, meaning = map(str, value)
        return scheme, text, meaning

    def unique(self, names: Sequence[str]) -> None:
        """Tell ids that are there twice."""
        for number, name in enumerate(names):
            if name and name in names[:number]:
                self.note(("groups", number, "id"), f"The id {name} is there twice.")
