"""The pipelines there are; a pipeline's module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from pipelines.base import Misconfigured, Pipeline


class _Catalogue(Mapping[str, Pipeline]):
    """Name of a pipeline to `Pipeline`; listing names imports nothing."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = dict(modules)

    def __getitem__(self, name: str) -> Pipeline:
        found: Pipeline = import_module(self._modules[name]).PIPELINE
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


PIPELINES: Mapping[str, Pipeline] = _Catalogue(
    {
        "haemorrhage": "pipelines.haemorrhage",
        "dementia": "pipelines.dementia",
        "segmentation": "pipelines.segmentation",
    }
)
"""Each module has a `PIPELINE` and loads torch and highdicom inside its steps only."""


def pipeline_named(name: str) -> Pipeline:
    """Look a pipeline up.

    Raises
    ------
    Misconfigured
        There is none of this name.
    """
    if name not in PIPELINES:
        raise Misconfigured(
            f"There is no pipeline {name!r}; there are {', '.join(sorted(PIPELINES))}."
        )
    return PIPELINES[name]
