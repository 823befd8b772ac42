"""Where a training stands, in one file that cannot run code: tensors, and a line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

PARTS = ("network", "average", "best")


@dataclass(frozen=True)
class Progressed:
    """What a training knows besides tensors.

    Parameters
    ----------
    fingerprint : str
        Of recipe, data and fold: only the same training goes on.
    losses : tuple of float
        Of every step.
    watched : tuple of (int, float)
        Step and mean Dice of the watched cases.
    """

    fingerprint: str
    losses: tuple[float, ...] = ()
    watched: tuple[tuple[int, float], ...] = ()

    @property
    def step(self) -> int:
        """Steps that are done."""
        return len(self.losses)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on.

    Parameters
    ----------
    progressed : Progressed
    states : mapping
        State of each of `PARTS` that is there: name of the tensor to tensor.
    optimizer, schedule : dict
        As their `state_dict` gives them.
    """

    progressed: Progressed
    states: Mapping[str, Mapping[str, torch.Tensor]]
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whatever happens, a whole one is at `path`."""
    tensors = {
        f"{part}/{name}": _whole(value)
        for part, state in checkpoint.states.items()
        for name, value in state.items()
    }
    moments = checkpoint.optimizer.get("state", {})
    for number, state in moments.items():
        for name, value in state.items():
            tensors[f"optimizer/{number}/{name}"] = _whole(torch.as_tensor(value))
    told = {
        "progressed": asdict(checkpoint.progressed),
        "groups": checkpoint.optimizer.get("param_groups", []),
        "schedule": {k: v for k, v in checkpoint.schedule.items() if _is_plain(v)},
    }
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(save(tensors, {"training": json.dumps(told)}))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor in plain order, on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is none.

    Raises
    ------
    ValueError
        The file is none of ours.
    """
    if not path.is_file():
        return None
    states: dict[str, dict[str, torch.Tensor]] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["training"])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part, name = key.split("/", 1)
                if part == "optimizer":
                    number, moment = name.split("/", 1)
                    moments.setdefault(int(number), {})[moment] = file.get_tensor(key)
                else:
                    states.setdefault(part, {})[name] = file.get_tensor(key)
        progressed = told["progressed"]
        return Checkpoint(
            Progressed(
                progressed["fingerprint"],
                tuple(progressed["losses"]),
                tuple((int(step), float(dice)) for step, dice in progressed["watched"]),
            ),
            states,
            {"state": moments, "param_groups": told["groups"]},
            told["schedule"],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint ({type(error).__name__}); remove it.") from error
