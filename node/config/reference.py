"""The schema as data: JSON Schema for editors, and the reference for people.

Both are made from the annotations that read the file, and from `node.config.meanings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from node.config.base import INNER
from node.config.deliver import RESULT_NAMES
from node.config.forms import SHORT, form_of, shown
from node.config.meanings import MEANINGS, SECTIONS, Meaning
from node.config.peers import Peer
from node.config.quantities import FreeSpace
from node.config.rules import RuleLines
from node.config.sections import SECTIONS as SECTION_TYPES
from node.config.tables import Table
from node.routing_keys import ROUTING_KEYS

Schema = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Parameters
    ----------
    name : str
        As it is written.
    meaning : Meaning
    required : bool
    default : str
        As it would be written; empty: none, or it depends.
    section : type or None
        What is under it.
    many : str
        ``list`` or ``map`` where there are several, else empty.
    validator : callable or None
        What reads it.
    """

    name: str
    meaning: Meaning
    required: bool
    default: str
    section: type | None
    many: str
    validator: Callable[..., object] | None


def keys_of(kind: type) -> Iterator[Key]:
    """Describe every key of a section, in the order of the schema."""
    bare = get_type_hints(kind)
    rich = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        name, validator = _extras(rich[field.name])
        name = name or field.name
        if name.startswith(INNER):
            continue
        section, many = _inside(bare[field.name])
        required = field.default is MISSING and field.default_factory is MISSING
        yield Key(
            name,
            MEANINGS[kind.__name__][name],
            required,
            "" if required else shown(_default(field), validator),
            section,
            many,
            validator,
        )


def _default(field: Field[Any]) -> object:
    if field.default is not MISSING:
        return field.default
    made = field.default_factory() if field.default_factory is not MISSING else None
    return made if isinstance(made, FreeSpace) else None


def _extras(annotation: Any) -> tuple[str, Callable[..., object] | None]:
    """Name in the file and validator of a field, however deep its annotation holds them."""
    name, validator = "", None
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, FieldInfo) and extra.alias:
            name = extra.alias
        if isinstance(extra, BeforeValidator):
            validator = extra.func
    arguments, origin = get_args(annotation), get_origin(annotation)
    inside = arguments[:1] if origin in (Annotated, Union, UnionType) else ()
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inside = arguments[1:]
    for inner in inside:
        inner_name, inner_validator = _extras(inner)
        name, validator = name or inner_name, validator or inner_validator
    return name, validator


def _inside(annotation: Any) -> tuple[type | None, str]:
    """Section under a key, and whether there are several of it."""
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    if type(None) in get_args(annotation):
        return _inside(arguments[0])
    origin = get_origin(annotation)
    if origin is tuple and arguments:
        section, _ = _inside(arguments[0])
        return (section, "list") if section else (None, "")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _inside(arguments[1])[0], "map"
    is_section = isinstance(annotation, type) and annotation.__name__ in MEANINGS
    return (annotation, "") if is_section else (None, "")


def json_schema() -> Schema:
    """Make the JSON Schema of the file (draft 2020-12)."""
    schemas: dict[str, Schema] = {}
    properties: Schema = {"schema": {"const": 1}}
    for name, kind in SECTION_TYPES.items():
        properties[name] = _reference(kind, schemas)
    for name, kind in (("peers", Peer), ("tables", Table)):
        properties[name] = {"type": "object", "additionalProperties": _reference(kind, schemas)}
    properties["rules"] = {"type": "array", "items": _reference(RuleLines, schemas)}
    for name, meaning in SECTIONS.items():
        properties[name] = properties[name] | {"description": meaning.meaning}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "scorenode.yaml",
        "type": "object",
        "properties": properties,
        "required": ["schema", "node", "rules"],
        "additionalProperties": False,
        "$defs": schemas,
    }


def _reference(kind: type, schemas: dict[str, Schema]) -> Schema:
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = _section(kind, schemas)
    return {"$ref": f"#/$defs/{name}"}


