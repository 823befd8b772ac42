"""Keeps what a peer sends by C-GET: in this node's store, or in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pynetdicom import evt

from node.parts import Parts
from node.query import Counted, get
from node.receive.identity import StoreRequest
from node.receive.store_service import StoreService
from node.routing import header_keys
from node.scu import Destination
from storage.intake import Intake

OUT_OF_RESOURCES = 0xA700


def get_into_store(
    parts: Parts, peer: Destination, name: str, study_uid: str, series_uid: str
) -> Counted:
    """Retrieve by C-GET as a receiver would receive: durably, before each answer.

    Raises
    ------
    QueryFailed
    """
    failures: list[Exception] = []
    intake = Intake(parts.database, parts.objects, failures.append)
    keys = header_keys(parts.config.rules)
    disk = parts.config.node.disk
    service = StoreService(intake, lambda: keys, disk.refuse_free.in_bytes)
    intake.start()
    try:
        return get(peer, study_uid, series_uid, _into(service, name))
    finally:
        intake.stop()


def _into(service: StoreService, name: str) -> Callable[[evt.Event], int]:
    def store(event: evt.Event) -> int:
        request = cast(Any, event.request)
        context = event.context
        asked = StoreRequest(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            abstract_syntax_uid=str(context.abstract_syntax),
            transfer_syntax_uid=str(context.transfer_syntax),
            peer=name,
        )
        status, _ = service.store(asked, request.DataSet.getvalue())
        return int(status.code)

    return store


def get_into_folder(peer: Destination, study_uid: str, series_uid: str, folder: Path) -> Counted:
    """Retrieve by C-GET into Part 10 files, numbered as they come; what is there stays.

    Raises
    ------
    QueryFailed
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = iter(range(1, 1_000_000))

    def store(event: evt.Event) -> int:
        path = next(path for n in names if not (path := folder / f"{n:06d}.dcm").exists())
        try:
            path.write_bytes(event.encoded_dataset())
        except OSError:
            path.unlink(missing_ok=True)
            return OUT_OF_RESOURCES
        return 0x0000

    return get(peer, study_uid, series_uid, store)
