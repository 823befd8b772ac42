"""Put the weights of a package into its network, or say what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from models.base import BrokenPackage

Tensors = Mapping[str, torch.Tensor]


def fill(network: torch.nn.Module, weights: Tensors, family: str) -> None:
    """Put weights into a network; every tensor of both must have its counterpart.

    Parameters
    ----------
    network : torch.nn.Module
    weights : mapping
        By name; one part in front of all names, as Lightning and ``DataParallel`` write, is left
        out.
    family : str
        Of the model, for sentences.

    Raises
    ------
    BrokenPackage
        A tensor is missing, left over, of another size, or no finite numbers.
    """
    wanted = network.state_dict()
    given = _without_front(weights, wanted)
    wrong = [*_misfits(wanted, given)]
    if wrong:
        told = "; ".join(wrong)
        raise BrokenPackage(f"The weights of {family} do not fit its architecture: {told}.")
    network.load_state_dict(given)
    if not all(bool(t.isfinite().all()) for t in given.values() if t.is_floating_point()):
        raise BrokenPackage(f"Weights of {family} are not finite numbers.")


def _without_front(weights: Tensors, wanted: Tensors) -> Tensors:
    fronts = {name.partition(".")[0] for name in weights}
    inner = {name.partition(".")[2]: value for name, value in weights.items()}
    is_fronted = len(fronts) == 1 and inner.keys() == wanted.keys()
    return inner if is_fronted and weights.keys() != wanted.keys() else weights


def _misfits(wanted: Tensors, given: Tensors) -> Iterator[str]:
    missing = [name for name in wanted if name not in given]
    others = [name for name in given if name not in wanted]
    sizes = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    if missing:
        yield f"the network has {_some(missing)}, the file has not"
    if others:
        yield f"the file has {_some(others)}, the network has not"
    if sizes:
        name = sizes[0]
        in_file, in_network = tuple(given[name].shape), tuple(wanted[name].shape)
        yield f"{_some(sizes)} has the size {in_file} in the file, {in_network} in the network"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{ascii(names[0])[1:81]}{more}".replace("'", "")
