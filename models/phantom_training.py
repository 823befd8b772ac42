"""Train the demonstration model for haemorrhage on head CT phantoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.phantom_dataset import SLICES_MM, write_phantoms
from models.recipe import load_recipe, recipe_path
from models.training import (
    Unusable,
    first_makes,
    refuse_unusable,
    train_segmentation,
    work_folder,
)

MAKING = 0.3
"""Part of the progress bar."""


def train_on_phantoms(
    out: Path,
    *,
    phantoms: int,
    steps: int | None,
    seed: int,
    progress: Callable[[float, str], None],
    pixel_mm: float = 1.0,
    slices_mm: Sequence[float] = SLICES_MM,
) -> dict[str, Any]:
    """Make phantoms and train on all of them by the recipe ``haemorrhage``.

    Nobody is held out: there are always fresh phantoms to measure on, of another seed.

    Parameters
    ----------
    out : Path
        Folder of the new package; a package that is there is replaced at the end.
    phantoms, seed : int
        At least 30 phantoms.
    steps : int or None
        None: as many as the recipe says.
    progress : callable
    pixel_mm : float
        Of the phantoms.
    slices_mm : sequence of float
        Slice distances of the phantoms, in turn.

    Returns
    -------
    dict
        Empty: nothing is measured.

    Raises
    ------
    Unusable
        There are too few phantoms, or the folder holds something else than a package.
    """
    recipe = load_recipe(recipe_path("haemorrhage"))
    changed = {"seed": seed, **({} if steps is None else {"steps": steps})}
    training = recipe.training.model_copy(update=changed)
    recipe = recipe.model_copy(update={"training": training})
    refuse_unusable(out, recipe, 0)
    data = work_folder(out) / f"phantoms-{seed}-{phantoms}"

    def make() -> None:
        write_phantoms(
            data,
            phantoms,
            seed,
            lambda done, note: progress(MAKING * done, note),
            pixel_mm=pixel_mm,
            slices_mm=slices_mm,
        )

    try:
        first_makes(data / "cases.csv", make)
    except ValueError as error:
        raise Unusable(str(error)) from error
    return train_segmentation(
        data,
        recipe,
        out,
        lambda done, note: progress(MAKING + (1 - MAKING) * done, note),
        fold=None,
    )
