"""The tiny package, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.tiny import copy_of, write_tiny_package


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good package; not to be changed."""
    return write_tiny_package(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def package(tiny_package: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return copy_of(tiny_package, tmp_path)
