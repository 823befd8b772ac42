"""Drafts that cannot become packages end in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.base import BrokenPackage
from models.packaging import finish_package


@pytest.mark.parametrize("text", ["files: 3", "files: [weights]", "inputs: 7", "inputs: [t1]"])
def test_a_draft_whose_parts_have_no_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.yaml").write_text(text)

    with pytest.raises(BrokenPackage, match="has no names"):
        finish_package(tmp_path)
