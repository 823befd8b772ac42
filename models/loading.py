"""From a folder to a verified package or a loaded model; only here does a kind choose the code."""

from __future__ import annotations

from pathlib import Path

from models.base import BrokenPackage, ModelIdentity, Predictor
from models.catalogue import MANIFEST
from models.package import (
    ModelPackage,
    load_package,
    manifest_bytes,
    parse_yaml,
    read_package,
)
from models.prognosis_manifest import PrognosisPackage, open_prognosis, read_prognosis


def load_predictor(
    package: ModelPackage, device: str = "auto", *, trust_code: bool = False
) -> Predictor:
    """Load a package's model and run its test vector; imports torch.

    Parameters
    ----------
    package : ModelPackage
    device : str
        A torch device; ``auto`` is the GPU where there is one.
    trust_code : bool
        Whether the admin lets this package run code of its own.

    Raises
    ------
    BrokenPackage
        The weights do not fit, the test vector comes out differently, or the package is code and
        is not trusted.
    """
    runtime = package.manifest.runtime
    if runtime.kind == "python":
        if not trust_code:
            raise BrokenPackage(
                f"The model {package.folder.name} runs code of its own, and the configuration does "
                "not trust it: models.trust."
            )
        from models import python_model

        return python_model.load_predictor(package)
    if runtime.architecture == "monai-unet-2.5d":
        from models import unet

        return unet.load_predictor(package, device)
    from models import network_predictor

    return network_predictor.load_predictor(package, device)


def open_package(folder: Path) -> ModelPackage | PrognosisPackage:
    """Verify a package of any kind that is to be used; imports no torch.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, the manifest is not as the schema wants, or the
        model is recalled.
    """
    return open_prognosis(folder) if _is_prognosis(folder) else load_package(folder)


def read_any(folder: Path) -> ModelPackage | PrognosisPackage:
    """Verify a package of any kind, also one that is recalled; imports no torch.

    Raises
    ------
    BrokenPackage
        As `open_package`.
    """
    return read_prognosis(folder) if _is_prognosis(folder) else read_package(folder)


def load_identity(folder: Path) -> ModelIdentity:
    """Verify a package of any kind that may be used, and tell what it is.

    Raises
    ------
    BrokenPackage
        As `open_package`.
    """
    return open_package(folder).identity


def _is_prognosis(folder: Path) -> bool:
    content = parse_yaml(folder / MANIFEST, manifest_bytes(folder))
    runtime = content.get("runtime") if isinstance(content, dict) else None
    return isinstance(runtime, dict) and runtime.get("kind") == "gmlvq"
