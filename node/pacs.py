"""A small stand-in PACS, to see results arrive where there is no real one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from node.receive.guard import keep_pynetdicom_quiet
from node.receive.storage_scp import TRANSFER_SYNTAXES

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Arrival:
    """An object the stand-in holds."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


class StandInPACS:
    """A Storage and Verification SCP that keeps what it gets in a folder.

    Unlike the receiver it promises nothing: no flush, no rows, no access control.

    Parameters
    ----------
    folder : Path
        Gets one ``<digest of the SOP Instance UID>.dcm`` for each object.
    ae_title : str
    host, port
        Port 0 takes any free one; see `port` after `start`.
    on_arrival : callable
        Told each object.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "PACS",
        host: str = "127.0.0.1",
        port: int = 0,
        on_arrival: Callable[[Arrival], None] = lambda arrival: None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self._port = port
        self._on_arrival = on_arrival
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._server: ThreadedAssociationServer | None = None
        self.ae = AE(ae_title=ae_title)
        self.ae.maximum_associations = 100
        self.add_contexts()

    def add_contexts(self) -> None:
        """Say what it accepts: everything that the receiver accepts."""
        self.ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self.ae.add_supported_context(cast(str, context.abstract_syntax), TRANSFER_SYNTAXES)

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            return self._port
        return int(self._server.server_address[1])

    @property
    def arrivals(self) -> list[Arrival]:
        """What it got so far, in order."""
        with self._lock:
            return list(self._arrivals)

    def start(self) -> None:
        """Listen."""
        keep_pynetdicom_quiet()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = self.ae.start_server(
            (self.host, self._port), block=False, evt_handlers=self.handlers()
        )

    def stop(self) -> None:
        """Stop listening and abort what goes on."""
        self.ae.shutdown()

    def handlers(self) -> list[Any]:
        """Say what it does on which event."""
        return [(evt.EVT_C_STORE, self.store)]

    def store(self, event: evt.Event) -> int:
        """Keep an object; answers a DIMSE status."""
        request = cast(Any, event.request)
        uid = str(request.AffectedSOPInstanceUID)
        path = self.folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm"
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(event.encoded_dataset())
        part.rename(path)
        syntax = str(event.context.transfer_syntax)
        arrival = Arrival(str(request.AffectedSOPClassUID), uid, syntax, path)
        with self._lock:
            self._arrivals.append(arrival)
        self._on_arrival(arrival)
        return 0x0000
