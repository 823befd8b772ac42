"""How the images of a foreign model lay when it was trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.base import Volume
from models.canonical import orientation_of
from models.foreign_draft import Draft

Steps = list[dict[str, Any]]
_WAYS = ("RL", "AP", "SI")
_KEPT = (0, 1, 2)


def laid_as(draft: Draft, wish: str, sample: Volume | None) -> tuple[Steps, list[str]]:
    """Have the steps of a draft turn images as those lay that the model was trained on.

    Parameters
    ----------
    draft : Draft
    wish : str
        What a person says, such as ``RAS``; empty: as the model's files or the sample say.
    sample : Volume or None
        An image of the training.

    Returns
    -------
    steps : list
    remarks : list of str
        What a person should look at.
    """
    if wish:
        if not any("orient" in step for step in draft.preprocess):
            return [{"orient": wish}, *draft.preprocess], []
        return [_turned(step, wish, _KEPT) for step in draft.preprocess], []
    if not draft.as_they_lay:
        return draft.preprocess, []
    if sample is None:
        return draft.preprocess, [
            "orient: the model's files do not say how its images lay, so RAS is taken; import it "
            "again with --sample and one of them, or --orient, or change preprocess"
        ]
    letters, order = _lies(sample)
    steps = [_turned(step, letters, order) for step in draft.preprocess]
    told = letters if order == _KEPT else f"{letters} in the order {list(order)}"
    return steps, [f"orient: the sample lies {told}, and so is taken what the model sees"]


def _lies(sample: Volume) -> tuple[str, tuple[int, ...]]:
    """Directions along right, anterior and superior, and which of these each axis runs along."""
    found = orientation_of(sample.affine)
    letters = (way[flip] for way, flip in zip(_WAYS, found.flips, strict=True))
    return "".join(letters), tuple(int(axis) for axis in np.argsort(found.axes))


def _turned(step: dict[str, Any], letters: str, order: tuple[int, ...]) -> dict[str, Any]:
    if "orient" in step:
        return {"orient": letters}
    if "transpose" in step:
        return {"transpose": [order[axis] for axis in step["transpose"]]}
    return step
