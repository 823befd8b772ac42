"""The convert step: files of one series to a volume a model accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.base import NotScored, StepContext
from pipelines.steps.artefacts import save_volume
from pipelines.steps.packages import package_of, refuse_unfit
from pipelines.steps.read import third_party_warnings_off
from pipelines.steps.series import open_whole_series
from pipelines.steps.volume import volume_from_series
from storage.place import Place


def convert(context: StepContext, modalities: Collection[str]) -> Mapping[str, Any]:
    """Write ``volume.npy``, ``grid.json`` and ``facts.json``.

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
    with ThreadPoolExecutor(1) as meanwhile:
        package = meanwhile.submit(package_of, context.spec.model)
        context.progress(0.0, "reading files")
        volume = _read(context, modalities)
        ready_at = datetime.now(UTC)
        refuse_unfit(package.result(), volume)
    context.progress(0.6, "writing the volume")
    save_volume(volume, context.folder)
    return {**volume.facts, "volume_ready_at": ready_at.isoformat()}


def _read(context: StepContext, modalities: Collection[str]) -> Volume:
    instances = open_whole_series([Place.from_text(text) for text in context.spec.inputs])
    with third_party_warnings_off():
        headers = [instance.header for instance in instances if instance.like is None]
        _refuse_homeless(headers)
        _refuse_modality(headers, modalities)
    context.progress(0.3, "building the volume")
    return volume_from_series(instances)


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
