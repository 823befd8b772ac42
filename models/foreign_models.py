"""Models of others: MONAI bundles and nnU-Net v2 folders."""

from __future__ import annotations

from pathlib import Path

from models.base import BrokenPackage
from models.foreign_bundle import read_bundle
from models.foreign_draft import Draft
from models.foreign_nnunet import read_nnunet


def read_foreign(folder: Path, fold: str = "") -> Draft:
    """Read a MONAI bundle or an nnU-Net v2 folder, whichever it is.

    Parameters
    ----------
    folder : Path
    fold : str
        Of nnU-Net: ``0`` to ``4`` or ``all``; empty: the first there is.

    Raises
    ------
    BrokenPackage
        It is neither, or not whole; or its weights cannot be read safely.
    """
    if (folder / "configs" / "metadata.json").is_file():
        return read_bundle(folder)
    if (folder / "plans.json").is_file():
        return read_nnunet(folder, fold)
    raise BrokenPackage(
        f"{folder} is neither a MONAI bundle (configs/metadata.json) nor a trained model of "
        "nnU-Net v2 (plans.json)."
    )
