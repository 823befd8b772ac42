"""Train the demonstration model for haemorrhage on our own head CT phantoms."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses.dice import DiceCELoss
from torch.optim.lr_scheduler import OneCycleLR

from models.base import Volume
from models.canonical import orientation_of
from models.catalogue import MANIFEST
from models.evaluation import evaluate, metrics_of
from models.network import NetworkConfig, build
from models.package import load_package
from models.phantom_ct import KINDS, HeadPhantom, make_head_ct
from models.training_package import card, write_package
from models.training_pictures import draw_cases, draw_curve
from models.unet import channels_of, deterministic, load_predictor, resampled

BATCH = 12
HELD_OUT_SHARE = 4
"""Every fourth phantom is held out."""
LEAST_PHANTOMS = 20
"""With fewer, no head without blood is held out."""
LEARNING_RATE = 4e-3
EMA_DECAY = 0.98
SLICES_MM = (4.0, 5.0, 6.0)
_BLOOD_KINDS = [kind for kind in KINDS if kind != "none"]

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Case:
    """A phantom as the network sees it.

    `stack` (slices, rows, columns) in HU, float16; `truth` the same shape, bool.
    """

    stack: torch.Tensor
    truth: torch.Tensor
    kind: str


def train_haemorrhage(
    out: Path,
    *,
    phantoms: int,
    steps: int,
    seed: int,
    progress: Progress,
    version: str = "0.1.0",
    pixel_mm: float = 1.0,
    slices_mm: Sequence[float] = SLICES_MM,
) -> dict[str, Any]:
    """Train, evaluate on phantoms held out, and write a model package.

    The same seed gives the same weights on the same machine's CPU.

    Parameters
    ----------
    out : Path
        Folder of the new package; a package that is there is replaced at the end.
    phantoms, steps, seed : int
        At least 20 phantoms and one step; a seed is not negative.
    progress : callable
        Told the fraction done and what is being done.
    version : str
        Of the package.
    pixel_mm : float
        Pixel size of the phantoms.
    slices_mm : sequence of float
        Slice distances of the phantoms, in turn.

    Returns
    -------
    dict
        Metrics on the held-out phantoms; also in ``metrics.json``.

    Raises
    ------
    ValueError
        There are too few phantoms or steps, or the folder holds something else than a package.
    """
    _refuse_unusable(out, phantoms, steps, seed)
    config = NetworkConfig()
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="scorenode-train-") as cache,
        tempfile.TemporaryDirectory(prefix=".train-", dir=out.parent) as work,
    ):
        grid = (pixel_mm, tuple(slices_mm))
        paths = _make_phantoms(Path(cache), phantoms, seed, grid, progress)
        held_out = paths[HELD_OUT_SHARE - 1 :: HELD_OUT_SHARE]
        training = [path for path in paths if path not in held_out]
        cases = [_case(_read(path), config) for path in training]
        with torch.random.fork_rng(devices=[]), deterministic():
            torch.manual_seed(seed)
            network, losses = _fit(cases, config, steps, seed, progress)
        summary: dict[str, str | int | float] = {
            "data": "head CT phantoms of this project",
            "phantoms": len(training),
            "held_out": len(held_out),
            "steps": steps,
            "seed": seed,
        }
        part = Path(work) / "package"
        part.mkdir()
        write_package(part, network, config, _read(held_out[0]).volume, summary, version)
        draw_curve(losses, part / "training.png")
        metrics = _write_evaluation(part, held_out, summary, version, progress)
        _put_in_place(part, out)
    progress(1.0, "done")
    return metrics


def _refuse_unusable(out: Path, phantoms: int, steps: int, seed: int) -> None:
    if phantoms < LEAST_PHANTOMS:
        raise ValueError(
            f"{phantoms} phantoms are too few: {LEAST_PHANTOMS} or more are needed, so that heads "
            "with and without blood are held out."
        )
    if steps < 1:
        raise ValueError(f"{steps} steps are too few: a network learns in 1 or more.")
    if seed < 0:
        raise ValueError(f"The seed is {seed}; wanted is 0 or more.")
    if out.exists() and not (out / MANIFEST).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} is there and is no model package; name another folder.")


def _write_evaluation(
    part: Path,
    held_out: Sequence[Path],
    summary: dict[str, str | int | float],
    version: str,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the package as it will be used, and write what came out beside it."""
    predictor = load_predictor(load_package(part), "cpu")
    results = []
    for number, path in enumerate(held_out):
        results.append(evaluate(predictor, _read(path)))
        progress(0.9 + 0.1 * number / len(held_out), "evaluating")
    metrics = metrics_of(results)
    (part / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (part / "MODEL_CARD.md").write_text(card(metrics, summary, version))
    draw_cases(results, part / "cases.png")
    return metrics


def _put_in_place(part: Path, out: Path) -> None:
    """Replace the old package, if there is one; it is gone only when the new one is complete."""
    if out.exists():
        out.replace(part.with_name("old"))
    part.replace(out)


def _make_phantoms(
    folder: Path,
    count: int,
    seed: int,
    grid: tuple[float, tuple[float, ...]],
    progress: Progress,
) -> list[Path]:
    """Make phantoms in two processes, kinds in equal shares."""
    paths = [folder / f"{i:05d}.npz" for i in range(count)]
    pixel, slices = grid
    tasks = [
        (seed * 100_003 + i, kind_of(i), (pixel, pixel, slices[i % len(slices)]), path)
        for i, path in enumerate(paths)
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_one, tasks, chunksize=2)):
            progress(0.35 * done / count, "making phantoms")
    return paths


