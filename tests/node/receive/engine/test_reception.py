"""A data set on its way in: the same bytes, digest and header however it is cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from node.receive.header import StartTooShort, scan
from node.receive.identity import StoreRequest
from node.receive.reception import Reception
from node.routing import header_keys
from node.statuses import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Status
from storage import tables
from storage.base import Acceptance
from tests.node.receive.test_header import data_set_of
from tests.peers import RunningReceiver, ct_image, digest_of, encoded, running_receiver
from tests.shared_data import shared

KEYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientSex")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path) as running:
        yield running


def request_for(uid: str) -> StoreRequest:
    return StoreRequest(CTImageStorage, uid, CTImageStorage, ExplicitVRLittleEndian, "modality")


def begun(node: RunningReceiver, uid: str) -> Reception:
    return node.service.reception(request_for(uid))


def stored(node: RunningReceiver) -> bytes:
    (path,) = node.stored_paths()
    return data_set_of(path)[1]


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 16_378, 10**9])
@pytest.mark.parametrize("spill_every", [0, 1, 3], ids=["held", "spilled", "spilled at times"])
def test_a_data_set_is_the_same_however_it_is_cut(
    node: RunningReceiver, size: int, spill_every: int
) -> None:
    ds = ct_image(PixelData=random.Random(1).randbytes(5000))
    data = encoded(ds)
    reception = begun(node, ds.SOPInstanceUID)
    for number, at in enumerate(range(0, len(data), size)):
        part = bytearray(data[at : at + size])
        reception.take(memoryview(part))
        if spill_every and number % spill_every == 0:
            reception.spill()
            part[:] = bytes(len(part))  # the buffer is used again
            assert not reception.holds_fragments

    assert reception.finish() == (Status(SUCCESS), Acceptance.STORED)

    assert stored(node) == data
    assert reception.size == len(data)
    assert node.incoming() == []
    with node.database.snapshot() as tx:
        row = tx.execute(sa.select(tables.Instance.digest, tables.Instance.size)).one()
    assert (row.digest, row.size) == (digest_of(data), len(data))


@pytest.mark.parametrize("spilled", [False, True], ids=["held", "spilled"])
@pytest.mark.parametrize("cut", [1, 8, 31, 33, 40])
def test_a_data_set_that_ends_too_early_is_refused_and_leaves_nothing(
    node: RunningReceiver, spilled: bool, cut: int
) -> None:
    ds = ct_image()
    data = encoded(ds)[:-cut]
    reception = begun(node, ds.SOPInstanceUID)
    reception.take(data)
    if spilled:
        reception.spill()
    status, acceptance = reception.finish()
    assert (status.code, acceptance) == (CANNOT_UNDERSTAND, None)
    assert node.stored_paths() == node.incoming() == []


def test_an_empty_data_set_is_refused(node: RunningReceiver) -> None:
    status, acceptance = begun(node, generate_uid()).finish()
    assert (status.code, acceptance) == (0xA900, None)


def test_what_is_dropped_half_way_leaves_nothing(node: RunningReceiver) -> None:
    ds = ct_image()
    reception = begun(node, ds.SOPInstanceUID)
    reception.take(encoded(ds)[:60])
    reception.spill()
    assert len(node.incoming()) == 1
    reception.discard()
    reception.discard()
    assert node.incoming() == []


def test_a_disk_below_its_mark_is_noticed_while_a_large_object_comes(
    node: RunningReceiver,
) -> None:
    ds = ct_image(PixelData=bytes(100_000))
    data = encoded(ds)
    reception = begun(node, ds.SOPInstanceUID)
    reception.take(data[:50_000])
    reception.spill()
    node.service._free_mark = lambda total: total + 1
    reception.take(data[50_000:])
    reception.spill()
    assert node.incoming() == []
    status, _ = reception.finish()
    assert (status.code, status.comment) == (OUT_OF_RESOURCES, "disk below its mark")


def test_a_request_that_cannot_be_served_costs_no_file(node: RunningReceiver) -> None:
    reception = node.service.reception(
        StoreRequest(CTImageStorage, "../x", CTImageStorage, ExplicitVRLittleEndian, "modality")
    )
    reception.take(bytes(100_000))
    reception.spill()
    assert node.incoming() == []
    assert not reception.holds_fragments
    assert reception.finish()[0].code == 0xA900


# -- the header from the first fragment ------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_the_beginning_gives_the_header_of_the_whole_or_says_that_it_cannot() -> None:
    keys = (*KEYS, *sorted(header_keys(()) - set(KEYS)), "RequestAttributesSequence.StudyID")
    enough = 0
    for path in (
        *sorted(shared("ct_head_ge_tilted").rglob("*.dcm"))[:3],
        *sorted(shared("t1_philips_whole_head_gm_ref").rglob("*.dcm"))[:3],
    ):
        syntax, data = data_set_of(path)
        whole = scan(data, syntax, keys)
        pixels = data.rfind(b"\xe0\x7f\x10\x00")
        for have in (*range(0, min(len(data), 4000), 37), pixels, pixels + 8, pixels + 100):
            try:
                assert scan(memoryview(data)[:have], syntax, keys, len(data)) == whole
                enough += 1
            except StartTooShort:
                assert have < pixels + 12
    assert enough > 6
