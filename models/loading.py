"""From a verified package to a loaded model; only here does a package's kind choose the code."""

from __future__ import annotations

from pathlib import Path

from models.base import BrokenPackage, ModelIdentity, Predictor
from models.catalogue import MANIFEST
from models.package import ModelPackage, load_package, manifest_bytes, parse_yaml


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


def load_identity(folder: Path) -> ModelIdentity:
    """Verify a package of any kind that may be used, and tell what it is; imports no torch.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, the manifest is not as the schema wants, or the
        model is recalled.
    """
    content = parse_yaml(folder / MANIFEST, manifest_bytes(folder))
    runtime = content.get("runtime") if isinstance(content, dict) else None
    if isinstance(runtime, dict) and runtime.get("kind") == "gmlvq":
        from models.prognosis_package import load_prognosis

        return load_prognosis(folder).identity
    return load_package(folder).identity
