"""Peers on the loopback: a PACS that misbehaves on command, and a receiver to send to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import xxhash
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.commitment import CommitmentService
from node.pacs import StandInPACS
from node.receive.access import PeerRule
from node.receive.association_rows import AssociationRows
from node.receive.receiver import Receiver
from node.receive.settings import ReceiverSettings
from node.receive.store_service import StoreService
from node.scu import CallingAE, Destination, OutgoingObject
from storage.base import OnConflict
from storage.database import Database
from storage.intake import Intake
from storage.objects import FileObjects
from tests.databases import new_sqlite

AE_TITLE = "SCORENODE"
MODALITY = "MODALITY"
LOOPBACK = ip_network("127.0.0.0/8")

Answer = Callable[[int], int | None]
"""From the number of the object (0, 1, ...) to the status; None: store it and answer 0x0000."""


def aborts(index: int) -> Answer:
    """An answer that ends the association in the middle of one object."""

    def answer(number: int) -> int | None:
        return -1 if number == index else None

    return answer


class ScriptedPACS(StandInPACS):
    """A PACS that does what a test wants.

    Parameters
    ----------
    answer : callable
        Status for each object; -1 aborts the association instead.
    sop_classes : collection of str or None
        Storage SOP Classes it accepts; None: all.
    rejection : tuple of int or None
        Result, source and reason with which it rejects every association.
    """

    def __init__(
        self,
        folder: Path,
        answer: Answer = lambda number: None,
        sop_classes: list[str] | None = None,
        rejection: tuple[int, int, int] | None = None,
    ) -> None:
        self._answer = answer
        self._sop_classes = sop_classes
        self._rejection = rejection
        self._number = 0
        self.released = threading.Event()
        self.go_on = threading.Event()
        self.associations = 0
        super().__init__(folder)

    def add_contexts(self) -> None:
        if self._sop_classes is None:
            super().add_contexts()
            return
        self.ae.add_supported_context(Verification)
        for uid in self._sop_classes:
            self.ae.add_supported_context(uid)

    def handlers(self) -> list[Any]:
        return [*super().handlers(), (evt.EVT_REQUESTED, self._requested)]

    def _requested(self, event: evt.Event) -> None:
        self.associations += 1
        if self._rejection is not None:
            event.assoc.acse.send_reject(*self._rejection)
            event.assoc.is_rejected = True
            event.assoc.kill()

    def store(self, event: evt.Event) -> int:
        status = self._answer(self._number)
        self._number += 1
        if status is None:
            return super().store(event)
        if status < 0:
            event.assoc.abort()
            return 0x0000
        return status

    def hangs(self, number: int) -> int | None:
        """An answer that waits until the test lets it go on."""
        self.go_on.wait(30)
        return None


@contextmanager
def running(pacs: StandInPACS) -> Iterator[StandInPACS]:
    """Run a stand-in PACS."""
    pacs.start()
    try:
        yield pacs
    finally:
        pacs.stop()


def destination_of(pacs: StandInPACS, **values: Any) -> Destination:
    """How to reach a stand-in PACS."""
    return Destination("127.0.0.1", pacs.port, pacs.ae_title, AE_TITLE, **values)


@dataclass
class RunningReceiver:
    """A receiver with everything under it, and what it told."""

    receiver: Receiver
    service: StoreService
    intake: Intake
    database: Database
    objects: FileObjects
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.receiver.port

    def named(self, event: str) -> list[dict[str, object]]:
        """Facts of all events of one name."""
        return [facts for name, facts in list(self.events) if name == event]

    def stored_paths(self) -> list[Path]:
        """Files of the object store."""
        return sorted((self.objects.root / "objects").rglob("*.dcm"))

    def incoming(self) -> list[Path]:
        """Spools that are still there."""
        return list(self.objects.incoming.iterdir())


@contextmanager
def running_receiver(
    folder: Path,
    guard: dict[str, Any] | None = None,
    objects: Path | None = None,
    *,
    engine: bool = True,
    on_conflict: OnConflict = OnConflict.KEEP_FIRST,
    commitment: Callable[[Database], CommitmentService] | None = None,
    **values: Any,
) -> Iterator[RunningReceiver]:
    """Run a receiver on SQLite that admits `MODALITY` from the loopback."""
    database = Database(new_sqlite(folder / "node.db"))
    store = FileObjects(objects or folder / "data")
    broken: list[Exception] = []
    intake = Intake(database, store, broken.append, on_conflict=lambda: on_conflict)
    rows = AssociationRows(database)
    peer = PeerRule("modality", (MODALITY,), (LOOPBACK,))
    chosen: dict[str, Any] = {"peers": (peer,), "host": "127.0.0.1", "port": 0} | values
    settings = ReceiverSettings(AE_TITLE, **chosen)
    keys = frozenset({"Modality", "SeriesDescription", "InstanceNumber"})
    service = StoreService(intake, lambda: keys, free_mark=lambda total: 0)
    events: list[tuple[str, dict[str, object]]] = []
    receiver = Receiver(
        service,
        settings,
        rows,
        on_event=lambda event, facts: events.append((event, dict(facts))),
        guard=guard,
        commitment=commitment(database) if commitment else None,
        engine=engine,
    )
    try:
        intake.start()
        rows.start()
        receiver.start()
        yield RunningReceiver(receiver, service, intake, database, store, events)
    finally:
        receiver.stop()
        rows.stop()
        intake.stop()
        database.close()
        assert not broken


def ct_image(**values: Any) -> Dataset:
    """A small CT image with the identity that every object needs."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1.1"
    ds.Modality = "CT"
    ds.PatientName = "Planted^Name"
    ds.PatientID = "PLANTED-ID"
    ds.Rows = ds.Columns = 4
    ds.BitsAllocated = 16
    ds.PixelData = bytes(32)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset) -> bytes:
    """Explicit VR Little Endian bytes of a data set."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    """Digest of a data set, as rows have it."""
    return f"xxh3:{xxhash.xxh3_128_hexdigest(data)}"


def part10(ds: Dataset, path: Path) -> OutgoingObject:
    """Write a data set as a file, ready to be sent."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)
    return OutgoingObject(
        str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ExplicitVRLittleEndian), path
    )


@contextmanager
def associated(
    port: int,
    contexts: list[tuple[str, list[str]]] | None = None,
    calling: str = MODALITY,
    called: str = AE_TITLE,
) -> Iterator[Association]:
    """Open an association with CT and Verification; released at the end where it still is."""
    ae = CallingAE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
    ae.add_requested_context(Verification)
    for abstract, syntaxes in contexts or [(CTImageStorage, [ExplicitVRLittleEndian])]:
        ae.add_requested_context(abstract, syntaxes)
    assoc = ae.associate("127.0.0.1", port, ae_title=called)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def send_bytes(
    assoc: Association,
    data: bytes,
    sop_instance_uid: str,
    sop_class_uid: str = CTImageStorage,
    context_of: str = CTImageStorage,
) -> Dataset:
    """Send any bytes as a data set, under any identity; the answer, empty when there is none."""
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.DataSet = BytesIO(data)
    context = next(cx for cx in assoc.accepted_contexts if cx.abstract_syntax == context_of)
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, cast(int, context.context_id))
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    result = Dataset()
    if answer is not None:
        result.Status = answer.Status
        result.ErrorComment = getattr(answer, "ErrorComment", None) or ""
        result.OffendingElement = getattr(answer, "OffendingElement", None)
    return result
