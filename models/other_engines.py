"""Models that are not torch: ONNX graphs, and scikit-learn's classifiers of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.base import BrokenPackage
from models.engine import Engine
from models.package import ModelPackage

CPU = torch.device("cpu")
ONNX_BYTES_PER_VOXEL = 256
"""A graph cannot be asked what it takes; a U-Net of 32 channels takes about as much."""


def onnx_engine(package: ModelPackage) -> Engine:
    """Load an ONNX graph into onnxruntime, on the CPU.

    Raises
    ------
    BrokenPackage
        onnxruntime is not installed, or the graph is not one it can run: one input of five axes
        (batch, channels, x, y, z) and one output, no files beside it, no functions of others.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BrokenPackage(
            "This model needs onnxruntime: pip install 'scorenode[onnx]'."
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        data = package.read(package.weights_entry)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 5:
            raise ValueError("not one input of five axes and one output")
        classes = outputs[0].shape[1]
        if not isinstance(classes, int):
            raise ValueError("the number of outputs is not fixed")
    except BrokenPackage:
        raise
    except Exception as error:
        raise BrokenPackage(
            f"The ONNX graph of {package.identity.family} cannot be run ({type(error).__name__})."
        ) from error

    def run(batch: torch.Tensor) -> torch.Tensor:
        said: Any = session.run(None, {inputs[0].name: batch.numpy()})[0]
        return torch.from_numpy(np.asarray(said, np.float32))

    return Engine(run, classes, (CPU,), _onnx_bytes)


def _onnx_bytes(shape: Sequence[int]) -> int:
    return int(np.prod(shape)) * ONNX_BYTES_PER_VOXEL


def skops_engine(package: ModelPackage) -> Engine:
    """Load a scikit-learn classifier of voxels: channels are its features.

    Raises
    ------
    BrokenPackage
        skops is not installed, the file holds types that are not scikit-learn's, or no classifier
        with ``predict_proba`` on as many features as the manifest has inputs.
    """
    try:
        from skops import io as skops_io
    except ImportError as error:
        raise BrokenPackage("This model needs skops: pip install 'scorenode[skops]'.") from error
    family = package.identity.family
    data = package.read(package.weights_entry)
    try:
        strange = skops_io.get_untrusted_types(data=data)
        if strange:
            raise BrokenPackage(
                f"The classifier of {family} holds types that could run code: "
                f"{', '.join(sorted(strange))[:200]}."
            )
        model: Any = skops_io.loads(data, trusted=[])
    except BrokenPackage:
        raise
    except Exception as error:
        raise BrokenPackage(
            f"The classifier of {family} cannot be read ({type(error).__name__})."
        ) from error
    channels = len(package.manifest.channels)
    if getattr(model, "n_features_in_", None) != channels or not hasattr(model, "predict_proba"):
        raise BrokenPackage(
            f"The classifier of {family} does not tell probabilities from {channels} features."
        )

    def run(batch: torch.Tensor) -> torch.Tensor:
        features = batch.permute(0, 2, 3, 4, 1).reshape(-1, channels).numpy()
        shares = np.asarray(model.predict_proba(features), np.float32)
        space = (batch.shape[0], *batch.shape[2:], shares.shape[1])
        return torch.from_numpy(shares.reshape(space)).permute(0, 4, 1, 2, 3)

    classes = len(model.classes_)
    return Engine(run, classes, (CPU,), lambda shape: int(np.prod(shape)) * 16 * (classes + 4))
