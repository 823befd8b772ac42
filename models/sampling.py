"""Which patches a network is trained on: batch by batch, each known from its number alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from models.augmentation import augmented
from models.recipe import Recipe
from models.training_cases import Cut, PreparedCase, cut, patch_of


class Batches(Dataset[Cut]):
    """Batch number `step` of a training; the same number gives the same batch.

    Parameters
    ----------
    cases : sequence of PreparedCase
    recipe : Recipe
    rank : int
        Of this process among several; each has batches of its own.
    """

    def __init__(self, cases: Sequence[PreparedCase], recipe: Recipe, rank: int = 0) -> None:
        self._cases = cases
        self._recipe = recipe
        self._rank = rank
        self._patch = patch_of(recipe)
        numbers = range(recipe.classes - 1)
        often = recipe.training.kinds
        kinds = [
            kind
            for kind in sorted({case.kind for case in cases})
            for _ in range(often.get(kind, 1))
        ]
        self._with = [
            [
                found
                for kind in kinds
                if (found := [c for c in cases if c.kind == kind and len(c.places[number])])
            ]
            for number in numbers
        ]
        self._labelled = [number for number in numbers if self._with[number]]

    def __len__(self) -> int:
        return self._recipe.training.steps

    def __getitem__(self, step: int) -> Cut:
        training = self._recipe.training
        random = np.random.default_rng([training.seed, step, self._rank])
        around = round(training.foreground * training.batch + random.uniform(-0.5, 0.5))
        pairs = [self._one(random, i < around) for i in range(training.batch)]
        inputs, truth = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        return augmented(inputs, truth, self._recipe, random)

    def _one(self, random: np.random.Generator, labelled: bool) -> Cut:
        if labelled and self._labelled:
            number = self._labelled[random.integers(len(self._labelled))]
            kinds = self._with[number]
            of_kind = kinds[random.integers(len(kinds))]
            case = of_kind[random.integers(len(of_kind))]
            places = case.places[number]
            center = places[random.integers(len(places))].astype(np.int64)
            reach = [size // 4 for size in self._patch]
            center = center + [int(random.integers(-r, r + 1)) for r in reach]
        else:
            case = self._cases[int(random.integers(len(self._cases)))]
            if len(case.alike):
                center = case.alike[random.integers(len(case.alike))].astype(np.int64)
            else:
                center = np.array([random.integers(n) for n in case.shape])
        return cut(case, center, self._patch, self._recipe)
