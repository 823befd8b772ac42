"""A slow server of MLflow costs points of a curve, not the time of a training."""

from __future__ import annotations

from typing import Any

import pytest

from node.mlflow_packages import LoggedTraining
from node.mlflow_server import MLflowError, MLflowServer, Run


def test_a_server_that_hangs_takes_little_of_a_training() -> None:
    now, lost, steps = 1000.0, 0.0, 2000

    class Hanging:
        def log(self, *told: Any) -> None:
            nonlocal now, lost
            now, lost = now + 30.0, lost + 30.0
            raise MLflowError("MLflow at nowhere does not answer.")

    server: Any = Hanging()
    training = LoggedTraining(server, Run("run", "files"), clock=lambda: now)
    follow = training.following(lambda done, note: None)
    for step in range(steps):
        now += 1.0
        follow(step / steps, f"step {step}, loss 0.5")

    assert 0 < lost <= 0.05 * steps


@pytest.mark.parametrize("uri", ["http://[", "http://host:99999", "http://host:x", "ftp://host"])
def test_an_address_that_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(MLflowError, match="no address of an MLflow server"):
        MLflowServer(uri)
