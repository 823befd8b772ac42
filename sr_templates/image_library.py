"""The images that a report refers to, described in it (TID 1600)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from sr_templates import stamp
from sr_templates.checks.tree import items

DESCRIBED_AS_ONE = "OT"
"""highdicom describes the place of an image by its Modality; frames lie in places of their own."""


def images_referred_to(groups: Iterable[Dataset], sources: Sequence[Dataset]) -> list[Dataset]:
    """Choose the images that Measurement Groups refer to, as highdicom's library takes them.

    Parameters
    ----------
    groups : iterable of Dataset
        CONTAINER of each group.
    sources : sequence of Dataset
        As `normalised` returns them.

    Returns
    -------
    list of Dataset
        Copies without patient data, in the order of the sources; of a multi-frame image size and
        Frame of Reference only are described.

    References
    ----------
    DICOM PS3.16 TID 1600, 1602, 1604.
    """
    referred = {
        str(reference.ReferencedSOPInstanceUID)
        for group in groups
        for item in items(group)
        for reference in item.ds.get("ReferencedSOPSequence") or ()
    }
    found = stamp.anonymous([ds for ds in sources if str(ds.SOPInstanceUID) in referred])
    for ds in found:
        if "NumberOfFrames" in ds:
            ds.Modality = DESCRIBED_AS_ONE
    return found
