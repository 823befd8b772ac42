"""Train a segmentation on labelled volumes, measure it on patients held out, write a package."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from models.base import Volume
from models.catalogue import MANIFEST
from models.evaluation import Judged, judge
from models.fitting import Fit, Processes, Progress
from models.folds import folds_of
from models.labelled_cases import BadData, LabelledCase, LabelledData, find_cases, read_case
from models.loading import load_predictor
from models.package import load_package
from models.recipe import Recipe
from models.segmentation_metrics import summary
from models.training_cases import LAYOUT, PreparedCase, prepare
from models.training_package import write_card, write_package
from models.training_pictures import draw_cases, draw_curve
from models.unet import deterministic

PREPARING, FITTING = 0.1, 0.9
"""Parts of the progress bar that are done after each."""
LOCK = "lock"


class Unusable(ValueError):
    """Raised when a training cannot begin: where the package goes, or how it is asked for."""


@dataclass(frozen=True)
class Split:
    """Which cases do what.

    Parameters
    ----------
    training, watched, held_out : tuple of int
        Numbers of cases.
    """

    training: tuple[int, ...]
    watched: tuple[int, ...]
    held_out: tuple[int, ...]


def train_segmentation(
    data: Path, recipe: Recipe, out: Path, progress: Progress, *, fold: int | None = 0
) -> dict[str, Any]:
    """Train on a folder and write a model package; killed and begun again it goes on.

    Cache and checkpoint are in a folder beside the package, which is removed at the end. The same
    seed gives the same weights on the same machine's CPU.

    Parameters
    ----------
    data : Path
        Labelled volumes, docs/training.md.
    recipe : Recipe
    out : Path
        Folder of the new package; a package that is there is replaced at the end.
    progress : callable
        Told the fraction done and what is being done.
    fold : int or None
        Which fold of patients is held out; None: nobody, and nothing is measured.

    Returns
    -------
    dict
        Metrics of the held-out cases; also in ``metrics.json``. Empty in other processes than the
        first, and when nobody is held out.

    Raises
    ------
    BadData
        The folder cannot be used; everything that is wrong is told.
    Unusable
        The fold is not there, `out` holds something else, or `work_folder` another training, or
        one that is going on.
    Diverged
        The loss is no longer a number.
    """
    refuse_unusable(out, recipe, fold)
    found = find_cases(data, recipe.classes)
    work = work_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    with _together() as processes, _alone(work, processes):
        cases = _prepared(found, recipe, work, processes, progress)
        split = _split(found.cases, cases, recipe, fold)
        with torch.random.fork_rng(devices=[]), deterministic():
            torch.manual_seed(recipe.training.seed)
            fit = _fit(found, cases, recipe, work, processes, split, fold)
            network = fit.run(
                lambda done, note: progress(PREPARING + (FITTING - PREPARING) * done, note),
                _watch(found, recipe, split, work) if processes.is_first else None,
            )
        if not processes.is_first:
            return {}
        part = work / "package"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        known = _known(found, recipe, split, fit, fold, processes.count)
        write_package(part, network, recipe, _sample(found, split), known)
        draw_curve(fit.progressed, part / "training.png")
        metrics = _measure(part, found, recipe, split, progress)
        write_card(part, recipe, known, metrics)
        _put_in_place(part, out)
        shutil.rmtree(work)
    progress(1.0, "done")
    return metrics


def first_makes(path: Path, make: Callable[[], None]) -> None:
    """Let the first of several processes make a file that is not there; the others wait for it."""
    if os.environ.get("RANK", "0") == "0":
        if not path.is_file():
            make()
        return
    while not path.is_file():
        time.sleep(0.5)


def work_folder(out: Path) -> Path:
    """Where cache and checkpoint of a training are."""
    return out.with_name(f"{out.name}.training")


def refuse_unusable(out: Path, recipe: Recipe, fold: int | None) -> None:
    """Refuse what can be refused before anything is read.

    Raises
    ------
    Unusable
        The fold is not there, or the folder holds something else than a package.
    """
    if fold is not None and not 0 <= fold < recipe.training.folds:
        raise Unusable(f"There is no fold {fold}; folds are 0 to {recipe.training.folds - 1}.")
    if out.exists() and not (out / MANIFEST).is_file() and (out.is_file() or any(out.iterdir())):
        raise Unusable(f"{out} is there and is no model package; name another folder.")


@contextmanager
def _together() -> Iterator[Processes]:
    """Join the other processes that ``torchrun`` started, if it did."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    has_gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    if count == 1:
        yield Processes(0, 1, device)
        return
    if has_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        yield Processes(rank, count, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def _alone(work: Path, processes: Processes) -> Iterator[None]:
    """Keep a second training out of the folder; the lock goes with the process, however it ends."""
    if not processes.is_first:
        yield
        return
    with (work / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable(
                f"Another training is going on in {work}; wait for it, or end it. Processes of a "
                "torchrun that was killed may still run."
            ) from None
        yield


def _prepared(
    found: LabelledData, recipe: Recipe, work: Path, processes: Processes, progress: Progress
) -> list[PreparedCase]:
    """Fill the cache, in one process; the others read it."""
    told = lambda done: progress(PREPARING * done, "preparing cases")  # noqa: E731
    cache = work / "cache" / _digest(found.fingerprint, recipe)
    if processes.is_first:
        cases = prepare(found.cases, found.values, recipe, cache, told)
    if processes.count > 1:
        dist.barrier()
    if not processes.is_first:
        cases = prepare(found.cases, found.values, recipe, cache, told)
    return cases


def _digest(fingerprint: str, recipe: Recipe) -> str:
    seen = recipe.slices.to_json() if recipe.slices else None
    steps = [step.model_dump(mode="json") for step in recipe.package.preprocess]
    told = [LAYOUT, fingerprint, recipe.classes, recipe.training.alike, seen, steps]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _split(
    cases: Sequence[LabelledCase],
    prepared: Sequence[PreparedCase],
    recipe: Recipe,
    fold: int | None,
) -> Split:
    rules = recipe.training
    if fold is None and rules.early_stop is None:
        return Split(tuple(range(len(cases))), (), ())
    numbers = folds_of(
        [case.patient for case in cases],
        [case.kind for case in cases],
        np.array([case.labelled_ml for case in prepared]),
        rules.folds,
        rules.seed,
    )
    out = np.flatnonzero(numbers == fold) if fold is not None else np.array([], int)
    watched = np.array([], int)
    if rules.early_stop is not None:
        beside = np.flatnonzero(numbers == ((fold or 0) + 1) % rules.folds)
        watched = beside[: rules.early_stop.cases]
    patients = {cases[i].patient for i in (*out, *watched)}
    training = tuple(i for i, case in enumerate(cases) if case.patient not in patients)
    return Split(training, tuple(watched.tolist()), tuple(out.tolist()))


def _fit(
    found: LabelledData,
    cases: Sequence[PreparedCase],
    recipe: Recipe,
    work: Path,
    processes: Processes,
    split: Split,
    fold: int | None,
) -> Fit:
    told = [LAYOUT, found.fingerprint, recipe.model_dump(mode="json"), fold, processes.count]
    fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    training = [cases[i] for i in split.training]
    if not any(len(places) for case in training for places in case.places):
        raise BadData(found.folder, ["no case that is trained on has a labelled voxel"])
    if (alike := recipe.training.alike) and not any(len(case.alike) for case in training):
        sentence = (
            f"training.alike: no case has a voxel without a label between {alike[0]:g} and "
            f"{alike[1]:g}; meant are HU in 2.5-D, else values after package.preprocess"
        )
        raise BadData(found.folder, [sentence])
    try:
        return Fit(recipe, training, processes, work / "checkpoint.safetensors", fingerprint)
    except ValueError as error:  # BrokenPackage is one: the network is not known
        raise Unusable(str(error)) from error


def _watch(
    found: LabelledData, recipe: Recipe, split: Split, work: Path
) -> Callable[[torch.nn.Module], float]:
    """Mean Dice of the watched cases, by a package as it would be used."""

    def watch(network: torch.nn.Module) -> float:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            part = Path(folder) / "package"
            part.mkdir()
            write_package(part, network, recipe, _sample(found, split), {})
            judged = _judged(part, found, recipe, split.watched, lambda done, note: None)
        return float(np.mean([one.scored.dice for one in judged]))

    return watch


def _sample(found: LabelledData, split: Split) -> Volume:
    """Take a case for the test vector."""
    volume, _ = read_case(found.cases[split.training[0]], found.values)
    return volume


def _known(
    found: LabelledData,
    recipe: Recipe,
    split: Split,
    fit: Fit,
    fold: int | None,
    processes: int,
) -> dict[str, str | int | float]:
    """Sum up the training for the manifest."""
    return {
        "data_sha256": found.fingerprint,
        "cases": len(split.training),
        "held_out": len(split.held_out),
        "fold": -1 if fold is None else fold,
        "steps": fit.progressed.step,
        "seed": recipe.training.seed,
        "processes": processes,
    }


def _measure(
    part: Path, found: LabelledData, recipe: Recipe, split: Split, progress: Progress
) -> dict[str, Any]:
    """Measure the package as it will be used, on the cases held out."""
    if not split.held_out:
        return {}
    judged = _judged(
        part,
        found,
        recipe,
        split.held_out,
        lambda done, note: progress(FITTING + (1 - FITTING) * done, note),
    )
    metrics = summary([one.scored for one in judged], recipe.names)
    (part / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    draw_cases(judged, recipe.names, part / "cases.png")
    return metrics


def _judged(
    package: Path, found: LabelledData, recipe: Recipe, numbers: Sequence[int], progress: Progress
) -> list[Judged]:
    predictor = load_predictor(load_package(package))
    judged = []
    for done, number in enumerate(numbers, start=1):
        case = found.cases[number]
        volume, truth = read_case(case, found.values)
        judged.append(judge(predictor, volume, truth, case, recipe))
        progress(done / len(numbers), f"measuring {case.name}")
    return judged


def _put_in_place(part: Path, out: Path) -> None:
    """Replace the old package, if there is one; it is gone only when the new one is complete."""
    if out.exists():
        old = part.with_name("old")
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
    part.replace(out)
