"""What pydantic says of the file, in sentences for an admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from node.config.base import INNER
from node.config.condition_lines import ConditionLine, unknown_operator
from node.config.problems import did_you_mean, one_of
from node.config.quantities import shape
from node.config.yaml_lines import Path as Place


def where(place: Place, root: Mapping[str, object]) -> str:
    """Name a place of the file: ``rule head-ct, when.Modality`` or ``node.listen.port``."""
    match place:
        case ():
            return "file"
        case ("rules", int(number), *rest):
            return ", ".join(filter(None, (f"rule {_rule_name(root, number)}", _dotted(rest))))
        case ("tables", name, *rest):
            return ", ".join(filter(None, (f"table {name}", _dotted(rest))))
        case ("peers", name, *rest):
            return ", ".join(filter(None, (f"peer {name}", _dotted(rest))))
        case _:
            return _dotted(place)


def _rule_name(root: Mapping[str, object], number: int) -> str:
    rules = root.get("rules")
    rule = rules[number] if isinstance(rules, list) and number < len(rules) else None
    name = rule.get("name") if isinstance(rule, dict) else None
    return str(name)[:64] if isinstance(name, str) else str(number + 1)


def _dotted(parts: Place | list[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{str(part)[:64]}"
    return text.removeprefix(".")


def sentence(kind: type, mistake: ErrorDetails) -> str:
    """Say what is wrong, and what to write instead.

    Parameters
    ----------
    kind : type
        Dataclass that was read.
    mistake : ErrorDetails
        One of pydantic's errors; the values in it are never quoted here.
    """
    location = mistake["loc"]
    match mistake["type"]:
        case "value_error":
            return str(mistake["ctx"]["error"])
        case "missing":
            return f"The key {location[-1]} is missing."
        case "unexpected_keyword_argument":
            return _unknown_key(kind, location)
        case "dataclass_type":
            return f"This wants a section of keys, not {shape(mistake['input'])}."
        case "tuple_type" | "list_type":
            return f"This wants a list, not {shape(mistake['input'])}."
        case _:
            return f"{mistake['msg']}."


def _unknown_key(kind: type, location: tuple[int | str, ...]) -> str:
    key = str(location[-1])
    schema = _schema_at(kind, location[:-1])
    if schema is ConditionLine:
        return unknown_operator(key)
    known = [name for name in _fields(schema) if not name.startswith(INNER)]
    near = did_you_mean(key[:64], known) or f" Known here: {one_of(known)}."
    return f"The key '{key[:64]}' is not known.{near}"


def _schema_at(kind: type, location: tuple[int | str, ...]) -> type:
    annotation: Any = kind
    for part in location:
        arguments = get_args(annotation)
        if get_origin(annotation) is tuple:
            annotation = arguments[0]
        elif arguments:
            annotation = arguments[1]
        else:
            annotation = _fields(annotation)[str(part)]
        annotation = _bare(annotation)
    result: type = annotation
    return result


def _bare(annotation: Any) -> Any:
    """Strip None from an optional type."""
    kinds = [argument for argument in get_args(annotation) if argument is not type(None)]
    return kinds[0] if type(None) in get_args(annotation) else annotation


def _fields(kind: type) -> dict[str, Any]:
    """Names of a section's keys in the file, and their types without annotations."""
    bare = get_type_hints(kind)
    fields = {}
    for name, annotation in get_type_hints(kind, include_extras=True).items():
        if not name.startswith("_"):
            fields[_alias(annotation) or name] = bare[name]
    return fields


def _alias(annotation: Any) -> str | None:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, FieldInfo) and extra.alias:
            return extra.alias
    return None
