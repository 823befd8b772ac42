"""The receiver's process: small, and listening soon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.config.default import default_config
from storage.database import Database
from storage.migrate import migrate

HEAVY = ["torch", "monai", "highdicom", "nilearn", "matplotlib", "dicom2nifti", "sklearn", "scipy"]

OBSERVED = """
import json, sys
from pathlib import Path
from node import processes
def look(parts, role, facts):
    print("LOADED " + json.dumps({"port": facts()["port"], "modules": sorted(sys.modules)}))
processes._beat = look  # where it would say every few seconds that it lives
path = Path(sys.argv[1])
processes.run("receiver", path, path, lambda: None)
"""


@pytest.mark.parametrize("store", ["files", "arena"])
def test_receiving_never_loads_the_libraries_of_models_and_pictures(
    tmp_path: Path, store: str
) -> None:
    config = tmp_path / "scorenode.yaml"
    text = default_config(tmp_path / "data").replace("port: 11112", "port: 0")
    config.write_text(text.replace("\n  disk:", f"\n  store: {{ kind: {store} }}\n  disk:", 1))
    (tmp_path / "data").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'data' / 'node.db'}")
    migrate(database)
    database.close()

    done = subprocess.run(
        [sys.executable, "-c", OBSERVED, str(config)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )

    [line] = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    found = json.loads(line.removeprefix("LOADED "))
    assert found["port"] > 0
    assert not set(HEAVY) & set(found["modules"])
