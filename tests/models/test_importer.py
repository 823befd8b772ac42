"""Foreign weights become safetensors, and what is in their files never runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from models.base import BrokenPackage
from models.foreign_weights import UnreadableWeights, read_weights
from models.importer import import_weights, most_memory
from models.loading import load_predictor
from models.package import entry_for, load_package
from tests.models.small import write_shades
from tests.models.tiny import edit_manifest


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def plain_pickle(marker: Path) -> bytes:
    return pickle.dumps({"state_dict": Payload(marker)})


def checkpoint(marker: Path) -> bytes:
    data = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(2)}, "hook": Payload(marker)}, data)
    return data.getvalue()


def old_checkpoint(marker: Path) -> bytes:
    data = io.BytesIO()
    torch.save({"hook": Payload(marker)}, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


def script(marker: Path) -> bytes:
    """An archive as TorchScript writes them, its pickle exchanged."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(Payload(marker)))
        archive.writestr("m/constants.pkl", pickle.dumps(Payload(marker)))
        archive.writestr("m/code/__torch__.py", "")
        archive.writestr("m/version", "3\n")
    return data.getvalue()


def exported(marker: Path) -> bytes:
    """An archive of torch.export with a weight that torch.export.load would unpickle."""
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr(
            "m/data/weights/model_weights_config.json", json.dumps({"config": {"w": entry}})
        )
        archive.writestr("m/data/weights/weight_0", checkpoint(marker))
    return data.getvalue()


def old_exported(marker: Path) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("serialized_state_dict.pt", checkpoint(marker))
        archive.writestr("serialized_exported_program.json", "{}")
    return data.getvalue()


def object_array(marker: Path) -> bytes:
    data = io.BytesIO()
    np.savez(data, w=np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return data.getvalue()


def run_payload(data: bytes) -> None:
    """Read a payload the careless way."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickle.loads(archive.read("m/data.pkl"))  # noqa: S301 - that is the point


PAYLOADS: list[tuple[str, Callable[[Path], bytes]]] = [
    *((f"weights{suffix}", plain_pickle) for suffix in (".pth", ".pt", ".ckpt", ".bin", ".tar")),
    ("weights.ts", plain_pickle),
    ("weights.pt2", plain_pickle),
    ("weights.safetensors", plain_pickle),
    ("weights.npz", plain_pickle),
    ("weights.pth", checkpoint),
    ("weights.ts", checkpoint),
    ("weights.pt2", checkpoint),
    ("weights.pth", old_checkpoint),
    ("weights.pt", script),
    ("weights.ts", script),
    ("weights.pt2", exported),
    ("weights.pt", exported),
    ("weights.pt2", old_exported),
    ("weights.npz", object_array),
]


def test_the_payload_is_real(tmp_path: Path) -> None:
    run_payload(script(tmp_path / "ran"))

    assert (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"), PAYLOADS, ids=[f"{make.__name__} as {name}" for name, make in PAYLOADS]
)
def test_a_pickle_that_runs_code_does_not_run(
    tmp_path: Path, name: str, make: Callable[[Path], bytes]
) -> None:
    """In this process, where nothing would hold it back: the reader itself must refuse it."""
    from models.foreign_weights import UnreadableWeights, read_weights

    source = tmp_path / name
    source.write_bytes(make(tmp_path / "ran"))

    with pytest.raises(UnreadableWeights):
        read_weights(source)

    assert not (tmp_path / "ran").exists()


def test_the_importer_refuses_a_payload_with_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "weights.pth"
    source.write_bytes(checkpoint(tmp_path / "ran"))

    with pytest.raises(BrokenPackage, match="could run code: it was not read"):
        import_weights(source)

    assert not (tmp_path / "ran").exists()


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv3d(1, 2, 3)
        self.norm = torch.nn.BatchNorm3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.first(x))
        return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["pth", "old.pth", "ts", "pt2", "npz"])
def test_weights_of_every_kind_come_out_as_they_were(tmp_path: Path, kind: str) -> None:
    network = Small().eval()
    state = network.state_dict()
    source = tmp_path / f"weights.{kind}"
    match kind:
        case "pth":
            torch.save({"network_weights": state, "init_args": {"configuration": "3d"}}, source)
        case "old.pth":
            torch.save(state, source, _use_new_zipfile_serialization=False)
        case "ts":
            image = torch.zeros(1, 1, 8, 8, 8)
            traced = torch.jit.trace(network, image)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, source)
        case "pt2":
            torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 8, 8, 8),)), source)
        case "npz":
            np.savez(source, **{name: value.numpy() for name, value in state.items()})

    imported = import_weights(source)

    found = load(imported.safetensors)
    floating = {name for name, value in state.items() if value.is_floating_point()}
    assert floating <= found.keys()
    for name in floating:
        assert torch.equal(found[name], state[name]), name
    if kind == "pth":
        assert imported.facts["init_args"] == {"configuration": "3d"}


ESCAPES = {
    "network": "import socket; socket.socket()",
    "program": "import subprocess; subprocess.run(['/bin/true'])",
    "fork": "import os; os.fork()",
    "writing": "open(MARKER, 'w')",
    "renaming": "import os; os.rename(__file__, MARKER)",
    "deleting": "import os; os.unlink(__file__)",
    "memory": "b'x' * (4 << 30)",
    "second numbers of calls": "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
    "c.syscall(0x40000000 | 41, 2, 1, 0); e = ctypes.get_errno(); raise OSError(e, os.strerror(e))",
}


@pytest.mark.parametrize("escape", ESCAPES, ids=list(ESCAPES))
def test_a_process_that_is_shut_in_cannot_get_out(tmp_path: Path, escape: str) -> None:
    program = tmp_path / "inside.py"
    program.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path.cwd())!r})
        from models.sandbox import shut_in
        MARKER = {str(tmp_path / "marker")!r}
        shut_in(1 << 30, 60, 1 << 20)
        try:
            {ESCAPES[escape]}
        except (PermissionError, MemoryError):
            print("held")
        """)
    )

    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, check=False, text=True, timeout=60
    )

    assert done.stdout.strip() == "held", done.stderr
    assert program.exists()
    assert not (tmp_path / "marker").exists()