def _section(kind: type, schemas: dict[str, Schema]) -> Schema:
    keys = list(keys_of(kind))
    schema: Schema = {
        "type": "object",
        "properties": {key.name: _property(key, schemas) for key in keys},
        "additionalProperties": False,
    }
    required = [key.name for key in keys if key.required]
    return schema | ({"required": required} if required else {})


def _property(key: Key, schemas: dict[str, Schema]) -> Schema:
    described: Schema = {"description": key.meaning.meaning}
    if key.section is None:
        form = form_of(key.validator).schema
        is_map = key.many == "map"
        return described | ({"type": "object", "additionalProperties": form} if is_map else form)
    inner = _reference(key.section, schemas)
    if key.name in ("when", "header"):
        value = {"anyOf": [{"type": ["string", "number", "boolean"]}, inner]}
        known = dict.fromkeys(sorted(ROUTING_KEYS), value)
        inner = {"type": "object", "properties": known, "additionalProperties": value}
    elif key.name == "fields":
        value = {"anyOf": [{"type": ["string", "null"]}, inner]}
        inner = {"type": "object", "additionalProperties": value}
    elif key.many == "map":
        inner = {"type": "object", "additionalProperties": inner}
        if key.name in ("accept_result", "only_if"):
            inner["propertyNames"] = {"enum": list(RESULT_NAMES)}
    elif key.many == "list":
        inner = {"type": "array", "items": inner}
    short = SHORT.get(getattr(key.validator, "__name__", ""))
    if key.name == "silence":
        inner = {"anyOf": [inner, _reference(key.section, schemas)]}
    elif short:
        inner = {"anyOf": [inner, {"enum": list(short)}]}
    return described | inner


def markdown() -> str:
    """Write the reference: every key with meaning, default and example."""
    lines = [
        "# Configuration reference",
        "",
        "Made by `scorenode config reference` from the schema that reads the file; do not edit.",
        "`scorenode config schema` prints the same as JSON Schema: an editor completes and checks",
        "the file with it, for example after the line",
        "`# yaml-language-server: $schema=scorenode.schema.json`.",
        "",
        *_table("Sections", [
            (name, meaning.meaning, "required" if name in ("schema", "node", "rules") else "",
             meaning.example)
            for name, meaning in SECTIONS.items()
        ]),
    ]  # fmt: skip
    seen: set[type] = set()
    starts: list[tuple[str, type]] = [*SECTION_TYPES.items()]
    starts[1:1] = [("peers.NAME", Peer)]
    starts += [("tables.NAME", Table), ("rules[]", RuleLines)]
    for path, kind in starts:
        lines += _chapter(path, kind, seen)
    return "\n".join(lines).rstrip() + "\n"


def _chapter(path: str, kind: type, seen: set[type]) -> Iterator[str]:
    if kind in seen:
        return
    seen.add(kind)
    keys = list(keys_of(kind))
    yield from _table(
        f"`{path}`",
        [
            (key.name, key.meaning.meaning, "required" if key.required else key.default,
             key.meaning.example)
            for key in keys
        ],
    )  # fmt: skip
    for key in keys:
        if key.section is not None:
            several = {"list": "[]", "map": ".KEYWORD", "": ""}[key.many]
            if key.name in ("inputs", "fields", "accept_result", "only_if"):
                several = ".NAME"
            yield from _chapter(f"{path}.{key.name}{several}", key.section, seen)


def _table(title: str, rows: list[tuple[str, str, str, str]]) -> list[str]:
    lines = [
        f"## {title}",
        "",
        "| key | meaning | default | example |",
        "| --- | --- | --- | --- |",
    ]
    for name, meaning, default, example in rows:
        marked = default if default in ("", "required") else f"`{default}`"
        cells = (f"`{name}`", meaning, marked, f"`{name}: {example}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]
