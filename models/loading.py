"""From a folder to a verified package or a loaded model; only here does a kind choose the code."""

from __future__ import annotations

from pathlib import Path

from models.base import ModelIdentity, Predictor
from models.catalogue import MANIFEST
from models.package import ModelPackage, load_package, manifest_bytes, parse_yaml
from models.prognosis_manifest import PrognosisPackage, open_prognosis


def load_predictor(package: ModelPackage, device: str = "auto") -> Predictor:
    """Load a package's model and run its test vector; imports torch.

    Raises
    ------
    BrokenPackage
        The weights do not fit, or the test vector comes out differently.
    """
    match package.manifest.runtime.kind:
        case "torch-safetensors":
            from models import unet

            return unet.load_predictor(package, device)


def open_package(folder: Path) -> ModelPackage | PrognosisPackage:
    """Verify a package of any kind; imports no torch.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, or the manifest is not as the schema wants.
    """
    content = parse_yaml(folder / MANIFEST, manifest_bytes(folder))
    runtime = content.get("runtime") if isinstance(content, dict) else None
    if isinstance(runtime, dict) and runtime.get("kind") == "gmlvq":
        return open_prognosis(folder)
    return load_package(folder)


def load_identity(folder: Path) -> ModelIdentity:
    """Verify a package of any kind and tell what it is.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, or the manifest is not as the schema wants.
    """
    return open_package(folder).identity