def test_weights_that_take_more_memory_than_they_may_are_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    torch.save({"w": torch.zeros(30_000_000)}, tmp_path / "net.pth")

    with pytest.raises(BrokenPackage, match=r"more than the 0\.1 GiB of memory") as refused:
        import_weights(tmp_path / "net.pth", memory_bytes=100 << 20)

    assert "bring safetensors" in str(refused.value)


def test_an_import_may_not_take_all_memory_of_the_machine() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    assert 0 < most_memory() < physical


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match="cannot be read: No such file"):
        read_weights(tmp_path / "net.pth")


def test_a_full_temporary_folder_is_told_as_such(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3_000_000)}, tmp_path / "net.pth")
    program = (
        "import resource, sys; from pathlib import Path; from models.importer import "
        "import_weights; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        "import_weights(Path(sys.argv[1]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "net.pth")],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )

    assert "the temporary folder does not take what came out: File too large" in done.stderr


# The same in a finished package


@pytest.mark.parametrize("name", ["weights.pth", "hook.pkl", "model.pt", "more/net.ts"])
def test_a_package_that_holds_a_pickle_is_not_used(tmp_path: Path, name: str) -> None:
    package = write_shades(tmp_path / "shades")
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_bytes(plain_pickle(tmp_path / "ran"))

    with pytest.raises(BrokenPackage, match="run code"):
        load_package(package)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("torch-safetensors", ".safetensors"),
        ("torch-npz", ".npz"),
        ("onnx", ".onnx"),
        ("skops", ".skops"),
    ],
)
@pytest.mark.parametrize("make", [plain_pickle, checkpoint, script, object_array])
def test_a_pickle_named_as_accepted_weights_does_not_run(
    tmp_path: Path, kind: str, suffix: str, make: Callable[[Path], bytes]
) -> None:
    if kind in ("onnx", "skops"):
        pytest.importorskip("onnxruntime" if kind == "onnx" else "skops")
    package = write_shades(tmp_path / "shades")
    runtime = {"kind": kind}
    if kind.startswith("torch"):
        runtime["architecture"] = "network"
    (package / f"w{suffix}").write_bytes(make(tmp_path / "ran"))
    edit_manifest(package, "runtime", runtime)
    edit_manifest(package, "files.weights", entry_for(package, f"w{suffix}").model_dump())

    with pytest.raises(BrokenPackage):
        load_predictor(load_package(package), "cpu")

    assert not (tmp_path / "ran").exists()
