"""Who made the results of a job, and under which UIDs they go."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

from pydicom.uid import generate_uid

from models.base import ModelIdentity
from pipelines.base import JobSpec
from sr_templates.base import Maker, ObjectIdentity


def object_identity(spec: JobSpec, slot: str, model: ModelIdentity) -> ObjectIdentity:
    """Return the UIDs and the label of a result, the same in every run of a job.

    The model that really ran is part of them: one that was exchanged after the job was opened
    makes other objects, not other bytes under the same UIDs. So does a row of a table that was
    corrected since.
    """
    entropy = (spec.idem_key, model.sha256, *_rows_digest(spec))

    def uid(*words: str) -> str:
        return str(generate_uid(prefix=spec.uid_root, entropy_srcs=[*entropy, *words]))

    return ObjectIdentity(
        sop_instance_uid=uid(slot, "instance"),
        series_instance_uid=uid(slot, "series"),
        series_number=spec.labels[slot].number,
        series_description=spec.labels[slot].description,
        uid_root=spec.uid_root,
        entropy=entropy,
    )


def _rows_digest(spec: JobSpec) -> tuple[str, ...]:
    """Digest of the rows of tables a job was given; nothing where there are none."""
    if not spec.rows:
        return ()
    text = json.dumps(spec.rows, sort_keys=True)
    return (hashlib.sha256(text.encode()).hexdigest(),)


def maker_of(spec: JobSpec, model: ModelIdentity) -> Maker:
    """Say who makes the results of a job; the Device UID is that of the model's content."""
    device = generate_uid(prefix=spec.uid_root, entropy_srcs=["model", model.sha256])
    return Maker(
        station=spec.station,
        software_version=version("scorenode"),
        model=model,
        device_uid=str(device),
        at=spec.frozen_at,
    )
