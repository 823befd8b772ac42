"""The infer step of a prognosis: a head and the rows of tables to a place between prototypes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from pydicom.dataset import Dataset

from models.base import BrokenPackage, UnfitInput
from models.dementia import TableScore, predict, refuse_unless_ready
from models.prognosis_package import Prognosis, load_prognosis
from pipelines.base import Misconfigured, NotScored, StepContext
from pipelines.steps.artefacts import Scored, load_volume, write_json
from pipelines.steps.infer import WARM_MODELS, keep
from pipelines.steps.packages import package_of
from pipelines.steps.read import read_series
from pipelines.steps.straighten import straightened
from storage.place import Place

PERSON = "person.json"
CONTRAST_MEDIUM = (
    "The images were made with contrast medium (Contrast/Bolus Agent); bright vessels and "
    "membranes would count as other tissue."
)
DAYS_IN_YEAR = 365.25
DAYS_OF = {"D": 1.0, "W": 7.0, "M": DAYS_IN_YEAR / 12, "Y": DAYS_IN_YEAR}
"""Days of the units of an Age String."""


def keep_person(context: StepContext) -> None:
    """Write ``person.json``: the patient's age at the study.

    Raises
    ------
    NotScored
        The images do not say it, or say that contrast medium was given.
    """
    (header,) = read_series([Place.from_text(context.spec.inputs[0])], pixels=False)
    if has_contrast_medium(header):
        raise NotScored("contrast_medium", CONTRAST_MEDIUM)
    age = age_years(header)
    if age is None:
        raise NotScored(
            "no_age",
            "The images say neither Patient's Birth Date (with a Study Date) nor Patient's Age; "
            "what age does to the brain cannot be told from disease without it.",
        )
    write_json({"age_years": age}, context.folder / PERSON)


def has_contrast_medium(ds: Dataset) -> bool:
    """Whether a scanner wrote that contrast medium was given (PS3.3 C.7.6.4, C.7.6.4b)."""
    agent = str(ds.get("ContrastBolusAgent") or "").strip().upper()
    named = agent not in ("", "NONE", "NO", "N", "WITHOUT")
    return named or bool(ds.get("ContrastBolusAgentSequence"))


def age_years(ds: Dataset) -> float | None:
    """Age at the study, from birth date and study date, else as the scanner wrote it."""
    born, studied = (_day(ds.get(keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is not None and studied is not None and born <= studied:
        return (studied - born).days / DAYS_IN_YEAR
    told = re.fullmatch(r"([0-9]{3})([DWMY])", str(ds.get("PatientAge") or "").strip())
    return int(told[1]) * DAYS_OF[told[2]] / DAYS_IN_YEAR if told else None


def _day(value: object) -> date | None:
    try:
        return datetime.strptime(str(value or ""), "%Y%m%d").date()  # noqa: DTZ007 - only a day
    except ValueError:
        return None


def infer(context: StepContext) -> Mapping[str, Any]:
    """Write ``findings.json`` with the prognosis, and ``mask.nii.gz`` with the tissues.

    Raises
    ------
    NotScored
        The volume is no T1-weighted head, or a score is missing or cannot be.
    Misconfigured
        The model package is missing, altered, or fails its own test.
    """
    context.progress(0.0, "loading the model")
    prognosis = warm_prognosis(context.spec.model)
    scores = scores_of(context.spec.rows, {feature.name for feature in prognosis.manifest.features})
    folder = context.output_of("convert")
    age = float(json.loads((folder / PERSON).read_text())["age_years"])
    try:
        refuse_unless_ready(prognosis.manifest, scores, age)
        source = load_volume(folder)
        volume = straightened(source)
        findings = predict(
            prognosis,
            volume,
            scores,
            age,
            lambda done: context.progress(0.1 + 0.8 * done, "segmenting"),
        )
    except UnfitInput as error:
        raise NotScored(error.reason, error.sentence) from error
    context.progress(0.95, "writing findings")
    keep(context, Scored(findings, prognosis.identity), source, volume)
    case = findings.prognosis
    return {
        "numbers": {n.name: n.value for n in findings.numbers if n.segment is None},
        "outcome": case.outcome if case else "",
        "reasons": [reason.code for reason in case.reasons] if case else [],
    }


def scores_of(rows: Mapping[str, Any], needed: Collection[str]) -> dict[str, TableScore]:
    """Values of all rows of a job, by field.

    Parameters
    ----------
    rows : mapping
        Inputs of the job.
    needed : collection of str
        Names that the model takes: text that is none of them is a remark, or a date.

    Raises
    ------
    NotScored
        A value that the model takes is no number, such as one with a decimal comma.
    Misconfigured
        Two tables have a field of the same name.
    """
    found: dict[str, TableScore] = {}
    for row in filter(_is_row, rows.values()):
        for name, value in row["values"].items():
            if isinstance(value, str):
                if value and name in needed:
                    raise NotScored(
                        "score_not_a_number",
                        f"The score {name} of table {row['table']} is there and is not a number.",
                    )
                continue
            if name in found:
                raise Misconfigured(
                    f"The tables {found[name].table} and {row['table']} both have a field {name}; "
                    "leave it out of one of them."
                )
            found[name] = TableScore(
                value=float(value),
                unit=row["units"].get(name, ""),
                table=row["table"],
                date=row["date"] or "",
                days_before=row["age_days"],
            )
    return found


def _is_row(value: Any) -> bool:
    """Whether an input is the row of a table, and not another rule's result or nothing."""
    return isinstance(value, Mapping) and {"table", "values"} <= value.keys()


def warm_prognosis(folder: str) -> Prognosis:
    """Load a prognosis, or return the one that is loaded already; verified every time.

    Raises
    ------
    Misconfigured
        The package is missing, altered, or of another kind.
    """
    return _prognosis(folder, package_of(folder).identity.sha256)


@lru_cache(maxsize=WARM_MODELS)
def _prognosis(folder: str, sha256: str) -> Prognosis:
    try:
        return load_prognosis(folder)
    except BrokenPackage as error:
        raise Misconfigured(f"The model package cannot be used: {error}") from error
