"""What a model says, as one nested mapping that dotted paths lead into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from models.base import CasePrognosis
from sr_templates.described import ITEM, OF_SEGMENTS, SEGMENTS, ReportTemplate, TemplateMismatch


@dataclass(frozen=True)
class Outputs:
    """What a model declares to say.

    Parameters
    ----------
    values : frozenset of str
        Paths to single values.
    lists : mapping
        Path of a list to the paths in each of its items.
    families : tuple of str
        Beginnings of further paths, whose ends the model decides.
    open_lists : frozenset of str
        Lists whose items may hold more, as the model decides.
    marks : bool
        Whether it marks voxels, so that there may be a Segmentation.
    """

    values: frozenset[str]
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    open_lists: frozenset[str] = frozenset()
    marks: bool = True

    def has(self, path: str) -> bool:
        """Whether a path outside of lists is declared."""
        return path in self.values or path.startswith(self.families)


SEGMENTATION_OUTPUTS = Outputs(
    frozenset({"present", "study.volume", "study.probability"}),
    {SEGMENTS: frozenset({"number", "label", "volume"})},
)
"""What every packaged segmentation model says: see `models.base.Findings`."""
PACKAGED_OUTPUTS = replace(
    SEGMENTATION_OUTPUTS, families=("study.",), open_lists=frozenset({SEGMENTS})
)
"""What any package may say, while it is not known which one is meant."""


def outputs_of_package(
    numbers: Iterable[str], of_segments: Iterable[str], *, marks: bool = True
) -> Outputs:
    """Return what a package says whose manifest names further numbers and classes.

    Parameters
    ----------
    numbers, of_segments : iterable of str
        Of the whole study, classes among them, and of single segments.
    marks : bool
        Whether it marks voxels.
    """
    said = SEGMENTATION_OUTPUTS
    return Outputs(
        said.values.union(f"study.{name}" for name in numbers),
        {SEGMENTS: said.lists[SEGMENTS].union(of_segments)},
        marks=marks,
    )


PROGNOSIS_OUTPUTS = Outputs(
    frozenset(["projection", "probability", "class", "threshold", "age_years", "population"]),
    {SEGMENTS: frozenset({"number", "label", "volume"})},
    ("inputs.", "volumes."),
)
"""What the pipeline dementia says: see `models.base.CasePrognosis`. ``class`` is stable,
progressive or undetermined; below ``inputs`` is each feature by name, with ``<name>_date`` and
``<name>_source``, unless it was not there; below ``volumes`` each region as ``<name>_ml``."""
NUMBER = frozenset({"name", "value", "segment"})
SEGMENT = frozenset({"number", "label"})
"""What each number and each segment of ``findings.json`` has."""
MARKS_NOTHING = (
    "The model marks nothing: none of its outputs is a mask or a map, so a {} group is never "
    "written. Write kind: image."
)
TOTALS = {"gm": "grey_matter", "wm": "white_matter", "icv": "intracranial"}
OUTPUTS: Mapping[str, Outputs] = {
    "segmentation": SEGMENTATION_OUTPUTS,
    "prognosis": PROGNOSIS_OUTPUTS,
}
"""By the kind of model that a pipeline runs."""


def view(data: Mapping[str, Any]) -> dict[str, Any]:
    """Give what ``findings.json`` holds the form that paths lead into.

    Numbers of the whole study and classes become ``study.<name>``, numbers of a segment ``<name>``
    in the item of its segment; what a prognosis says goes to the top. Everything else stays where
    it is.

    Parameters
    ----------
    data : mapping
        ``findings.json`` of a job, or the JSON of any other model.
    """
    seen = dict(data) | _of_prognosis(data.get("prognosis"))
    numbers = _items(data.get("numbers"), NUMBER)
    segments = _items(data.get(SEGMENTS), SEGMENT)
    if numbers is None or segments is None:
        return seen  # of another model, which may use the same words
    classes = data.get("classes")
    seen["study"] = {
        **(classes if isinstance(classes, Mapping) else {}),
        **{n["name"]: n["value"] for n in numbers if n["segment"] is None},
    }
    seen[SEGMENTS] = [
        {
            **{n["name"]: n["value"] for n in numbers if n["segment"] == segment["number"]},
            "number": segment["number"],
            "label": segment["label"],
        }
        for segment in segments
    ]
    return seen


def _items(value: object, keys: frozenset[str]) -> list[Mapping[str, Any]] | None:
    """Items of a list that all have some keys; None where it is no such list."""
    if not isinstance(value, list):
        return None
    is_ours = all(isinstance(item, Mapping) and keys <= item.keys() for item in value)
    return value if is_ours else None


def _of_prognosis(case: object) -> dict[str, Any]:
    if not isinstance(case, Mapping) or not {f.name for f in fields(CasePrognosis)} <= case.keys():
        return {}
    inputs: dict[str, Any] = {}
    for feature in case["features"]:
        name = feature["name"]
        if feature["source"] != "imputed":
            inputs |= {name: feature["value"], f"{name}_source": feature["source"]}
        if feature["date"]:
            inputs[f"{name}_date"] = feature["date"]
    outcome = case["outcome"]
    return {
        **{key: case[key] for key in ("projection", "probability", "threshold", "age_years")},
        "class": "progressive" if outcome == "declining" else outcome,
        "population": case["population"],
        "inputs": inputs,
        "volumes": {
            f"{TOTALS.get(name, name)}_ml": value for name, value in case["volumes_ml"].items()
        },
    }


def outputs_of(sample: Mapping[str, Any]) -> Outputs:
    """Return the outputs that a sample of a model's output has."""
    values: set[str] = set()
    lists: dict[str, frozenset[str]] = {}
    _collect(sample, "", values, lists)
    return Outputs(frozenset(values), lists)


