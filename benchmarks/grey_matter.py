"""Grey matter of phantoms whose truth is known, beside N4 and Atropos given the true mask.

``python -m benchmarks.grey_matter --out FOLDER``: one JSON file for each case, so that a run may
be cut off and goes on later; then the page. ANTs lives in an environment of its own, made on
first use. ``--only standard`` and the like choose groups; ``--count`` says how many phantoms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANTSPYX = "antspyx==0.6.3"
STANDARD = 20
POSED = 200
STARTS_RIGHT = 0.85
"""Brain Dice of the affine map alone."""
Result = dict[str, float]


def main() -> None:
    """Measure what is not measured yet, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ants", type=Path, default=None, help="environment with antspyx")
    parser.add_argument("--only", choices=sorted(GROUPS), action="append")
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", type=Path, default=None)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = given.only or list(GROUPS)
    python: list[str] = []
    if "atropos" in wanted:
        python = ants_python(given.ants or given.out / "ants", given.threads)
    for group in wanted:
        GROUPS[group](given.out, python, given.count)
    from benchmarks.grey_matter_page import page

    text = page(load(given.out))
    print(text)
    if given.markdown:
        given.markdown.write_text(text)


def ants_python(folder: Path, threads: int) -> list[str]:
    """Make the environment of ANTs where it is missing; return how to start its Python."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", ANTSPYX], check=True)
    limit = f"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS={threads}"
    return ["env", limit, str(python), str(Path(__file__).with_name("atropos.py"))]


def load(folder: Path) -> dict[str, Result]:
    """Read what was measured, by name of case."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def once(folder: Path, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
    """Measure a case unless its file is there."""
    path = folder / f"{name}.json"
    if path.exists():
        return
    found = measure()
    path.write_text(json.dumps(dict(found), indent=1))
    shown = "  ".join(f"{key} {value:.4g}" for key, value in found.items())
    print(f"{name}: {shown}", flush=True)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Twice what is in both, by what is in each."""
    each = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / max(each, 1)


def labels(parts: NDArray[np.float32]) -> NDArray[np.intp]:
    """Most of what each voxel is: 0 GM, 1 WM, 2 CSF, 3 the rest."""
    rest = np.clip(1 - parts.sum(axis=0, keepdims=True), 0, 1)
    found: NDArray[np.intp] = np.concatenate([parts, rest]).argmax(axis=0)
    return found


def compare(found: NDArray[np.float32], true: NDArray[np.float32]) -> Result:
    """Compare fractions of GM, WM and CSF, shape (3, ...), over the whole head."""
    ours, truth = labels(found), labels(true)
    inside = true.sum(axis=0) > 0.5
    masked = found[:, inside]
    within = (masked.argmax(axis=0) == 0) & (masked.sum(axis=0) > 0)
    return {
        "gm_dice": dice(ours == 0, truth == 0),
        "wm_dice": dice(ours == 1, truth == 1),
        "csf_dice": dice(ours == 2, truth == 2),
        "gm_dice_in_mask": dice(within, true[:, inside].argmax(axis=0) == 0),
        "brain_dice": dice(ours < 2, truth < 2),
        "gm_error_percent": 100 * float(found[0].sum() / true[0].sum() - 1),
        "gm_fraction_error": float(np.abs(found[0] - true[0])[inside].mean()),
    }


def _segmented(phantom: Any) -> tuple[Any, Result]:
    from models.grey_matter import segment_tissues
    from models.tissue_priors import default_priors

    default_priors()
    start, cpu = time.perf_counter(), time.process_time()
    tissues = segment_tissues(phantom.volume)
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    spent["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    true = np.stack([phantom.gm, phantom.wm, phantom.csf])
    return tissues, {**compare(np.stack([tissues.gm, tissues.wm, tissues.csf]), true), **spent}


def _with_ants(phantom: Any, python: list[str]) -> Result:
    true = np.stack([phantom.gm, phantom.wm, phantom.csf])
    with tempfile.TemporaryDirectory() as folder:
        case, out = Path(folder) / "case.npz", Path(folder) / "out.npz"
        mask = true.sum(axis=0) > 0.5
        np.savez(case, t1=phantom.volume.array, mask=mask, spacing=phantom.volume.spacing)
        subprocess.run([*python, str(case), str(out)], check=True, stdout=subprocess.DEVNULL)
        with np.load(out) as data:
            found = np.stack([data["gm"], data["wm"], data["csf"]])
            seconds = data["seconds"]
    result = compare(found, true)
    spent = {"seconds": float(seconds[0]), "cpu_seconds": float(seconds[1])}
    return {**result, **spent}


def _standard(out: Path, python: list[str], count: int | None) -> None:
    """Segment whole heads at 1 mm, no mask given."""
    from models.phantom_t1 import make_t1_head

    for seed in range(count or STANDARD):

        def measure(seed: int = seed) -> Result:
            return _segmented(make_t1_head(seed))[1]

        once(out, f"standard_{seed:02d}", measure)


def _atropos(out: Path, python: list[str], count: int | None) -> None:
    """Give N4 and Atropos the same heads and the true mask."""
    from models.phantom_t1 import make_t1_head

    for seed in range(count or STANDARD):
        once(
            out,
            f"atropos_{seed:02d}",
            lambda seed=seed: _with_ants(make_t1_head(seed), python),  # type: ignore[misc]
        )


def _hard(out: Path, python: list[str], count: int | None) -> None:
    """Make it harder: noise, bias, thick slices, motion, another contrast, atrophy."""
    from models.phantom_t1 import HeadShape, Scan, make_t1_head

    cases = {
        "noise9_bias40": (None, Scan(noise=0.09, bias=0.4)),
        "thick5": (None, Scan(spacing=(1.0, 1.0, 5.0))),
        "ghosts": (None, Scan(ghosts=0.15)),
        "contrast15": (None, Scan(contrast="t1_15t")),
        "atrophy": (HeadShape(atrophy=0.25), None),
    }
    for name, (shape, scan) in cases.items():
        for seed in range(100, 100 + (count or 2)):

            def measure(shape: Any = shape, scan: Any = scan, seed: int = seed) -> Result:
                return _segmented(make_t1_head(seed, shape, scan))[1]

            once(out, f"hard_{name}_{seed}", measure)


def _loss(out: Path, python: list[str], count: int | None) -> None:
    """Take a tenth of both hippocampi, and scan again: other noise, bias and pose."""
    from models.phantom_t1 import HeadShape, Scan, make_t1_head
    from models.regions import regional_volumes

    for seed in range(200, 200 + (count or 6)):
        for part in (0.0, 0.1):

            def measure(seed: int = seed, part: float = part) -> Result:
                scan = Scan(number=int(part * 10), turn_degrees=(3.0 * (part > 0), 0.0, 2.0))
                phantom = make_t1_head(seed, HeadShape(hippocampal_loss=part), scan)
                tissues, result = _segmented(phantom)
                found = regional_volumes(tissues).values_ml
                both = found["hippocampus_left"] + found["hippocampus_right"]
                return {**result, "hippocampi_ml": both, "true_ml": phantom.hippocampal_ml}

            once(out, f"loss_{seed}_{round(100 * part):02d}", measure)


def _retest(out: Path, python: list[str], count: int | None) -> None:
    """Scan heads four times."""
    from models.phantom_t1 import Scan, make_t1_head

    for seed in range(300, 300 + (count or 3)):
        for number in range(4):

            def measure(seed: int = seed, number: int = number) -> Result:
                turn = np.random.default_rng([seed, number]).uniform(-8, 8, 3)
                scan = Scan(number=number, turn_degrees=(turn[0], turn[1], turn[2]))
                phantom = make_t1_head(seed, scan=scan)
                tissues, result = _segmented(phantom)
                return {**result, "gm_ml": tissues.millilitres(tissues.gm)}

            once(out, f"retest_{seed}_{number}", measure)


def _posed(out: Path, python: list[str], count: int | None) -> None:
    """Turn, shift and scale heads, in any order of axes; see whether the fit starts right."""
    for seed in range(1000, 1000 + (count or POSED)):
        once(out, f"posed_{seed}", lambda seed=seed: posed(seed))  # type: ignore[misc]


def posed(seed: int) -> Result:
    """Start on one posed phantom of 3 mm; brain Dice of the affine map alone.

    Where that is low, the head is segmented to the end too.
    """
    import torch

    from models.phantom_t1 import Scan, make_t1_head
    from models.tissue_grid import outline, points, scanned
    from models.tissue_priors import default_priors
    from models.tissue_start import find_start

    random = np.random.default_rng(seed)
    turn = random.uniform((-25, -20, -20), (25, 20, 20))
    shift = random.uniform(-60, 60, 3)
    order = random.permutation(3) + 1
    sign = random.choice((-1, 1), 3)
    scan = Scan(
        spacing=(3.0, 3.0, 3.0),
        turn_degrees=(turn[0], turn[1], turn[2]),
        scale=float(random.uniform(0.8, 1.25)),
        offset_mm=(shift[0], shift[1], shift[2]),
        axes=(int(order[0] * sign[0]), int(order[1] * sign[1]), int(order[2] * sign[2])),
    )
    phantom = make_t1_head(seed, scan=scan)
    start, cpu = time.perf_counter(), time.process_time()
    seen = scanned(phantom.volume, torch.device("cpu"))
    head, priors = outline(seen), default_priors()
    affine, _, cost = find_start(seen, head, points(seen, head, 8.0), priors)
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    index = np.indices(seen.signal.shape).reshape(3, -1).T * seen.spacing
    maps = priors.at(affine(torch.tensor(index, dtype=torch.float32)))
    likely = (maps[0] + maps[1] > 0.5).reshape(seen.signal.shape).numpy()
    true = seen.orientation.to_ras(phantom.gm + phantom.wm) > 0.5
    result = {"start_dice": dice(likely, true), "cost": cost, "scale": scan.scale, **spent}
    if result["start_dice"] >= STARTS_RIGHT:
        return result
    whole = _segmented(phantom)[1]
    return {**result, **{key: whole[key] for key in ("gm_dice", "brain_dice", "gm_error_percent")}}


GROUPS: dict[str, Callable[[Path, list[str], int | None], None]] = {
    "standard": _standard,
    "atropos": _atropos,
    "hard": _hard,
    "loss": _loss,
    "retest": _retest,
    "posed": _posed,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
