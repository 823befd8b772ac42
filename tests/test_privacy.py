"""No patient data leaves by the side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import privacy


def test_a_planted_name_in_a_log_would_be_found(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text(json.dumps({"event": "x.happened", "name": "Müller^Jürgen"}) + "\n")

    assert privacy.leaks(log, {"MÜLLER"}) == [(1, "x.happened")]
    assert privacy.leaks(log, {"Meier"}) == []


@pytest.mark.slow
def test_no_log_line_of_the_whole_suite_holds_patient_data() -> None:
    wanted = privacy.PLANTED | privacy.ALWAYS_PLANTED

    missing = [path for path in privacy.LOGS if not path.exists() or not path.stat().st_size]
    assert privacy.LOGS
    assert not missing, "these logs are gone or empty, so nothing can be said of them"
    for path in privacy.LOGS:
        assert privacy.leaks(path, wanted) == [], path
