"""A PACS on the loopback that answers C-FIND, C-MOVE and C-GET from a folder of objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from tests.peers import part10

QUERY_KEYS = ("PatientID", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "Modality",
              "SeriesDescription")  # fmt: skip


@dataclass
class QueryPACS:
    """What it holds, and where C-MOVE goes.

    `sloppy` answers every question with all it has, as some do. `lost` images cannot be sent.
    """

    objects: list[Dataset]
    destinations: dict[str, tuple[str, int]] = field(default_factory=dict)
    sloppy: bool = False
    lost: int = 0
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def _matching(self, wanted: Dataset) -> list[Dataset]:
        return [ds for ds in self.objects if self.sloppy or _matches(ds, wanted)]

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        level = str(wanted.QueryRetrieveLevel)
        self.asked.append(f"find {level}")
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}.get(
            level, "SOPInstanceUID"
        )
        found = {str(ds[key].value): ds for ds in self._matching(wanted)}
        for ds in found.values():
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in wanted:
                if element.keyword in ds:
                    answer[element.tag] = ds[element.tag]
            yield 0xFF00, answer

    def move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append("move")
        destination = self.destinations.get(str(event.move_destination).strip())
        if destination is None:
            yield None, None
            return
        yield (
            *destination,
            {"contexts": [build_context(CTImageStorage), build_context(MRImageStorage)]},
        )
        yield from self._send(event)

    def get(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append("get")
        yield from self._send(event)

    def _send(self, event: evt.Event) -> Iterator[Any]:
        found = [ds for ds in self.objects if _matches(ds, event.identifier)]
        yield len(found)
        for place, ds in enumerate(found):
            copy = Dataset() if place < self.lost else ds
            if place < self.lost:
                yield 0xFF00, None
                continue
            yield 0xFF00, copy


def _matches(ds: Dataset, wanted: Dataset) -> bool:
    for keyword in QUERY_KEYS:
        value = str(wanted.get(keyword) or "")
        if not value:
            continue
        has = str(ds.get(keyword, ""))
        if keyword == "StudyDate" and "-" in value:
            low, _, high = value.partition("-")
            if not (low or "0") <= has <= (high or "9"):
                return False
        elif has != value:
            return False
    return True


@contextmanager
def query_pacs(pacs: QueryPACS, folder: Any) -> Iterator[QueryPACS]:
    """Run it."""
    for place, ds in enumerate(pacs.objects):
        part10(ds, folder / f"{place}.dcm")
    ae = AE("PACS")
    for model in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
        StudyRootQueryRetrieveInformationModelGet,
    ):
        ae.add_supported_context(model)
    for context in StoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), scp_role=True, scu_role=True)
    handlers: list[Any] = [
        (evt.EVT_C_FIND, pacs.find),
        (evt.EVT_C_MOVE, pacs.move),
        (evt.EVT_C_GET, pacs.get),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = int(server.server_address[1])
    try:
        yield pacs
    finally:
        ae.shutdown()
