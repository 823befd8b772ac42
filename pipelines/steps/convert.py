"""The convert step: files of one series to a volume a model accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from models.base import ElementValue, Volume
from models.manifest import Element
from pipelines.base import Misconfigured, NotScored, StepContext, Transient
from pipelines.steps.artefacts import ELEMENTS, save_volume, write_json
from pipelines.steps.packages import Package, package_of, refuse_unfit
from pipelines.steps.read import read_instance, third_party_warnings_off
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
        try:
            volume = _read(context.spec.inputs, modalities)
        except (NotScored, Transient):
            package.result()  # what an admin has to mend comes first
            raise
        ready_at = datetime.now(UTC)
        _refuse_other_first(context, package.result())
        refuse_unfit(package.result(), volume)
    context.progress(0.6, "writing the volume")
    save_volume(volume, context.folder)
    manifest = package.result().manifest
    for name in list(manifest.channels)[1:]:
        _convert_other(context, package.result(), name, modalities)
    if manifest.elements:
        header = read_instance(Place.from_text(context.spec.inputs[0]), pixels=False)
        with third_party_warnings_off():
            elements = _elements(header, manifest.elements)
        write_json(elements, context.folder / ELEMENTS)
    return {**volume.facts, "volume_ready_at": ready_at.isoformat()}


def _read(inputs: Sequence[str], modalities: Collection[str]) -> Volume:
    instances = open_whole_series([Place.from_text(text) for text in inputs])
    with third_party_warnings_off():
        headers = [instance.header for instance in instances if instance.like is None]
        _refuse_homeless(headers)
        _refuse_modality(headers, modalities)
    return volume_from_series(instances)


def _refuse_other_first(context: StepContext, package: Package) -> None:
    """Results lie on the rule's first input; it must be the one the model takes as its first."""
    name = next(iter(package.manifest.channels))
    named = context.spec.named.get(name)
    if named is not None and set(named) != set(context.spec.inputs):
        raise Misconfigured(
            f"The first input of the model {package.identity.family} is {name}; the rule must name "
            "it first, too."
        )


def _convert_other(
    context: StepContext, package: Package, name: str, modalities: Collection[str]
) -> None:
    """Write the volume of a further input into a folder of its name."""
    paths = context.spec.named.get(name)
    if not paths:
        raise Misconfigured(
            f"The model {package.identity.family} takes an input {name}, and the rule names none."
        )
    volume = _read(paths, modalities)
    refuse_unfit(package, volume, name)
    folder = context.folder / name
    folder.mkdir()
    save_volume(volume, folder)


def _elements(header: Dataset, wanted: Mapping[str, Element]) -> dict[str, ElementValue]:
    """Values of DICOM elements by the name the manifest gives them; None where there is none."""
    found: dict[str, ElementValue] = {}
    for name, element in wanted.items():
        value = header.get(element.keyword)
        if value in (None, ""):
            if element.required:
                raise NotScored(
                    "element_missing",
                    f"The images have no {element.keyword}, which the model needs.",
                )
            found[name] = None
        elif isinstance(value, (int, float, Decimal)):
            found[name] = float(value)
        elif isinstance(value, MultiValue):
            found[name] = tuple(v if isinstance(v, str) else float(v) for v in value)
        else:
            found[name] = str(value)
    return found


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
