"""No patient data leaves by the side."""

from __future__ import annotations

import pytest

from tests import privacy

ALWAYS_PLANTED = {"Planted", "PLANTED-ID-4711", "19330517"}


@pytest.mark.slow
def test_no_log_line_of_the_whole_suite_holds_patient_data() -> None:
    logs = [path for path in privacy.LOGS if path.exists()]
    wanted = sorted(privacy.PLANTED | ALWAYS_PLANTED)
    lines = 0
    for path in logs:
        for line in path.read_text(errors="replace").splitlines():
            lines += 1
            held = [text for text in wanted if text in line]
            assert not held, f"{path.name} holds {len(held)} planted values: {line[:200]}"
    assert lines > 0, "nothing was logged: the search had nothing to search"
