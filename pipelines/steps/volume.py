"""From the images of one series to true volumes: every voxel where its header says it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.base import NotScored
from pipelines.steps.frames import MAX_VOXELS
from pipelines.steps.geometry import refuse_gaps
from pipelines.steps.instances import Instance
from pipelines.steps.read import third_party_warnings_off
from pipelines.steps.split import Plan, Stack, Unused, plan_series, unused_frames
from pipelines.steps.volume_facts import facts_of
from pipelines.steps.voxels import checked_voxels


@dataclass(frozen=True, eq=False)
class Conversion:
    """What became of a series.

    ``frames`` images came in: each is in one of `volumes` or in `unused`.

    Parameters
    ----------
    volumes : tuple of Volume
        In the order of acquisition.
    unused : tuple of Unused
        Images in no volume, with the reason.
    frames : int
    refusal : NotScored or None
        Why there is no volume, where there is none.
    """

    volumes: tuple[Volume, ...]
    unused: tuple[Unused, ...]
    frames: int
    refusal: NotScored | None


def volumes_of_series(datasets: Sequence[Dataset | Instance]) -> Conversion:
    """Make every volume a series holds.

    A series is split by what makes volumes (`split.plan_series`). Each volume checks itself:
    pixels are looked up at the places their headers give, and must be there.

    Parameters
    ----------
    datasets : sequence of Dataset or Instance
        Of one series, in any order: single-frame CT or MR, enhanced multi-frame CT or MR,
        Siemens mosaics. Anything else is in `unused`.

    Returns
    -------
    Conversion
        Volumes have ``array`` of shape (columns, rows, slices), in modality units (HU for CT):
        int16 where uncompressed values are whole and fit, else float32; ``affine`` takes voxel
        indices to RAS+ millimetres, sheared where the gantry was tilted; ``slice_origins`` where
        steps are unequal.

    Raises
    ------
    Transient
        The store does not answer.

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module; C.7.6.16, Multi-frame Functional Groups.
    """
    instances = _instances(datasets)
    plan = plan_of(instances)
    volumes, unused = [], list(plan.unused)
    for stack in plan.stacks:
        try:
            volumes.append(volume_of_stack(stack, instances))
        except NotScored as error:
            unused += unused_frames(stack, error)
    refusal = None
    if not volumes:
        refusal = refusal_of(unused)
    return Conversion(tuple(volumes), tuple(unused), plan.frames, refusal)


def volume_from_series(datasets: Sequence[Dataset | Instance]) -> Volume:
    """Make the one volume of a series that is to be scored.

    Parameters
    ----------
    datasets : sequence of Dataset or Instance
        Of one series, in any order.

    Returns
    -------
    Volume
        As `volumes_of_series` makes them.

    Raises
    ------
    NotScored
        The series holds anything but the slices of one complete volume; the sentence says what.
    """
    instances = _instances(datasets)
    plan = plan_of(instances)
    _refuse_mixture(plan)
    stack = plan.stacks[0]
    refuse_gaps(stack.grid)
    return volume_of_stack(stack, instances)


def plan_of(instances: Sequence[Instance]) -> Plan:
    """Sort instances into stacks, as `split.plan_series` does."""
    with third_party_warnings_off():
        return plan_series(instances)


def refusal_of(unused: Sequence[Unused]) -> NotScored:
    """Say why a series has no volume: the reason of its first image."""
    if not unused:
        return NotScored("no_images", "The series holds no instances.")
    return NotScored(unused[0].reason, unused[0].sentence)


def volume_of_stack(stack: Stack, instances: Sequence[Instance]) -> Volume:
    """Read the pixels of a stack into a volume that has checked itself.

    Raises
    ------
    NotScored
        Pixels cannot be read, or the self-check fails.
    """
    frames = stack.frames
    voxels = frames[0].rows * frames[0].columns * len(frames)
    if voxels > MAX_VOXELS:
        raise NotScored(
            "series_too_large", f"The volume would hold {voxels} voxels; at most {MAX_VOXELS}."
        )
    with third_party_warnings_off():
        array, padded = checked_voxels(stack, instances)
        header = instances[frames[0].instance].header
        facts = facts_of(header, stack, padded / array.size)
        return Volume(
            array=array,
            affine=stack.grid.affine,
            frame_of_reference_uid=frames[0].sort["FrameOfReferenceUID"],
            source_instance_uids=tuple(frame.sop_instance_uid for frame in frames),
            facts=facts,
            source_frame_numbers=tuple(frame.index + 1 for frame in frames),
            slice_origins=stack.grid.origins,
        )


def _instances(datasets: Sequence[Dataset | Instance]) -> list[Instance]:
    return [ds if isinstance(ds, Instance) else Instance(ds) for ds in datasets]


def _refuse_mixture(plan: Plan) -> None:
    """Refuse a series with anything in it that is not a slice of one volume."""
    heads = [item for item in plan.unused if item.frame is None]
    if plan.mixture is not None and not any(_is_own(item) for item in heads):
        raise plan.mixture
    if plan.unused or not plan.stacks:
        raise refusal_of(plan.unused)


def _is_own(item: Unused) -> bool:
    """Tell whether an instance is unused for what it is, not for its place among others."""
    return item.reason not in ("too_few_slices", "coplanar_images", "duplicate_positions")
