"""Conversions in a fresh process: ``python -m benchmarks.convert_once TOOL SOURCE OUT``.

TOOL is ``dicom2nifti``; ``ours``, which converts the folder `ROUNDS` times over, as a runner does
that stays; or ``reading``, which makes a series of CT slices in OUT and reads it `ROUNDS` times.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROUNDS = 8
SLICES = 300
BLOCK = 4096


def _peak_mb() -> float:
    """Peak of our own resident memory; that of getrusage is at least our parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def _dicom2nifti(source: Path, out: Path) -> dict[str, Any]:
    import dicom2nifti

    try:
        dicom2nifti.dicom_series_to_nifti(str(source), str(out / "volume.nii"))
    except Exception as error:  # noqa: BLE001 - it raises what it likes, which is the result
        return {"error": f"{type(error).__name__} {str(error)[:60]}".replace("|", " ").strip()}
    return {}


def _ours(source: Path, out: Path) -> dict[str, Any]:
    from pipelines.conversion import Options, convert_folder

    options = Options(with_dicom2nifti=False, compressed=False)
    before, seconds, above, held = _peak_mb(), [], 0.0, 0.0
    for number in range(ROUNDS + 1):
        began = time.monotonic()
        found = convert_folder(source, out / str(number), lambda _done, _note: None, options)
        seconds.append(time.monotonic() - began)
        if not number:
            above = _peak_mb() - before
            volumes = [volume for item in found for volume in item.volumes]
            held = max(sum(_bytes(v["voxel_type"], f) for f in v["facts"]) for v in volumes)
    return {
        "first": seconds[0],
        "seconds": statistics.median(seconds[1:]),
        "above_mb": above,
        "volume_mb": held / 2**20,
    }


def _bytes(kind: str, facts: dict[str, int]) -> int:
    import numpy as np

    return facts["columns"] * facts["rows"] * facts["slices"] * np.dtype(kind).itemsize


def _reading(_source: Path, out: Path) -> dict[str, Any]:
    """From the files of a series to its checked volume in memory, as the convert step does it."""
    from pipelines.steps.series import open_whole_series
    from pipelines.steps.volume import volume_from_series

    places = _segments(out)
    opened, whole = [], []
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        instances = open_whole_series(places)
        opened.append(time.monotonic() - began)
        volume = volume_from_series(instances)
        whole.append(time.monotonic() - began)
        assert volume.array.shape == (512, 512, SLICES)  # noqa: S101
        del volume, instances
    return {
        "headers_ms": 1000 * statistics.median(opened[1:]),
        "volume_ms": 1000 * statistics.median(whole[1:]),
        "most_ms": 1000 * max(whole[1:]),
    }


def _segments(out: Path) -> list[Any]:
    """Lay the files of a series one after the other, as an arena does."""
    from benchmarks.studies import ct
    from storage.arena import SEGMENT_BYTES
    from storage.place import Place

    loose = out / "loose"
    loose.mkdir()
    ct(loose, SLICES, "reading")
    places: list[Place] = []
    number, at = 0, BLOCK
    for path in sorted(loose.iterdir()):
        data = path.read_bytes()
        if at + len(data) > SEGMENT_BYTES:
            number, at = number + 1, BLOCK
        segment = out / f"{number}.seg"
        with segment.open("r+b" if segment.exists() else "w+b") as file:
            file.seek(at)
            file.write(data)
        places.append(Place(segment, at, len(data)))
        at += -(-len(data) // BLOCK) * BLOCK + BLOCK
        path.unlink()
    return places


def main(arguments: list[str]) -> int:
    """Convert, and print figures as JSON."""
    tool, source, out = arguments
    warnings.simplefilter("ignore")
    tools = {"dicom2nifti": _dicom2nifti, "ours": _ours, "reading": _reading}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        told = tools[tool](Path(source), Path(out))
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
