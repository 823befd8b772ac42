"""Loads one package in a process of its own and says in JSON whether it works."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from models.base import BrokenPackage, ModelIdentity
from models.loading import load_predictor, read_any
from models.package import ModelPackage
from models.prognosis_manifest import PrognosisPackage


def main(folder: Path, *, trust_code: bool) -> None:
    """Load a package's model, which runs its test vector; one line of JSON tells how it went."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a model prints is not our answer
    try:
        identity = _loaded(read_any(folder), trust_code=trust_code)
        answer = {"ok": True, "sentence": f"{identity.family} {identity.version} works here."}
    except BrokenPackage as error:
        answer = {"ok": False, "sentence": str(error)}
    os.write(out, json.dumps(answer).encode() + b"\n")


def _loaded(package: ModelPackage | PrognosisPackage, *, trust_code: bool) -> ModelIdentity:
    if isinstance(package, ModelPackage):
        return load_predictor(package, trust_code=trust_code).identity
    from models.prognosis_package import load_prognosis

    return load_prognosis(package.folder).identity


if __name__ == "__main__":
    main(Path(sys.argv[1]), trust_code="--trust-code" in sys.argv[2:])
