"""From a verified package to a loaded model; only here does a package's kind choose the code."""

from __future__ import annotations

from models.base import Predictor
from models.package import ModelPackage


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
