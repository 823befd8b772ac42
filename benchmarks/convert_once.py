"""One conversion in a fresh process: ``python -m benchmarks.convert_once TOOL SOURCE OUT``."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path


def _peak_mb() -> float:
    """Peak of our own resident memory; that of getrusage is at least our parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def _dicom2nifti(source: Path, out: Path) -> dict[str, float | str]:
    import dicom2nifti

    try:
        dicom2nifti.dicom_series_to_nifti(str(source), str(out / "volume.nii"))
    except Exception as error:  # noqa: BLE001 - it raises what it likes, which is the result
        return {"error": f"{type(error).__name__} {str(error)[:60]}".replace("|", " ").strip()}
    return {}


def _ours(source: Path, out: Path) -> dict[str, float | str]:
    import nibabel  # noqa: F401 - loaded before the clock starts, as in a runner

    from pipelines.conversion import Options, convert_folder

    before, began = _peak_mb(), time.monotonic()
    found = convert_folder(source, out, lambda _done, _note: None, Options(False, False))
    seconds = time.monotonic() - began
    voxels = 0
    for item in found:
        for volume in item.volumes:
            voxels += sum(f["columns"] * f["rows"] * f["slices"] for f in volume["facts"])
    return {
        "seconds": seconds,
        "above_mb": _peak_mb() - before,
        "volume_mb": voxels * 4 / 2**20,
    }


def main(arguments: list[str]) -> int:
    """Convert, and print figures as JSON."""
    tool, source, out = arguments
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        told = {"dicom2nifti": _dicom2nifti, "ours": _ours}[tool](Path(source), Path(out))
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
