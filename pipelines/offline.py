"""Score a folder of DICOM files without network or database, by the same steps as the node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.uid import PYDICOM_ROOT_UID

from pipelines.base import (
    SLOTS,
    STEPS,
    JobSpec,
    Misconfigured,
    NotScored,
    Progress,
    SeriesLabel,
    Slot,
    Step,
    Verdict,
)
from pipelines.catalogue import pipeline_named
from pipelines.folders import FolderSeries, content_of
from pipelines.runner import Runner
from pipelines.steps.artefacts import load_volume
from pipelines.steps.nifti import write_nifti
from pipelines.steps.packages import package_of
from pipelines.steps.read import read_series
from pipelines.steps.run import put_in_place, run_step

ARTEFACTS = (
    *(("report", f"{slot}.dcm") for slot in SLOTS),
    ("report", "capture.png"),
    ("report", "findings.json"),
    ("infer", "mask.nii.gz"),
)
IMAGE = "image.nii.gz"
SUMMARY = "summary.json"
BY_HAND = "by hand"
"""Name of the table that scores of the command line stand in for."""
SHARE = {"convert": (0.0, 0.3), "infer": (0.3, 0.5), "report": (0.8, 0.2)}
"""Where each step starts on a series' progress, and how much of it it takes."""
StepRunner = Callable[[JobSpec, Step, Path, Progress], Verdict]


@dataclass(frozen=True)
class SeriesOutcome:
    """What became of one series of the folder.

    Parameters
    ----------
    series_instance_uid : str
        Empty for files that name no series or could not be read.
    modality : str
    instances : int
    verdict : Verdict
        The last step's; its `facts` hold those of all steps, by step.
    folder : Path or None
        Where the results lie; None where there are none.
    """

    series_instance_uid: str
    modality: str
    instances: int
    verdict: Verdict
    folder: Path | None


def score_folder(
    folder: Path,
    pipeline: str,
    model_folder: Path,
    out: Path,
    progress: Progress,
    *,
    at: datetime | None = None,
    uid_root: str = PYDICOM_ROOT_UID,
    labels: Mapping[Slot, SeriesLabel] | None = None,
    scores: Mapping[str, float] | None = None,
    run: StepRunner = run_step,
    named: Mapping[str, Path] | None = None,
    trust_code: bool = False,
) -> list[SeriesOutcome]:
    """Score every series of a folder that fits a pipeline.

    Results of a series go to ``OUT/<n>-<modality>/``: ``seg.dcm`` (where something is found),
    ``sr.dcm``, ``capture.dcm``, ``capture.png``, ``findings.json``, ``mask.nii.gz`` and
    ``image.nii.gz``; ``OUT/summary.json`` lists every series. Files that are not DICOM are
    passed over.

    Parameters
    ----------
    folder : Path
        Searched to any depth.
    pipeline : str
        Name in `pipelines.catalogue`.
    model_folder : Path
        A model package.
    out : Path
        Made when it is not there; results of an earlier run are replaced.
    progress : callable
    at : datetime or None
        Date and time in the results, timezone-aware; None: now.
    uid_root : str
        Root of the results' UIDs, ending in a dot.
    labels : mapping or None
        Series Number and Description of each kind of result; None: 9001 and up.
    scores : mapping or None
        What a table would say of the patient: name to value.
    run : callable
        Does one step, as `run_step` does; one that uses another process outlives decoders and
        models that crash.
    named : mapping or None
        Further inputs of the model by name: folders, each of one series.
    trust_code : bool
        Whether the model may run code of its own.

    Returns
    -------
    list of SeriesOutcome
        In the order of Series Number, what could not be read last.

    Raises
    ------
    Misconfigured
        The pipeline is unknown or the model package cannot be used.
    """
    wanted = pipeline_named(pipeline)
    package = package_of(str(model_folder))
    out.mkdir(parents=True, exist_ok=True)
    moment = at or datetime.now(UTC).astimezone()
    outcomes: list[SeriesOutcome] = []
    found = content_of(folder).series
    further = {name: _files_of(where) for name, where in (named or {}).items()}
    for index, series in enumerate(found):
        trouble = _unfit(series, wanted.modalities)
        if trouble is not None:
            outcomes.append(_outcome(series, trouble, None))
            continue
        spec = JobSpec(
            job_id=index + 1,
            pipeline=pipeline,
            inputs=tuple(str(path) for path in series.paths),
            model=str(model_folder),
            idem_key=_idem_key(series, package.identity.sha256, f"{pipeline} {wanted.version}"),
            uid_root=uid_root,
            station="offline",
            frozen_at=moment,
            labels={str(k): v for k, v in (labels or default_labels(pipeline)).items()},
            named=further,
            trust_code=trust_code,
            rows=_rows(scores or {}),
        )
        count = len(found)
        part = _share(progress, index / count, 1 / count, f"series {index + 1} of {count}: ")
        final = out / f"{index + 1}-{series.modality}"
        outcomes.append(_scored(series, spec, final, part, run))
    _write_summary(outcomes, out)
    progress(1.0, "done")
    return outcomes


