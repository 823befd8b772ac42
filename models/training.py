"""Train the demonstration model for haemorrhage on our own head CT phantoms."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.optim.lr_scheduler import OneCycleLR

from models.base import Volume
from models.canonical import orientation_of
from models.package import (
    FileEntry,
    Files,
    Input,
    Limits,
    Manifest,
    Postprocess,
    Runtime,
    SegmentEntry,
    TestVector,
    entry_for,
    load_package,
    write_manifest,
)
from models.phantom_ct import KINDS, HeadPhantom, make_head_ct
from models.training_pictures import draw_cases, draw_curve
from models.unet import NetworkConfig, UNetPredictor, build, channels_of, load_predictor, resampled

BATCH = 12
HELD_OUT_SHARE = 4
"""Every fourth phantom is held out."""
LEARNING_RATE = 4e-3
EMA_DECAY = 0.98
SLICE_MM = (4.0, 5.0, 6.0)
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
) -> dict[str, Any]:
    """Train, evaluate on phantoms held out, and write a model package.

    The same seed gives the same weights on the same machine's CPU.

    Parameters
    ----------
    out : Path
        Folder of the new package; replaced when it is there.
    phantoms, steps, seed : int
    progress : callable
        Told the fraction done and what is being done.

    Returns
    -------
    dict
        Metrics on the held-out phantoms; also in ``metrics.json``.
    """
    config = NetworkConfig()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory(prefix="scorenode-train-") as cache:
        paths = _make_phantoms(Path(cache), phantoms, seed, progress)
        held_out = paths[HELD_OUT_SHARE - 1 :: HELD_OUT_SHARE]
        training = [path for path in paths if path not in held_out]
        cases = [_case(_read(path), config) for path in training]
        network, losses = _fit(cases, config, steps, seed, progress)
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        summary: dict[str, str | int | float] = {
            "data": "head CT phantoms of this project",
            "phantoms": len(training),
            "held_out": len(held_out),
            "steps": steps,
            "seed": seed,
        }
        _write_package(out, network, config, _read(held_out[0]).volume, summary, version)
        predictor = load_predictor(load_package(out), "cpu")
        results = list(_evaluate(predictor, held_out, progress))
    metrics = _metrics(results)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (out / "MODEL_CARD.md").write_text(_card(metrics, summary, version))
    draw_curve(losses, out / "training.png")
    draw_cases(results, out / "cases.png")
    progress(1.0, "done")
    return metrics


def _make_phantoms(folder: Path, count: int, seed: int, progress: Progress) -> list[Path]:
    """Make phantoms in two processes, kinds in equal shares."""
    paths = [folder / f"{i:05d}.npz" for i in range(count)]
    tasks = [(seed * 100_003 + i, _kind(i), SLICE_MM[i % 3], p) for i, p in enumerate(paths)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_one, tasks, chunksize=2)):
            progress(0.35 * done / count, "making phantoms")
    return paths


def _kind(i: int) -> str:
    """Give a fifth without blood, the rest in turn, so that every kind is held out too."""
    if i % 5 == 4:
        return "none"
    return _BLOOD_KINDS[(i + i // 20) % len(_BLOOD_KINDS)]


def _make_one(task: tuple[int, str, float, Path]) -> None:
    seed, kind, thickness, path = task
    phantom = make_head_ct(seed, kind, spacing=(1.0, 1.0, thickness))
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


def _write_package(
    out: Path,
    network: torch.nn.Module,
    config: NetworkConfig,
    sample: Volume,
    summary: dict[str, str | int | float],
    version: str,
) -> None:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, out / "weights.safetensors")
    (out / "arch.json").write_text(json.dumps(config.to_json(), indent=1) + "\n")
    blank = FileEntry(path="test_vector.npz", sha256="0" * 64)
    files = Files(
        weights=entry_for(out, "weights.safetensors"),
        config=entry_for(out, "arch.json"),
        test_vector=blank,
    )
    manifest = Manifest(
        schema_="scorenode-model/1",
        family="haemorrhage-unet",
        version=version,
        title="Intracranial haemorrhage, non-contrast head CT",
        intended_use="demonstration",
        licence="Apache-2.0",
        finding=("SCT", "1386000", "Intracranial hemorrhage"),
        files=files,
        runtime=Runtime(kind="torch-safetensors", architecture="monai-unet-2.5d"),
        input=Input(
            modality="CT",
            plane="axial",
            slices=Limits(min=12, max=600),
            slice_step_mm=Limits(min=0.4, max=10.0),
            coverage_mm=Limits(min=80.0, max=400.0),
            content="head-ct",
        ),
        segments=(
            SegmentEntry(
                number=1,
                label="Haemorrhage",
                category=("SCT", "49755003", "Morphologically Abnormal Structure"),
                type=("SCT", "50960005", "Hemorrhage"),
                anatomic_region=("SCT", "12738006", "Brain"),
                color=(255, 40, 40),
            ),
        ),
        postprocess=Postprocess(threshold=0.5, min_component_ml=0.1),
        test_vector=TestVector(atol=5e-3),
        training=summary,
    )
    _write_test_vector(out, network, config, sample, manifest)
    entry = entry_for(out, "test_vector.npz")
    complete = files.model_copy(update={"test_vector": entry})
    write_manifest(out, manifest.model_copy(update={"files": complete}))


def _write_test_vector(
    out: Path,
    network: torch.nn.Module,
    config: NetworkConfig,
    sample: Volume,
    manifest: Manifest,
) -> None:
    """Keep a small piece of a volume and what the network says of it."""
    middle = sample.array.shape[2] // 2
    array = np.round(sample.array[::3, ::3, middle - 1 : middle + 2])
    affine = sample.affine @ np.diag([3.0, 3.0, 1.0, 1.0])
    piece = Volume(array.astype(np.float32), affine)
    predictor = UNetPredictor.__new__(UNetPredictor)
    predictor._network, predictor._config = network, config
    predictor._device = torch.device("cpu")
    probabilities = predictor.probabilities(piece, lambda done: None)
    np.savez_compressed(
        out / "test_vector.npz",
        array=array.astype(np.int16),
        affine=affine,
        probabilities=probabilities.astype(np.float16),
    )


@dataclass(frozen=True, eq=False)
class Result:
    """How one held-out phantom came out; volumes in ml."""

    kind: str
    dice: float
    truth_ml: float
    found_ml: float
    overlap_ml: float
    probability: float
    array: NDArray[np.float32]
    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]


def _evaluate(
    predictor: UNetPredictor, paths: Sequence[Path], progress: Progress
) -> Iterator[Result]:
    for number, path in enumerate(paths):
        phantom = _read(path)
        findings = predictor.predict(phantom.volume, lambda done: None)
        assert findings.labels is not None  # noqa: S101 - this model labels voxels
        found, truth = findings.labels > 0, phantom.labels > 0
        overlap, both = int((found & truth).sum()), int(found.sum() + truth.sum())
        ml = phantom.volume.voxel_ml
        yield Result(
            kind=phantom.kind,
            dice=2.0 * overlap / both if both else 1.0,
            truth_ml=float(truth.sum()) * ml,
            found_ml=float(found.sum()) * ml,
            overlap_ml=overlap * ml,
            probability=findings.number("probability"),
            array=phantom.volume.array,
            truth=truth,
            found=found,
        )
        progress(0.9 + 0.1 * number / len(paths), "evaluating")


def _metrics(results: Sequence[Result]) -> dict[str, Any]:
    """Sum up; Dice over phantoms with blood, false blood over those without."""
    bleeds = [result for result in results if result.kind != "none"]
    clean = [result for result in results if result.kind == "none"]
    errors = [abs(result.found_ml - result.truth_ml) for result in bleeds]
    dice = [result.dice for result in bleeds]
    return {
        "held_out": len(results),
        "dice_mean": round(float(np.mean(dice)), 4),
        "dice_median": round(float(np.median(dice)), 4),
        "dice_by_kind": {
            kind: round(float(np.mean([r.dice for r in bleeds if r.kind == kind])), 4)
            for kind in sorted({result.kind for result in bleeds})
        },
        "volume_mae_ml": round(float(np.mean(errors)), 3),
        "truth_mean_ml": round(float(np.mean([r.truth_ml for r in bleeds])), 3),
        "detected": sum(result.overlap_ml > 0.1 for result in bleeds),
        "with_blood": len(bleeds),
        "false_blood_median_ml": round(float(np.median([r.found_ml for r in clean])), 3),
        "false_blood_worst_ml": round(float(max(r.found_ml for r in clean)), 3),
    }


def _card(metrics: dict[str, Any], summary: dict[str, Any], version: str) -> str:
    kinds = ", ".join(f"{kind} {dice:.2f}" for kind, dice in metrics["dice_by_kind"].items())
    return f"""# Haemorrhage on head CT, demonstration model {version}

