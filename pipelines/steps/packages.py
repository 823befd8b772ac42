"""The model package of a job: verified each time, its wishes checked against a volume."""

from __future__ import annotations

from pathlib import Path

from models.package import ModelPackage, load_package

from models.base import BrokenPackage
from pipelines.base import Misconfigured


def package_of(folder: str) -> ModelPackage:
    """Load and verify a model package, without its weights and without torch.

    Raises
    ------
    Misconfigured
        It is missing, altered, or not what its manifest says.
    """
    try:
        return load_package(Path(folder))
    except BrokenPackage as error:
        raise Misconfigured(f"The model package cannot be used: {error}") from error
