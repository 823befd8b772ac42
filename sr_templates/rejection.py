"""A rejection note: what tells a PACS that results of ours are no longer to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset

from models.base import IntendedUse, ModelIdentity
from sr_templates import codes, stamp
from sr_templates.base import MANUFACTURER, Maker, ObjectIdentity
from sr_templates.checks.segments import contributing_model
from sr_templates.normalise import TYPE_2
from sr_templates.report import device_observer, identifiers


def rejection_note(
    results: Sequence[Dataset], reason: str, identity: ObjectIdentity, maker: Maker
) -> Dataset:
    """Write a Key Object Selection that rejects results for quality reasons.

    Parameters
    ----------
    results : sequence of Dataset
        Results of one job, as they were sent; nothing else may be rejected.
    reason : str
        Sentence for the reader; without patient data.
    identity : ObjectIdentity
    maker : Maker
        Who made the results.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        An object is none of this project.

    References
    ----------
    DICOM PS3.16 TID 2010, CID 7010; PS3.3 A.35.4; IHE RAD TF-3, Imaging Object Change Management.
    """
    if any(ds.get("Manufacturer") != MANUFACTURER for ds in results):
        raise ValueError("an object is to be rejected that is none of ours")
    light = [_evidence(ds) for ds in results]
    general = stamp.general(results[0], identity, maker)
    content = KeyObjectSelection(
        document_title=codes.concept(codes.REJECTED),
        referenced_objects=light,
        observer_device_context=device_observer(maker),
        description=reason,
    )
    note = KeyObjectSelectionDocument(
        evidence=light,
        content=content,
        specific_character_set="ISO_IR 192",
        **general,
    )
    stamp.stamp(note, results[0], maker)
    return note


def _evidence(ds: Dataset) -> Dataset:
    """Only what a note says of an instance, and whether it is an image; no patient data."""
    light = identifiers(ds)
    for keyword in TYPE_2:
        setattr(light, keyword, "")
    for keyword in ("Rows", "Columns"):
        if keyword in ds:
            setattr(light, keyword, ds[keyword].value)
    return light


def maker_of_result(ds: Dataset, at: datetime) -> Maker:
    """Tell from a result of ours who made it.

    Parameters
    ----------
    ds : Dataset
    at : datetime
        Of the note; timezone-aware.
    """
    model = contributing_model(ds) or Dataset()
    return Maker(
        station=str(ds.get("DeviceSerialNumber", "")),
        software_version=version("scorenode"),
        model=ModelIdentity(
            family=str(model.get("ManufacturerModelName", "")),
            version=str(model.get("SoftwareVersions", "")),
            title=str(model.get("ContributionDescription", "")),
            intended_use=_intended_use(ds),
            sha256="",
            weights_sha256="",
            finding=codes.FINDING,
        ),
        device_uid=str(model.get("DeviceUID", "")),
        at=at,
    )


def _intended_use(ds: Dataset) -> IntendedUse:
    if stamp.WARNING in str(ds.get("SeriesDescription", "")):
        return "demonstration"
    return "research" if ds.get("ContentQualification") == "RESEARCH" else "clinical"
