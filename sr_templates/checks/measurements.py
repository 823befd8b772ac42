"""Measurement reports: the rows of TID 1500 and of the templates it includes."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from sr_templates.checks.base import Found, Subject
from sr_templates.checks.segments import contributing_model
from sr_templates.checks.tree import Item, children, code, items, name

REPORT_TITLE = "126000"
TITLES = frozenset({"126000", "126001", "126002", "126003", "126020", "126021", "126022", "126023"})
"""CID 7021, with those that were added to it."""
LANGUAGE, OBSERVER_TYPE, OBSERVER_UID, OBSERVER_NAME = "121049", "121005", "121012", "121008"
DEVICE = "121007"
PROCEDURE, MEASUREMENTS, GROUP = "121058", "126010", "125007"
SECTIONS = frozenset({MEASUREMENTS, "126011", "C0034375"})
"""Imaging Measurements, Derived Imaging Measurements, Qualitative Evaluations."""
TRACKING_ID, TRACKING_UID, FINDING = "112039", "112040", "121071"
CATEGORY, SITE, METHOD = "276214006", "363698007", "370129005"
ALGORITHM_NAME, ALGORITHM_VERSION, ALGORITHM_MAKER = "111001", "111003", "122405"
RELATIONSHIPS = {
    LANGUAGE: "HAS CONCEPT MOD",
    PROCEDURE: "HAS CONCEPT MOD",
    OBSERVER_TYPE: "HAS OBS CONTEXT",
    OBSERVER_UID: "HAS OBS CONTEXT",
    OBSERVER_NAME: "HAS OBS CONTEXT",
    MEASUREMENTS: "CONTAINS",
    GROUP: "CONTAINS",
    TRACKING_ID: "HAS OBS CONTEXT",
    TRACKING_UID: "HAS OBS CONTEXT",
    FINDING: "CONTAINS",
    CATEGORY: "CONTAINS",
    SITE: "HAS CONCEPT MOD",
    METHOD: "HAS CONCEPT MOD",
    ALGORITHM_NAME: "HAS CONCEPT MOD",
    ALGORITHM_VERSION: "HAS CONCEPT MOD",
    "111000": "HAS CONCEPT MOD",
    "111002": "HAS CONCEPT MOD",
    "121191": "CONTAINS",
    "121233": "CONTAINS",
    "121112": "CONTAINS",
}
"""Relationship of each row to its parent: TID 1500, 1001-1004, 1204, 1411, 1501, 1419, 4019."""
OBSERVERS = ("121013", "121014", "121015", "121016", OBSERVER_UID)


def is_measurement_report(ds: Dataset) -> bool:
    """Whether a document says it is of TID 1500, or has its title."""
    template = ds.get("ContentTemplateSequence")
    if template:
        return str(template[0].get("TemplateIdentifier", "")) == "1500"
    return name(ds) in TITLES


def measurements(subject: Subject) -> Iterator[Found]:
    """Judge a measurement report."""
    ds = subject.ds
    if name(ds) not in TITLES:
        yield Found("title", "", "the document is no Imaging Measurement Report")
    if not ds.get("ContentTemplateSequence"):
        yield Found(
            "template_row", "ContentTemplateSequence", "does not name the template, TID 1500"
        )
    top = {name(item.ds): item for item in children(ds)}
    yield from _header(top, ds)
    if not SECTIONS & top.keys():
        yield Found("template_row", "", "the report has no Imaging Measurements")
    groups = groups_of(ds)
    if not groups:
        yield Found("template_row_own", "", "the report has no Measurement Group")
    for number, group in enumerate(groups, start=1):
        yield from _group(number, group)
    for item in items(ds):
        yield from _relationship(item)
    if subject.own:
        yield from _air(ds)


def groups_of(ds: Dataset) -> list[Item]:
    """Measurement Groups of a document, in their order."""
    return [item for item in items(ds) if name(item.ds) == GROUP]


def _header(top: dict[str, Item], ds: Dataset) -> Iterator[Found]:
    if LANGUAGE not in top:
        yield Found("template_row_own", "", "the report has no language")
    if PROCEDURE not in top:
        yield Found("template_row", "", "the report has no Procedure reported")
    device = any(code(i.ds) == DEVICE for i in children(ds) if name(i.ds) == OBSERVER_TYPE)
    if device and OBSERVER_UID not in top:
        yield Found("template_row", "", "the report has no Device Observer UID")
    elif not {OBSERVER_UID, OBSERVER_NAME} & top.keys():
        yield Found("template_row", "", "the report has no observer")


def _group(number: int, group: Item) -> Iterator[Found]:
    there = {name(item.ds) for item in children(group.ds)}
    rois = {"121191", "121214", "111030", "121231", "121055"} & there
    for concept, what, rule in (
        (TRACKING_ID, "Tracking Identifier", "template_row" if rois else "template_row_own"),
        (
            TRACKING_UID,
            "Tracking Unique Identifier",
            "template_row" if rois else "template_row_own",
        ),
        (FINDING, "Finding", "template_row_own"),
    ):
        if concept not in there:
            yield Found(rule, f"Measurement Group {number}", f"has no {what}")


def _relationship(item: Item) -> Iterator[Found]:
    found = str(item.ds.get("RelationshipType", ""))
    wanted = RELATIONSHIPS.get(name(item.ds))
    in_group = name(item.parent) == GROUP
    if in_group and item.ds.get("ValueType") == "NUM":
        wanted = "CONTAINS"
    elif not in_group and name(item.ds) in (FINDING, TRACKING_ID, TRACKING_UID, SITE):
        return  # the same names serve other rows elsewhere
    if wanted and found and found != wanted:
        sentence = f"is related by {found[:24]}, its row wants {wanted}"
        yield Found("relationship_template", item.where, sentence)


def _air(ds: Dataset) -> Iterator[Found]:
    """Observer, algorithm and Contributing Equipment name one model (IHE AIR 6.5.3.1)."""
    model = contributing_model(ds)
    if model is None:
        yield Found("air", "ContributingEquipmentSequence", "names no model with a DeviceUID")
        return
    wanted = {
        OBSERVER_UID: str(model.get("DeviceUID", "")),
        "121014": str(model.get("Manufacturer", "")),
        "121015": str(model.get("ManufacturerModelName", "")),
        ALGORITHM_NAME: str(model.get("ManufacturerModelName", "")),
        ALGORITHM_VERSION: str(model.get("SoftwareVersions", "")),
        ALGORITHM_MAKER: str(model.get("Manufacturer", "")),
    }
    for item in items(ds):
        value = wanted.get(name(item.ds))
        if value is not None and str(item.ds.get("TextValue", item.ds.get("UID", ""))) != value:
            yield Found("air", item.where, "differs from Contributing Equipment")
    for number, group in enumerate(groups_of(ds), start=1):
        there = {name(item.ds) for item in children(group.ds)}
        if not {ALGORITHM_NAME, ALGORITHM_VERSION} <= there:
            yield Found("air", f"Measurement Group {number}", "does not name its algorithm")
