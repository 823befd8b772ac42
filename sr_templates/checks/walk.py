"""Every element of a dataset with its place, at any depth; quick for thousands of frames."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset


def elements(
    ds: Dataset, place: str = "", only: Collection[str] | None = None
) -> Iterator[tuple[str, DataElement]]:
    """Yield elements in the order of their tags, what is in sequences where the sequence stands.

    Parameters
    ----------
    ds : Dataset
    place : str
        What places begin with.
    only : collection of str or None
        VRs that are wanted; what else was read from a file is not even decoded. None: all but
        sequences.

    Yields
    ------
    tuple
        Place, such as ``SegmentSequence[1].SegmentLabel``, and the element.
    """
    for tag, known in sorted(ds.items()):
        vr = known.VR
        if only is not None and vr is not None and vr != "SQ" and vr not in only:
            continue
        element = ds[tag]
        where = f"{place}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value or (), start=1):
                yield from elements(item, f"{where}[{number}].", only)
        elif only is None or element.VR in only:
            yield where, element