def _rows(scores: Mapping[str, float]) -> dict[str, Any]:
    """Give scores the form of the row of a table."""
    if not scores:
        return {}
    row = {"table": BY_HAND, "values": dict(scores), "units": {}, "date": None, "age_days": None}
    return {BY_HAND: row}


def default_labels(pipeline: str) -> dict[Slot, SeriesLabel]:
    """Series Number and Description of results when no rule says otherwise."""
    return {
        "sr": SeriesLabel(9001, f"{pipeline} report"),
        "seg": SeriesLabel(9002, f"{pipeline} segmentation"),
        "capture": SeriesLabel(9003, f"{pipeline} summary"),
    }


def in_runner(memory_bytes: int = 0, deadline_seconds: float = 3600.0) -> StepRunner:
    """Make a function that does steps in a runner's child, where code of others belongs.

    Parameters
    ----------
    memory_bytes : int
        0: as much as there is.
    deadline_seconds : float
        Of one step.
    """
    runner = Runner()

    def run(spec: JobSpec, step: Step, job_folder: Path, progress: Progress) -> Verdict:
        job_folder.mkdir(parents=True, exist_ok=True)
        (job_folder / "job.json").write_text(spec.to_json())
        return runner.run(
            job_folder,
            step,
            deadline_seconds=deadline_seconds,
            memory_bytes=memory_bytes or 1 << 50,
            tick=progress,
        )

    return run


def _files_of(folder: Path) -> tuple[str, ...]:
    """Files of the one series of a folder.

    Raises
    ------
    Misconfigured
        There is none, or more than one.
    """
    found = content_of(folder).series
    if len(found) != 1:
        raise Misconfigured(f"{folder} holds {len(found)} series, wanted one.")
    return tuple(str(path) for path in found[0].paths)


def _scored(
    series: FolderSeries, spec: JobSpec, final: Path, progress: Progress, run: StepRunner
) -> SeriesOutcome:
    """Run the three steps in a temporary folder and keep what a person wants to see."""
    with tempfile.TemporaryDirectory(prefix=".scoring-", dir=final.parent) as scratch:
        job_folder = Path(scratch) / "job"
        facts: dict[str, object] = {}
        for step in STEPS:
            verdict = run(spec, step, job_folder, _share(progress, *SHARE[step]))
            facts[step] = dict(verdict.facts)
            if verdict.outcome != "ok":
                break
        kept = Path(scratch) / "kept"
        kept.mkdir()
        for home, name in ARTEFACTS:
            if (job_folder / home / name).exists():
                shutil.move(job_folder / home / name, kept / name)
        if (job_folder / "convert").exists():
            volume = load_volume(job_folder / "convert")
            with contextlib.suppress(NotScored):  # the steps have said what is wrong with it
                write_nifti([volume], lambda: read_series(series.paths), kept / IMAGE)
        if any(kept.iterdir()):
            put_in_place(kept, final)
        elif final.exists():
            shutil.rmtree(final)
    verdict = Verdict(verdict.outcome, verdict.reason, verdict.sentence, facts)
    return _outcome(series, verdict, final if final.exists() else None)


def _share(progress: Progress, start: float, share: float, prefix: str = "") -> Progress:
    """Progress of a part, told as progress of the whole."""

    def told(fraction: float, note: str) -> None:
        progress(start + share * fraction, prefix + note)

    return told


def _unfit(series: FolderSeries, modalities: frozenset[str]) -> Verdict | None:
    if series.trouble:
        return Verdict("not_scored", "unreadable_instance", series.trouble)
    if series.modality not in modalities:
        return Verdict(
            "not_scored",
            "wrong_modality",
            f"The series has Modality {series.modality}; the pipeline takes "
            f"{' or '.join(sorted(modalities))}.",
        )
    return None


def _outcome(series: FolderSeries, verdict: Verdict, folder: Path | None) -> SeriesOutcome:
    return SeriesOutcome(
        series.series_instance_uid, series.modality, len(series.paths), verdict, folder
    )


def _idem_key(series: FolderSeries, model: str, pipeline: str) -> str:
    """Digest of what decides the results: content of the files, model, pipeline."""
    digests = set()
    for path in series.paths:
        with path.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256("\n".join([*sorted(digests), model, pipeline]).encode()).hexdigest()


def _write_summary(outcomes: list[SeriesOutcome], out: Path) -> None:
    lines = [
        {**asdict(item), "folder": item.folder.name if item.folder else None} for item in outcomes
    ]
    (out / SUMMARY).write_text(json.dumps(lines, indent=1) + "\n")
