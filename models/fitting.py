"""The training loop: it can be killed at any moment and goes on as if it had not been."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from monai.losses.dice import DiceCELoss
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from models.architectures import build_network
from models.checkpoint import Checkpoint, Progressed, load_checkpoint, save_checkpoint
from models.network import build
from models.recipe import Recipe
from models.sampling import Batches
from models.training_cases import PreparedCase

CHECKPOINT_SECONDS = float(os.environ.get("SCORENODE_CHECKPOINT", "60"))
"""Between two checkpoints; the environment variable is for tests."""
MEAN_OF = 20

Progress = Callable[[float, str], None]
Watch = Callable[[torch.nn.Module], float]
"""Mean Dice of the watched cases, by the network that is given."""


class Diverged(ValueError):
    """Raised when the loss is no longer a number."""


@dataclass(frozen=True)
class Processes:
    """One process among those that train together; alone: 0 of 1.

    Parameters
    ----------
    rank, count : int
    device : torch.device
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it writes files and tells progress."""
        return self.rank == 0


def network_of(recipe: Recipe) -> torch.nn.Module:
    """Make the network of a recipe, with weights by chance.

    Raises
    ------
    BrokenPackage
        The network is not one of those that packages may have.
    """
    network: torch.nn.Module = build(recipe.slices) if recipe.slices else build_network(recipe.arch)
    return network


def memory_format(recipe: Recipe) -> torch.memory_format:
    """Channels last: a third faster on a CPU, and what tensor cores want."""
    return torch.channels_last if recipe.slices else torch.channels_last_3d


class Fit:
    """One training of one network.

    Parameters
    ----------
    recipe : Recipe
    cases : sequence of PreparedCase
        What is trained on.
    processes : Processes
    path : Path
        Of the checkpoint.
    fingerprint : str
        Of everything that decides the result.
    """

    def __init__(
        self,
        recipe: Recipe,
        cases: Sequence[PreparedCase],
        processes: Processes,
        path: Path,
        fingerprint: str,
    ) -> None:
        rules = recipe.training
        self._recipe, self._processes, self._path = recipe, processes, path
        self._batches = Batches(cases, recipe, processes.rank)
        self._network = network_of(recipe).to(processes.device)
        self._network.to(memory_format=memory_format(recipe))  # type: ignore[call-overload]
        self._average = AveragedModel(
            self._network,
            multi_avg_fn=get_ema_multi_avg_fn(rules.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), rules.learning_rate, weight_decay=rules.weight_decay
        )
        self._schedule = OneCycleLR(
            self._optimizer, rules.learning_rate, total_steps=rules.steps, cycle_momentum=False
        )
        self._loss_of = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            lambda_ce=rules.cross_entropy,
        )
        self._best: dict[str, torch.Tensor] | None = None
        self._fingerprint = fingerprint
        self._losses: list[float] = []
        self._watched: list[tuple[int, float]] = []
        self._go_on()

    @property
    def progressed(self) -> Progressed:
        """How far it is."""
        return Progressed(self._fingerprint, tuple(self._losses), tuple(self._watched))

    def run(self, progress: Progress, watch: Watch | None = None) -> torch.nn.Module:
        """Train to the end, or until the watched cases get no better.

        Parameters
        ----------
        progress : callable
        watch : callable, optional
            In the first process only; asked as often as the recipe says.

        Returns
        -------
        torch.nn.Module
            The averaged network, on the CPU, in evaluation mode.

        Raises
        ------
        Diverged
            The loss is no longer a number.
        """
        trained = self._distributed()
        trained.train()
        saved = time.monotonic()
        for inputs, truth in self._loader():
            self._step(trained, inputs, truth)
            done, mean = len(self._losses), float(np.mean(self._losses[-MEAN_OF:]))
            progress(done / self._recipe.training.steps, f"step {done}, loss {mean:.3f}")
            stop = self._should_stop(watch)
            if time.monotonic() - saved > CHECKPOINT_SECONDS or stop:
                self.save()
                saved = time.monotonic()
            if stop:
                break
        self.save()
        found: torch.nn.Module = self._average.module
        if self._best is not None:
            found.load_state_dict(self._best)
        return found.cpu().eval()

    def save(self) -> None:
        """Write the checkpoint."""
        if not self._processes.is_first:
            return
        states = {"network": self._network.state_dict(), "average": self._average.state_dict()}
        if self._best is not None:
            states["best"] = self._best
        save_checkpoint(
            self._path,
            Checkpoint(
                self.progressed,
                states,
                self._optimizer.state_dict(),
                self._schedule.state_dict(),
            ),
        )

    def _go_on(self) -> None:
        """Take up where the checkpoint stands."""
        found = load_checkpoint(self._path)
        if found is None:
            return
        if found.progressed.fingerprint != self._fingerprint:
            raise ValueError(
                f"{self._path} belongs to another training: its recipe, its data, its fold, the "
                "number of processes or the version of scorenode was different. "
                f"Remove {self._path.parent} to begin anew."
            )
        self._losses = list(found.progressed.losses)
        self._watched = list(found.progressed.watched)
        self._network.load_state_dict(found.states["network"])
        self._average.load_state_dict(found.states["average"])
        self._optimizer.load_state_dict(found.optimizer)
        self._schedule.load_state_dict(found.schedule)
        if "best" in found.states:
            self._best = dict(found.states["best"])

    def _loader(self) -> DataLoader[Any]:
        """Batches that are left; on a GPU other processes prepare them."""
        steps = range(len(self._losses), self._recipe.training.steps)
        on_gpu = self._processes.device.type == "cuda"
        return DataLoader(
            self._batches,
            batch_size=None,
            sampler=[] if self._has_stopped() else steps,
            num_workers=4 if on_gpu else 0,
            multiprocessing_context="spawn" if on_gpu else None,
            pin_memory=on_gpu,
        )

    def _distributed(self) -> torch.nn.Module:
        if self._processes.count == 1:
            return self._network
        ids = [self._processes.device.index] if self._processes.device.type == "cuda" else None
        wrapped: torch.nn.Module = DistributedDataParallel(self._network, device_ids=ids)
        return wrapped

    def _step(self, network: torch.nn.Module, inputs: torch.Tensor, truth: torch.Tensor) -> None:
        device = self._processes.device
        inputs = inputs.to(device, non_blocking=True, memory_format=memory_format(self._recipe))
        truth = truth.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = network(inputs)
        loss = self._loss_of(outputs.float(), truth)
        if not bool(loss.isfinite()):
            raise Diverged(
                f"The loss is no number at step {len(self._losses) + 1}; lower the learning_rate."
            )
        self._optimizer.zero_grad()
        loss.backward()
        limit = self._recipe.training.clip_gradient
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), limit)
        self._optimizer.step()
        self._schedule.step()
        self._average.update_parameters(self._network)
        self._losses.append(float(loss.detach()))

    def _should_stop(self, watch: Watch | None) -> bool:
        rules = self._recipe.training.early_stop
        step = len(self._losses)
        if rules is None or step % rules.every:
            return False
        found = torch.zeros(1, dtype=torch.float64, device=self._processes.device)
        if watch is not None:
            found[0] = watch(self._average.module.eval())
        if self._processes.count > 1:
            dist.broadcast(found, 0)
        dice = round(float(found), 6)
        if dice > max((d for _, d in self._watched), default=-1.0):
            state = self._average.module.state_dict()
            self._best = {name: value.detach().cpu().clone() for name, value in state.items()}
        self._watched.append((step, dice))
        return self._has_stopped()

    def _has_stopped(self) -> bool:
        """Whether the best look is too long ago."""
        rules = self._recipe.training.early_stop
        dice = [d for _, d in self._watched]
        if rules is None or not dice:
            return False
        return len(dice) - 1 - int(np.argmax(dice)) >= rules.patience