def _collect(value: Any, path: str, values: set[str], lists: dict[str, frozenset[str]]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, f"{path}.{key}" if path else str(key), values, lists)
    elif isinstance(value, list):
        inside: set[str] = set()
        for item in value:
            if isinstance(item, Mapping):
                _collect(item, "", inside, {})
        lists[path] = frozenset(inside)
    else:
        values.add(path)


def pick(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path.

    Raises
    ------
    TemplateMismatch
        There is none; the sentence says where the path ends and what there is.
    """
    found: Any = data
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else "a single value"
            raise TemplateMismatch(
                f"the model's output has no {path} ({part} is not there; there is: {there[:200]})"
            )
        found = found[part]
    return found


def undeclared(
    template: ReportTemplate, outputs: Outputs
) -> list[tuple[tuple[str | int, ...], str]]:
    """List the paths of a template that a model does not declare: where, and a sentence.

    Returns
    -------
    list of tuple
        Place in the template's file, and what is wrong with the path that is there.
    """
    found: list[tuple[tuple[str | int, ...], str]] = []
    for number, group in enumerate(template.groups):
        place = ("groups", number)
        if group.for_each and group.for_each not in outputs.lists:
            known = ", ".join(sorted(outputs.lists)) or "none"
            found.append(
                ((*place, "for_each"), f"The model has no list {group.for_each}; lists: {known}.")
            )
            continue
        if group.kind in OF_SEGMENTS and not outputs.marks:
            found.append(((*place, "kind"), MARKS_NOTHING.format(group.kind)))
        items = outputs.lists.get(group.for_each, frozenset())
        lines = [
            *(("measurements", n, "value", m.value) for n, m in enumerate(group.measurements)),
            *(
                ("measurements", n, "observed", m.observed)
                for n, m in enumerate(group.measurements)
            ),
            *(("evaluations", n, "value", e.value) for n, e in enumerate(group.evaluations)),
        ]
        for section, index, key, path in lines:
            inside = path.startswith(f"{ITEM}.")
            if inside and not group.for_each:
                continue  # there is no item; told where the file is read
            told = path.removeprefix(f"{ITEM}.")
            is_open = group.for_each in outputs.open_lists
            if path and not (told in items or is_open if inside else outputs.has(path)):
                known = _listed(items if inside else (*outputs.values, *outputs.families))
                sentence = f"The model does not say {path}; here it says: {known}."
                found.append(((*place, section, index, key), sentence))
    return found


def _listed(paths: Iterable[str]) -> str:
    """Name paths, and beginnings of paths, for a sentence."""
    return ", ".join(f"{path}..." if path.endswith(".") else path for path in sorted(paths)) or (
        "nothing"
    )
