"""What a template would say of a model's output, before there is a study to say it of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from highdicom.sr import ReferencedSegment, SourceImageForSegmentation
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, SegmentationStorage

from models.base import ModelIdentity
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.described import SEGMENTS, ReportTemplate
from sr_templates.described_report import SegmentReference, content
from sr_templates.outlines import Outline
from sr_templates.outputs import view
from sr_templates.segmentation import tracking_name
from sr_templates.text import render_tree

PLACEHOLDER = "2.25."
SAMPLE_MODEL: Mapping[str, Any] = {
    "family": "sample-model",
    "version": "0.0.0",
    "title": "A model that is not named in the findings",
    "intended_use": "research",
    "sha256": "0" * 64,
    "weights_sha256": "0" * 64,
    "finding": ("SCT", "404684003", "Clinical finding"),
    "parameters": {},
}
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
NOTE = "All UIDs are placeholders.\n"
NOTE_OF_OUTLINES = "Outlines and their areas are placeholders.\n"
NOTE_OF_IMAGES = "One image stands for all that are referred to; what is said of it is made up.\n"


def preview(template: ReportTemplate, data: Mapping[str, Any]) -> str:
    """Write the content tree of a report, one content item a line.

    Parameters
    ----------
    template : ReportTemplate
    data : mapping
        A job's ``findings.json``, or the output of another model.

    Returns
    -------
    str

    Raises
    ------
    TemplateMismatch
        The output lacks a value, or one is out of its range.
    """
    seen = view(data)
    identity = ObjectIdentity(
        f"{PLACEHOLDER}1", f"{PLACEHOLDER}2", 1, template.name, PLACEHOLDER, ("preview",)
    )
    named = data.get("model")
    is_ours = isinstance(named, dict) and named.keys() == SAMPLE_MODEL.keys()
    model = ModelIdentity(**(named if is_ours and named else SAMPLE_MODEL))
    maker = Maker("preview", "preview", model, f"{PLACEHOLDER}3", datetime.now(UTC))
    built = content(template, seen, _references(seen, identity), identity, maker, [_image()])
    drawn = any(line.kind == "planar" for line in template.groups)
    note = NOTE + (NOTE_OF_OUTLINES if drawn else "")
    note += NOTE_OF_IMAGES if template.image_library else ""
    flag = "" if built.is_complete else "The report is PARTIAL.\n"
    return note + flag + "\n" + render_tree(built.tree[0])


def _image() -> Dataset:
    """Stand for an image: nothing is known of it, so its Modality says nothing of a procedure."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"{PLACEHOLDER}5", ""
    ds.FrameOfReferenceUID = f"{PLACEHOLDER}6"
    ds.Rows, ds.Columns = 1, 1
    return ds


def _references(seen: Mapping[str, Any], identity: ObjectIdentity) -> dict[str, SegmentReference]:
    """Stand for the segments of a Segmentation: those that have a volume."""
    items = seen.get(SEGMENTS)
    if not isinstance(items, list):
        return {}
    found = [
        item
        for item in items
        if isinstance(item, Mapping) and item.get("volume") and type(item.get("number")) is int
    ]
    return {
        identity.uid(tracking_name(item["number"])): SegmentReference(
            identity.uid(tracking_name(item["number"])),
            str(item.get("label", f"segment {item['number']}")),
            ReferencedSegment(
                SegmentationStorage,
                f"{PLACEHOLDER}4",
                position,
                source_images=[SourceImageForSegmentation(CTImageStorage, f"{PLACEHOLDER}5")],
            ),
            Outline(SQUARE, (CTImageStorage, f"{PLACEHOLDER}5", None), 1.0),
        )
        for position, item in enumerate(found, start=1)
    }
