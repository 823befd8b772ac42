"""The convert step: files of one series to a volume a model accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from pipelines.base import NotScored, StepContext
from pipelines.steps.artefacts import IMAGE, save_volume
from pipelines.steps.nifti import write_nifti
from pipelines.steps.packages import package_of, refuse_unfit
from pipelines.steps.read import read_series, third_party_warnings_off
from pipelines.steps.volume import volume_from_series


def convert(context: StepContext, modalities: Collection[str]) -> Mapping[str, Any]:
    """Write ``volume.npz``, ``facts.json`` and ``image.nii.gz``.

    Parameters
    ----------
    context : StepContext
    modalities : collection of str
        What the pipeline takes.

    Raises
    ------
    NotScored
        The series is not of these modalities, is no true volume, or is not what the model's
        manifest asks for.
    Misconfigured
        The model package is missing or altered.
    """
    package = package_of(context.spec.model)
    context.progress(0.0, "reading files")
    datasets = read_series([Path(path) for path in context.spec.inputs])
    with third_party_warnings_off():
        _refuse_homeless(datasets)
        _refuse_modality(datasets, modalities)
    context.progress(0.3, "building the volume")
    volume = volume_from_series(datasets)
    refuse_unfit(package, volume)
    context.progress(0.6, "writing the volume")
    save_volume(volume, context.folder)
    converter = write_nifti(volume, datasets, context.folder / IMAGE)
    return {**volume.facts, "converter": converter}


def _refuse_homeless(datasets: Sequence[Dataset]) -> None:
    """Refuse instances without study or series: their results would have no place to go."""
    for ds in datasets:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            if not ds.get(keyword):
                raise NotScored("no_identity", f"Instance {ds.SOPInstanceUID} has no {keyword}.")


def _refuse_modality(datasets: Sequence[Dataset], modalities: Collection[str]) -> None:
    wanted = " or ".join(sorted(modalities))
    for ds in datasets:
        if ds.get("Modality") not in modalities:
            raise NotScored(
                "wrong_modality",
                f"Instance {ds.SOPInstanceUID} has Modality {_code_string(ds)}; the pipeline "
                f"takes {wanted}.",
            )


def _code_string(ds: Dataset) -> str:
    """Modality as a Code String; anything longer or odder is not repeated."""
    text = str(ds.get("Modality") or "")
    return text if 0 < len(text) <= 16 and text.replace("_", "").isalnum() else "(none)"
