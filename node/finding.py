"""Asks a peer by C-FIND whether it holds one object (level IMAGE, study root)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
)

from node.scu import Call, Destination, SendOutcome
from storage.base import Delivery

FIND = str(StudyRootQueryRetrieveInformationModelFind)
PENDING = (0xFF00, 0xFF01)


class FindCall:
    """An association for C-FIND."""

    def __init__(self, destination: Destination) -> None:
        self._call = Call(destination, [(FIND, "")])

    @property
    def failure(self) -> SendOutcome | None:
        """Why nothing can be asked now."""
        return self._call.failure

    def holds(self, item: Delivery) -> bool | None:
        """Whether the peer finds an object; None: it did not say."""
        keys = Dataset()
        keys.QueryRetrieveLevel = "IMAGE"
        keys.StudyInstanceUID = item.study_instance_uid
        keys.SeriesInstanceUID = item.series_instance_uid
        keys.SOPInstanceUID = item.sop_instance_uid
        found, ended = False, False
        try:
            for answer, match in self._call.association.send_c_find(keys, FIND):
                status = answer.get("Status")
                if status in PENDING:
                    uid = "" if match is None else str(match.get("SOPInstanceUID", ""))
                    found = found or uid == item.sop_instance_uid
                ended = status == 0x0000
        except (RuntimeError, ValueError):
            return None
        return found if ended else None

    def end(self) -> None:
        """Release the association."""
        self._call.end()
