"""Tensors out of other people's files, without running anything that is in them.

``.pth .pt .ckpt .bin``: torch's unpickler that builds tensors only. ``.ts`` and ``.pt`` of
TorchScript: the archive's pickle with an unpickler of ours that knows tensors and nothing else;
its code is never loaded. ``.pt2``: raw tensors of the archive; pickled ones are refused. Even so
this module is run by `models.importer` in a process of its own.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.memory import is_out_of_memory

READABLE = (".pth", ".pt", ".ckpt", ".bin", ".ts", ".pt2", ".safetensors", ".npz", ".tar")
MOST_ARCHIVE_BYTES = 16 << 30
WEIGHT_KEYS = ("network_weights", "model_state_dict", "state_dict", "model", "net", "weights")
"""Where checkpoints keep the weights."""


class UnreadableWeights(ValueError):
    """Raised when a file cannot be read, or holds something else than tensors; says which."""


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors of a file of any known kind.

    Returns
    -------
    tensors : dict
        By name, contiguous, on the CPU, each with memory of its own.
    facts : dict
        What else a checkpoint says, JSON values only.

    Raises
    ------
    UnreadableWeights
        It cannot be read without running code, or holds no tensors.
    MemoryError
        It takes more memory than there may be.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise UnreadableWeights(f"Files of kind {suffix or 'no suffix'} are not read.")
    try:
        content = _content(path, suffix)
    except UnreadableWeights:
        raise
    except pickle.UnpicklingError as error:
        raise UnreadableWeights(
            "The file holds something else than tensors, which could run code: it was not read. "
            "Of a whole network save the state_dict() alone."
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableWeights(f"The file cannot be read: {error.strerror}.") from error
        raise UnreadableWeights(
            f"The file is not what its name says ({type(error).__name__})."
        ) from error
    tensors = _tensors(content)
    if not tensors:
        raise UnreadableWeights("The file holds no tensors.")
    return tensors, _facts(content)


def _content(path: Path, suffix: str) -> Any:
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return {name: torch.from_numpy(np.array(stored[name])) for name in stored.files}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if sum(item.file_size for item in archive.infolist()) > MOST_ARCHIVE_BYTES:
                raise UnreadableWeights("The archive is larger than 16 GiB.")
            if _is_exported(names):
                return _exported(archive, names)
            if any("/code/" in name or name.endswith("constants.pkl") for name in names):
                return _scripted(archive, names)
    return _checkpoint(path)


def _checkpoint(path: Path | io.BytesIO) -> Any:
    """Read with torch's unpickler of tensors; numpy's numbers, which nnU-Net writes, pass, too."""
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [scalar, np.dtype, type(np.dtype(np.float64))]
    numbers += [type(np.dtype(np.float32)), type(np.dtype(np.int64))]
    with torch.serialization.safe_globals(numbers):
        return torch.load(path, map_location="cpu", weights_only=True)


# TorchScript


class _Module:
    """Stands for an object of TorchScript: only its attributes are kept."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update({str(key): value for key, value in state.items()})


class _TensorsOnly(pickle.Unpickler):
    """Builds tensors, lists and empty objects; whatever else a pickle names is an error."""

    def __init__(self, data: bytes, storages: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(data))
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in (
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_tensor"),
        ):
            return _rebuilt
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *rest: tensor
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda value, *rest: value
        if module == "torch" and name.endswith("Storage") and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Flat tensor of a storage: (``storage``, type, key, device, count)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a storage of no known kind")
        data = self._storages(str(key))
        if not data:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=dtype)[: int(count)]


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _rebuilt(
    flat: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> torch.Tensor:
    return torch.as_strided(flat, tuple(size), tuple(stride), int(offset))


def _scripted(archive: zipfile.ZipFile, names: list[str]) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a TorchScript archive; its code is not touched."""
    root = next((n[: -len("data.pkl")] for n in names if n.endswith("/data.pkl")), None)
    if root is None:
        raise UnreadableWeights("The archive has no data.pkl.")
    reader = _TensorsOnly(
        archive.read(f"{root}data.pkl"), lambda key: archive.read(f"{root}data/{key}")
    )
    found: dict[str, torch.Tensor] = {}
    _collect(reader.load(), "", found, set())
    return found


def _collect(value: Any, prefix: str, found: dict[str, torch.Tensor], seen: set[int]) -> None:
    if isinstance(value, torch.Tensor):
        found[prefix] = value
    elif isinstance(value, _Module) and id(value) not in seen:
        seen.add(id(value))
        for name, inner in vars(value).items():
            _collect(inner, f"{prefix}.{name}" if prefix else name, found, seen)


# torch.export


def _is_exported(names: list[str]) -> bool:
    return any(
        n.endswith(("weights_config.json", "serialized_state_dict.pt", "archive_format"))
        for n in names
    )


def _exported(archive: zipfile.ZipFile, names: list[str]) -> Any:
    """Raw tensors of a ``.pt2`` archive; torch.export.load would unpickle some without asking."""
    old = [name for name in names if name.endswith("serialized_state_dict.pt")]
    if old:
        return _checkpoint(io.BytesIO(archive.read(old[0])))
    configs = [name for name in names if name.endswith("weights_config.json")]
    if not configs:
        raise UnreadableWeights("The archive of torch.export holds no weights.")
    config = json.loads(archive.read(configs[0]))["config"]
    folder = configs[0].rpartition("/")[0]
    return {
        str(name): _exported_tensor(archive, folder, names, entry) for name, entry in config.items()
    }


def _exported_tensor(
    archive: zipfile.ZipFile, folder: str, names: list[str], entry: Mapping[str, Any]
) -> torch.Tensor:
    meta = entry.get("tensor_meta")
    if entry.get("use_pickle") or not meta:
        raise UnreadableWeights("A tensor of the archive is pickled, which could run code.")
    path = str(entry["path_name"])
    record = next(n for n in names if n.rpartition("/")[2] == path and "weights" in n)
    dtype = _SCALARS[int(meta["dtype"])]
    size = [int(item["as_int"]) for item in meta["sizes"]]
    stride = [int(item["as_int"]) for item in meta["strides"]]
    offset = int(meta.get("storage_offset", {}).get("as_int", 0))
    data = archive.read(record)
    if not data:
        return torch.zeros(size, dtype=dtype)
    return torch.as_strided(torch.frombuffer(bytearray(data), dtype=dtype), size, stride, offset)


_SCALARS = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""torch._export.serde.schema.ScalarType."""


# What a file holds, in order


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    """Find the weights in a checkpoint; copies, so that none shares memory with another."""
    if isinstance(content, Mapping):
        for key in WEIGHT_KEYS:
            if isinstance(content.get(key), Mapping):
                return _tensors(content[key])
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): value.detach().clone().contiguous()
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def _facts(content: Any) -> dict[str, Any]:
    """Keep plain values of a checkpoint, such as nnU-Net's configuration and mirroring axes."""
    if not isinstance(content, Mapping):
        return {}
    return {
        str(key): plain
        for key, value in content.items()
        if key not in WEIGHT_KEYS and (plain := _plain(value, 6)) is not None
    }


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value[:4096] if isinstance(value, str) else value
    if isinstance(value, np.generic):
        return value.item()
    if depth and isinstance(value, (list, tuple)) and len(value) <= 64:
        return [_plain(item, depth - 1) for item in value]
    if depth and isinstance(value, Mapping) and len(value) <= 256:
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    return None
