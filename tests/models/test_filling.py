"""Weights fit their network, or it is said which tensors do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.base import BrokenPackage
from models.filling import fill


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))


def weights(front: str = "") -> dict[str, torch.Tensor]:
    return {f"{front}{name}": value + 1 for name, value in network().state_dict().items()}


@pytest.mark.parametrize("front", ["", "module.", "net."])
def test_one_part_in_front_of_all_names_is_left_out(front: str) -> None:
    filled = network()

    fill(filled, weights(front), "two-layers")

    for name, value in filled.state_dict().items():
        assert torch.equal(value, weights()[name])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda w: w.pop("1.bias"), r"the network has 1\.bias, the file has not"),
        (lambda w: w.update(more=torch.ones(1)), "the file has more, the network has not"),
        (
            lambda w: w.update({"0.weight": torch.ones(4, 3), "1.weight": torch.ones(1, 4)}),
            r"0\.weight and 1 more has the size \(4, 3\) in the file, \(2, 3\) in the network",
        ),
        (lambda w: w.update({"0.bias": torch.full((2,), float("nan"))}), "not finite"),
    ],
    ids=["missing", "left over", "sizes", "no number"],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, torch.Tensor]], object], wanted: str
) -> None:
    given = weights()
    change(given)

    with pytest.raises(BrokenPackage, match=wanted):
        fill(network(), given, "two-layers")


def test_two_parts_in_front_of_names_are_not_left_out() -> None:
    given = {("a." if "0." in name else "b.") + name: value for name, value in weights().items()}

    with pytest.raises(BrokenPackage, match=r"the network has 0\.weight and 3 more"):
        fill(network(), given, "two-layers")