def kind_of(i: int) -> str:
    """Give a fifth without blood, the rest in turn, so that every kind is held out too."""
    if i % 5 == 4:
        return "none"
    return _BLOOD_KINDS[(i + i // 20) % len(_BLOOD_KINDS)]


def _make_one(task: tuple[int, str, tuple[float, float, float], Path]) -> None:
    seed, kind, spacing, path = task
    phantom = make_head_ct(seed, kind, spacing=spacing)
    np.savez_compressed(
        path,
        array=np.round(phantom.volume.array).astype(np.int16),
        affine=phantom.volume.affine,
        labels=phantom.labels,
        kind=np.array(phantom.kind),
    )


def _read(path: Path) -> HeadPhantom:
    with np.load(path, allow_pickle=False) as found:
        volume = Volume(found["array"].astype(np.float32), found["affine"])
        return HeadPhantom(volume, found["labels"], str(found["kind"]))


def _case(phantom: HeadPhantom, config: NetworkConfig) -> Case:
    orientation = orientation_of(phantom.volume.affine)
    spacing = phantom.volume.spacing[list(orientation.axes)]
    stack = resampled(orientation.to_ras(phantom.volume.array), spacing, config)
    blood = (orientation.to_ras(phantom.labels) > 0).astype(np.float32) * 1024.0 - 1024.0
    # The same way as the image, then cut in the middle; padding is -1024 for both.
    truth = resampled(blood, spacing, config) > -512.0
    return Case(stack.half(), truth, phantom.kind)


def _fit(
    cases: Sequence[Case], config: NetworkConfig, steps: int, seed: int, progress: Progress
) -> tuple[torch.nn.Module, list[float]]:
    """Train; the averaged network and the loss of every step."""
    network = build(config)
    averaged = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    loss_of = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=2.0
    )
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    batches = _batches(cases, config, seed)
    losses: list[float] = []
    network.train()
    for step in range(steps):
        inputs, truth = next(batches)
        loss = loss_of(network(inputs), truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(network)
        losses.append(float(loss.detach()))
        progress(0.35 + 0.55 * step / steps, f"step {step}, loss {np.mean(losses[-20:]):.3f}")
    found: torch.nn.Module = averaged.module
    return found.eval(), losses


def _batches(
    cases: Sequence[Case], config: NetworkConfig, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for ever: half of the slices show blood, of every kind as often."""
    random = np.random.default_rng(seed)
    rows = max(case.stack.shape[1] for case in cases)
    columns = max(case.stack.shape[2] for case in cases)
    positive = {
        kind: [
            (i, int(z))
            for i, case in enumerate(cases)
            if case.kind == kind
            for z in torch.nonzero(case.truth.any(dim=(1, 2))).ravel()
        ]
        for kind in _BLOOD_KINDS
    }
    kinds = [kind for kind, places in positive.items() if places]
    every = [(i, z) for i, case in enumerate(cases) for z in range(case.stack.shape[0])]
    while True:
        chosen = [
            positive[kind][random.integers(len(positive[kind]))]
            for kind in random.choice(kinds, BATCH // 2)
        ]
        chosen += [every[j] for j in random.integers(len(every), size=BATCH - len(chosen))]
        pairs = [_slice(cases[i], z, config, rows, columns) for i, z in chosen]
        inputs = torch.stack([pair[0] for pair in pairs])
        truth = torch.stack([pair[1] for pair in pairs])
        yield _augmented(inputs, truth, random)


def _slice(
    case: Case, z: int, config: NetworkConfig, rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    near = slice(max(z - config.neighbours, 0), z + config.neighbours + 1)
    middle = torch.tensor([z - near.start])
    inputs = channels_of(case.stack[near].float(), middle, config)[0]
    pad = (0, columns - inputs.shape[2], 0, rows - inputs.shape[1])
    truth = F.pad(case.truth[z].float(), pad)[None]
    return F.pad(inputs, pad, value=-1.0), truth


def _augmented(
    inputs: torch.Tensor, truth: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, turn, scale and shift in the plane; change brightness, contrast and noise."""
    n = inputs.shape[0]
    angle = torch.tensor(random.normal(0, 0.12, n), dtype=torch.float32)
    scale = torch.tensor(random.uniform(0.9, 1.1, n), dtype=torch.float32)
    mirror = torch.tensor(random.choice([-1.0, 1.0], n), dtype=torch.float32)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * angle.sin(), mirror * scale * angle.cos()
    theta[:, :, 2] = torch.tensor(random.normal(0, 0.03, (n, 2)), dtype=torch.float32)
    grid = F.affine_grid(theta, list(inputs.shape), align_corners=False)
    inputs = F.grid_sample(inputs + 1.0, grid, align_corners=False) - 1.0
    truth = (F.grid_sample(truth, grid, align_corners=False) > 0.5).float()
    gain = torch.tensor(random.normal(1.0, 0.05, (n, 1, 1, 1)), dtype=torch.float32)
    bias = torch.tensor(random.normal(0.0, 0.05, (n, 1, 1, 1)), dtype=torch.float32)
    noise = torch.tensor(random.uniform(0.0, 0.08, (n, 1, 1, 1)), dtype=torch.float32)
    drawn = torch.from_numpy(random.standard_normal(tuple(inputs.shape), dtype=np.float32))
    return inputs * gain + bias + noise * drawn, truth