**Not for clinical use.** Trained and tested on synthetic head CT phantoms only; it has never seen a
patient's blood. It shows that the path from C-STORE to SEG and SR works.

- Input: non-contrast head CT, axial, evenly spaced slices 0.4 to 10 mm apart, 80 to 400 mm long. A
  series without a brain inside a skull is refused.
- Network: MONAI U-Net, 2.5-D (a slice and its neighbours), batch norm, 1.25 mm pixels.
- Training: {summary["phantoms"]} phantoms, {summary["steps"]} steps, seed {summary["seed"]}:
  `scorenode train haemorrhage --phantoms {summary["phantoms"] + summary["held_out"]} \
--steps {summary["steps"]} --seed {summary["seed"]} --out DIR`
- {metrics["held_out"]} phantoms held out: Dice mean {metrics["dice_mean"]:.3f}, median \
{metrics["dice_median"]:.3f} ({kinds}); volume off by {metrics["volume_mae_ml"]:.1f} ml on a mean \
of {metrics["truth_mean_ml"]:.1f} ml; {metrics["detected"]} of {metrics["with_blood"]} found; false \
blood median {metrics["false_blood_median_ml"]:.2f} ml, worst {metrics["false_blood_worst_ml"]:.2f} ml.
- The probability is not calibrated.
"""
