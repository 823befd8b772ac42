"""How the values of the file are written: JSON Schema of each form, and defaults as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from node.config.completion import EVIDENCE
from node.config.image import UpperBound
from node.config.peers import DEMANDS
from node.config.quantities import Amount, FreeSpace, Whole, Word, WordList
from node.config.rules import MODES

Schema = dict[str, Any]
_OFF = ("off", "no", False)
SHORT: Mapping[str, tuple[object, ...]] = {
    "_listen": _OFF,
    "_health": _OFF,
    "_mode": (*MODES, False),
    "_tls": DEMANDS,
}
"""Validators that also take a word in place of a section."""


@dataclass(frozen=True)
class Form:
    """JSON Schema of a value, and how a default reads."""

    schema: Schema
    show: Callable[[Any], str] = str


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _size(size: float) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("MiB", 1 << 20)):
        if size >= one and size % one == 0:
            return f"{size / one:g}{unit}"
    return f"{size:g}B" if size else ""


def _free(value: FreeSpace) -> str:
    return f"{value.percent:g}%" if value.percent is not None else _size(value.size_bytes or 0)


_TEXT: Schema = {"type": ["string", "number"]}
_STRING: Schema = {"type": "string"}
_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_DURATION: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?[smhdwySMHDWY]$"}
_SIZE: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?[KMGTkmgt]?[iI]?[bB]$"}
_SHARE: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?%$"}
_VALUES = {"anyOf": [_VALUE, _list_of(_VALUE)]}
_FORMS: Mapping[str, Form] = {
    "text": Form(_TEXT),
    "name": Form({"type": ["string", "number"]}),
    "flag": Form({"enum": [True, False, "yes", "no", "on", "off"]}, _flag),
    "seconds": Form(_DURATION, _duration),
    "durations": Form(
        _list_of(_DURATION), lambda found: f"[{', '.join(map(_duration, found))}]"
    ),
    "size_bytes": Form(_SIZE, _size),
    "size_or_off": Form({"anyOf": [_SIZE, {"enum": [*_OFF, 0]}]}, _size),
    "free_space": Form({"anyOf": [_SIZE, _SHARE]}, _free),
    "percent": Form(_SHARE),
    "day": Form({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}),
    "_report_template": Form({"type": "string"}),
    "day_window": Form(
        {"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2} ?- ?[0-9]{1,2}:[0-9]{2}$"}
    ),
    "version_range": Form({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+){0,2}(\\.x)?$"}),
    "pattern": Form(_STRING),
    "picks": Form(_list_of({
        "anyOf": [
            {"enum": ["most_slices", "newest", "oldest"]},
            {"type": "object", "properties": {"nearest": {
                "type": "object", "additionalProperties": _VALUE, "maxProperties": 1,
            }}, "required": ["nearest"], "additionalProperties": False},
        ],
    })),
    "_value": Form(_VALUE),
    "_bound": Form(_VALUE),
    "_upper_bound": Form(_VALUE),
    "_values": Form(_list_of(_VALUE)),
    "_value_or_values": Form(_VALUES),
    "_evidence": Form({"anyOf": [{"const": "none"}, _list_of({"enum": list(EVIDENCE)})]}),
    "ae_title": Form({"type": ["string"], "maxLength": 16}),
    **dict.fromkeys(("ae_titles", "networks", "fingerprints", "texts", "paths"),
                    Form(_list_of(_TEXT))),
    **dict.fromkeys(("host", "path", "_uid_root", "_station", "_database", "_broker", "_webhook",
                     "_web_url", "_https", "_separator", "_sql_name", "secret", "_key",
                     "_description"),
                    Form(_TEXT)),
}  # fmt: skip


def form_of(validator: Callable[..., object] | None) -> Form:
    """Say how the values that a validator reads are written.

    Raises
    ------
    KeyError
        Nobody has said so for this validator.
    """
    match validator:
        case UpperBound():
            return form_of(validator.read)
        case Word():
            words: list[object] = list(validator.words)
            return Form({"enum": words + [False] * bool({"off", "no"} & set(words))})
        case WordList():
            schema = _list_of({"enum": list(validator.words)}) | {"uniqueItems": True}
            if validator.words == ("sr", "capture"):
                schema = {"anyOf": [{"enum": ["sr", "capture"]}, schema]}
            return Form(schema)
        case Whole():
            return Form({"type": "integer", "minimum": validator.low, "maximum": validator.high})
        case Amount():
            unit = f" ?({validator.unit})?" if validator.unit else ""
            pattern = f"^[-+]?[0-9]+(\\.[0-9]+)?{unit}$"
            return Form({"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}]})
        case _:
            return _FORMS[validator.__name__ if validator else "none"]


def shown(default: object, validator: Callable[..., object] | None) -> str:
    """Write a default as it would stand in the file; empty where there is none."""
    if default is None or default in ("", ()) or is_dataclass(default):
        return _free(default) if isinstance(default, FreeSpace) else ""
    if isinstance(default, bool):
        return _flag(default)
    form = _FORMS.get(getattr(validator, "__name__", ""))
    if form is not None and form.show is not str:
        return form.show(default)
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    return str(default)
