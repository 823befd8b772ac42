"""One step of one job: run in a fresh folder, put in place whole, end in a verdict."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import traceback
from pathlib import Path

from models.base import BrokenPackage, Recalled, UnfitInput
from models.package import refuse_recalled
from models.status import status_of
from pipelines.base import (
    FaultyResult,
    JobSpec,
    Misconfigured,
    NotScored,
    Progress,
    Step,
    StepContext,
    StepFunction,
    Transient,
    Verdict,
)
from pipelines.catalogue import pipeline_named

WAITING_HELPS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE})


def run_step(spec: JobSpec, step: Step, job_folder: Path, progress: Progress) -> Verdict:
    """Run a step and put its output into ``job_folder / step``.

    The step writes into a folder of its own, which is made durable and renamed when the step has
    ended well; a step may run any number of times, and output there is always complete.

    Parameters
    ----------
    spec : JobSpec
    step : Step
    job_folder : Path
        Exists, or is made; holds one folder per step that is done.
    progress : callable

    Returns
    -------
    Verdict
        ``ok`` with the facts the step told, or how it failed. Nothing but KeyboardInterrupt and
        SystemExit is raised. An unknown exception's own text is left out: it may hold patient
        data.
    """
    part = job_folder / f"{step}.part-{secrets.token_hex(4)}"
    try:
        part.mkdir(parents=True)
        function = _function(spec, step)
        facts = dict(function(StepContext(spec, part, job_folder, progress)))
        json.dumps(facts)
        put_in_place(part, job_folder / step)
    except Exception as error:  # noqa: BLE001 - the rim of the runner: every error is a verdict
        return verdict_of(error, step)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Verdict("ok", facts=facts)


def _function(spec: JobSpec, step: Step) -> StepFunction:
    if spec.notice is not None:
        from pipelines.steps.notice import notice  # loads highdicom

        return notice
    _refuse_recalled(Path(spec.model))
    return pipeline_named(spec.pipeline).step(step)


def _refuse_recalled(model: Path) -> None:
    """Stop at a model that was recalled since the job was opened, whatever the step."""
    try:
        status, reason = status_of(model)
        refuse_recalled(model, status, reason)
    except Recalled as error:
        raise Misconfigured(str(error)) from error
    except BrokenPackage:
        return  # the step that needs the package says what is wrong with it


def verdict_of(error: Exception, step: Step) -> Verdict:
    """Say what an exception of a step means for its job, without patient data."""
    match error:
        case NotScored() | UnfitInput():
            return Verdict("not_scored", error.reason, error.sentence)
        case Misconfigured():
            return Verdict("config", "misconfigured", str(error))
        case Transient():
            return Verdict("transient", "unavailable", str(error))
        case FaultyResult():
            return Verdict("bug", "faulty_result", str(error), {"traceback": _traceback(error)})
    if _is_out_of_memory(error):
        return Verdict(
            "transient", "out_of_memory", f"The {step} step ran out of memory; it is tried again."
        )
    if isinstance(error, OSError) and error.errno in WAITING_HELPS:
        word = os.strerror(error.errno)
        return Verdict("transient", "storage", f"The {step} step could not write or read: {word}.")
    return Verdict(
        "bug",
        type(error).__name__,
        f"The {step} step ended in {type(error).__name__} at {_places(error)[-1]}; this is a "
        "defect of scorenode or of the model, please report it with the traceback.",
        {"traceback": _traceback(error)},
    )


def put_in_place(part: Path, final: Path) -> None:
    """Make a folder durable and give it its final name, replacing an earlier one."""
    _sync_tree(part)
    old = None
    if final.exists():
        old = final.with_name(f"{final.name}.old-{secrets.token_hex(4)}")
        final.rename(old)
    part.rename(final)
    _sync(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_out_of_memory(error: Exception) -> bool:
    """MemoryError, torch.OutOfMemoryError, or what torch raises when the CPU has none left."""
    if isinstance(error, MemoryError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _traceback(error: BaseException) -> list[str]:
    """Kinds of exceptions and places, the cause first; no texts, no values."""
    lines: list[str] = []
    cause = error.__cause__ or error.__context__
    if cause is not None:
        lines += _traceback(cause)
    lines += [f"  {place}" for place in _places(error)]
    return [*lines, type(error).__name__]


def _places(error: BaseException) -> list[str]:
    """List module, line and function of each frame, outermost first."""
    frames = traceback.walk_tb(error.__traceback__)
    found = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in frames
    ]
    return found or ["an unknown place"]
