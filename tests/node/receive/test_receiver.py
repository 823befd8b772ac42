"""The receiver: who gets in, what is stored, and what is answered when it is not."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    generate_uid,
)

from node.receive.access import (
    AssociationRequest,
    PeerCertificate,
    PeerRule,
    address_of,
    identify,
    is_listed,
)
from node.receive.connection import CannotListen
from node.receive.storage_scp import TRANSFER_SYNTAXES
from node.scu import Destination, OutgoingObject, send
from node.statuses import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
)
from storage import tables
from tests.node.receive.test_header import data_set_of, nested
from tests.peers import (
    AE_TITLE,
    LOOPBACK,
    MODALITY,
    RunningReceiver,
    associated,
    ct_image,
    digest_of,
    encoded,
    part10,
    running_receiver,
    send_bytes,
)
from tests.shared_data import shared
from tests.tools import tool

SECRETS = ("Planted", "PLANTED-ID")


@pytest.fixture(params=[True, False], ids=["engine", "pynetdicom"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path, engine=request.param) as running:
        yield running


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition, up to a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def instances(node: RunningReceiver) -> list[sa.Row[tuple[str, str, str, int, int]]]:
    columns = (
        tables.Instance.sop_instance_uid,
        tables.Instance.digest,
        tables.Instance.object_key,
        tables.Instance.duplicates,
        tables.Instance.size,
    )
    with node.database.snapshot() as tx:
        return list(tx.execute(sa.select(*columns)).all())


def storescu(node: RunningReceiver, folder: Path, *options: str) -> int:
    command = [str(tool("storescu")), "-aet", MODALITY, "-aec", AE_TITLE, "+sd", "+r", *options]
    run = subprocess.run(
        [*command, "127.0.0.1", str(node.port), str(folder)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    return run.returncode


def assert_all_stored_unchanged(node: RunningReceiver, folder: Path) -> int:
    """Every file of a folder is in the object store, its data set byte for byte."""
    stored = {row.sop_instance_uid: row for row in instances(node)}
    sent = [path for path in folder.rglob("*") if path.is_file()]
    for path in sent:
        syntax, data = data_set_of(path)
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        file = node.objects.path(stored[uid].object_key)
        assert data_set_of(file) == (syntax, data)
        assert stored[uid].digest == digest_of(data)
        assert stored[uid].size == len(data)
        assert file.read_bytes()[:128] == bytes(128)
        meta = dcmread(file, stop_before_pixels=True).file_meta
        assert meta.MediaStorageSOPInstanceUID == uid
    assert len(stored) == len(sent)
    return len(sent)


def copied(source: Path, target: Path, most: int = 12) -> Path:
    """Copy some DICOM files of a folder, names made plain."""
    target.mkdir()
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    dicom = [path for path in files if path.read_bytes()[128:132] == b"DICM"]
    for number, path in enumerate(dicom[:most]):
        shutil.copyfile(path, target / f"{number}.dcm")
    return target


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("series", ["ct_head_ge_tilted", "ct_head_phantom_philips_study"])
def test_a_series_that_dcmtk_sends_is_stored_unchanged(
    node: RunningReceiver, tmp_path: Path, series: str
) -> None:
    # Series without the sequences whose lengths DCMTK writes in its own way before it sends.
    folder = copied(shared(series), tmp_path / "sent")
    assert storescu(node, folder) == 0
    assert assert_all_stored_unchanged(node, folder) == 12
    assert node.incoming() == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "series", ["t1_philips_whole_head_gm_ref", "t1_siemens_xa30_enhanced", "seg_and_sr_by_others"]
)
def test_what_our_own_scu_sends_is_stored_unchanged(
    node: RunningReceiver, tmp_path: Path, series: str
) -> None:
    folder = copied(shared(series), tmp_path / "sent", most=6)
    files = []
    for path in sorted(folder.iterdir()):
        meta = dcmread(path, stop_before_pixels=True).file_meta
        class_uid, uid = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        files.append(OutgoingObject(class_uid, uid, str(meta.TransferSyntaxUID), path))
    outcomes = send(Destination("127.0.0.1", node.port, AE_TITLE, MODALITY), files)
    assert [outcome.kind for outcome in outcomes] == ["sent"] * len(files), outcomes
    assert_all_stored_unchanged(node, folder)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_every_transfer_syntax_that_dcmtk_proposes_is_stored_unchanged(
    node: RunningReceiver, tmp_path: Path
) -> None:
    source = shared("transfer_syntaxes_siemens_mosaic")
    sent: dict[str, Path] = {}
    options = {
        "1.2.840.10008.1.2": "-xi",
        "1.2.840.10008.1.2.1": "-xe",
        "1.2.840.10008.1.2.2": "-xb",
    }
    options |= {"1.2.840.10008.1.2.4.70": "-xs", "1.2.840.10008.1.2.4.80": "-xt"}
    options |= {"1.2.840.10008.1.2.4.90": "-xv", "1.2.840.10008.1.2.5": "-xr"}
    options |= {"1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.91": "-xw"}
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            sent[data_set_of(path)[0]] = path
    used = [syntax for syntax in sent if syntax in options]
    assert len(used) >= 6
    everything = tmp_path / "all"
    everything.mkdir()
    for number, syntax in enumerate(used):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copyfile(sent[syntax], folder / "one.dcm")
        shutil.copyfile(sent[syntax], everything / f"{number}.dcm")
        assert storescu(node, folder, options[syntax]) == 0, syntax
    assert_all_stored_unchanged(node, everything)


def test_the_row_names_peer_association_and_routing_keys(
    node: RunningReceiver, tmp_path: Path
) -> None:
    ds = ct_image(SeriesDescription="Head", InstanceNumber="7")
    with associated(node.port) as assoc:
        assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == SUCCESS
    eventually(lambda: node.named("association.released"))
    ended = node.named("association.released")[0]
    assert (ended["stored"], ended["refused"]) == (1, 0)

    def row_is_closed() -> bool:
        with node.database.snapshot() as tx:
            ends = tx.execute(sa.select(tables.Association.closed_at)).scalars().all()
            return [end is not None for end in ends] == [True]

    eventually(row_is_closed)
    with node.database.snapshot() as tx:
        association = tx.execute(sa.select(tables.Association)).one()
        instance = tx.execute(sa.select(tables.Instance)).one()
        assert association.calling_ae_title == MODALITY
        assert (association.end_reason, association.stored) == ("released", 1)
        assert association.bytes == instance.size
        assert (instance.association_id, instance.peer) == (association.id, "modality")
        assert instance.header["SeriesDescription"] == ["Head"]
        assert instance.header["InstanceNumber"] == [7.0]
        assert "PatientName" not in instance.header


# -- duplicates and conflicts ----------------------------------------------------------------


def test_a_duplicate_is_answered_with_success_and_counted(node: RunningReceiver) -> None:
    ds = ct_image()
    with associated(node.port) as assoc:
        for _ in range(3):
            assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == SUCCESS
    rows = instances(node)
    assert [(row.sop_instance_uid, row.duplicates) for row in rows] == [(ds.SOPInstanceUID, 2)]
    assert len(node.stored_paths()) == 1


def test_other_bytes_under_a_known_uid_are_kept_beside_the_first(node: RunningReceiver) -> None:
    first = ct_image()
    other = ct_image(SOPInstanceUID=first.SOPInstanceUID, Rows=8)
    with associated(node.port) as assoc:
        for ds in (first, other):
            assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == SUCCESS
    (row,) = instances(node)
    assert row.digest == digest_of(encoded(first))
    assert len(node.stored_paths()) == 2
    with node.database.snapshot() as tx:
        conflict = tx.execute(sa.select(tables.Conflict)).one()
    assert conflict.digest == digest_of(encoded(other))
    eventually(lambda: len(node.named("instance.stored")) == 2)
    assert [fact["outcome"] for fact in node.named("instance.stored")] == ["stored", "conflict"]


def test_many_associations_at_once_lose_nothing(node: RunningReceiver) -> None:
    def send_ten(_: int) -> list[int]:
        with associated(node.port) as assoc:
            images = [ct_image() for _ in range(10)]
            return [send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status for ds in images]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for some in pool.map(send_ten, range(8)) for status in some]
    assert statuses == [SUCCESS] * 80
    assert len(instances(node)) == len(node.stored_paths()) == 80


# -- refusals --------------------------------------------------------------------------------


def empty(keyword: str) -> Dataset:
    return ct_image(**{keyword: ""})


REFUSED = {
    "truncated": (lambda ds: encoded(ds)[:-10], CANNOT_UNDERSTAND, 0x7FE00010),
    "noise": (lambda ds: b"\xff" * 400, CANNOT_UNDERSTAND, None),
    "nested": (lambda ds: encoded(nested(40)), CANNOT_UNDERSTAND, None),
    "other_instance": (
        lambda ds: encoded(ct_image()),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x00080018,
    ),
    "other_class": (
        lambda ds: encoded(ct_image(SOPInstanceUID=ds.SOPInstanceUID, SOPClassUID=MRImageStorage)),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x00080016,
    ),
    "no_study": (
        lambda ds: encoded(ct_image(SOPInstanceUID=ds.SOPInstanceUID, StudyInstanceUID="")),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x0020000D,
    ),
    "no_series": (
        lambda ds: encoded(ct_image(SOPInstanceUID=ds.SOPInstanceUID, SeriesInstanceUID="")),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x0020000E,
    ),
    "empty_instance_uid": (
        lambda ds: encoded(ct_image(SOPInstanceUID="")),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x00080018,
    ),
    "path_as_uid": (
        lambda ds: encoded(ds).replace(
            b"1.2.826.0.1.3680043.8.498.1.1", b"../../../../../../etc/passwd0"
        ),
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        0x0020000E,
    ),
}


@pytest.mark.parametrize(
    ("data", "status", "tag"), list(REFUSED.values()), ids=list(REFUSED.keys())
)
def test_what_is_not_the_named_object_is_refused_and_leaves_nothing(
    node: RunningReceiver, data: Callable[[Dataset], bytes], status: int, tag: int | None
) -> None:
    ds = ct_image()
    with associated(node.port) as assoc:
        answer = send_bytes(assoc, data(ds), ds.SOPInstanceUID)
        assert answer.Status == status
        assert answer.ErrorComment
        assert len(answer.ErrorComment) <= 64
        if tag is not None:
            assert answer.OffendingElement == tag
        assert not any(secret in str(answer) for secret in SECRETS)
        good = ct_image()
        assert send_bytes(assoc, encoded(good), good.SOPInstanceUID).Status == SUCCESS
    assert [row.sop_instance_uid for row in instances(node)] == [good.SOPInstanceUID]
    assert len(node.stored_paths()) == 1
    assert node.incoming() == []


def test_a_class_that_is_not_the_one_of_its_context_is_refused(node: RunningReceiver) -> None:
    ds = ct_image(SOPClassUID=MRImageStorage)
    with associated(node.port) as assoc:
        answer = send_bytes(assoc, encoded(ds), ds.SOPInstanceUID, MRImageStorage)
    assert answer.Status == SOP_CLASS_NOT_SUPPORTED
    assert instances(node) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_hostile_files_get_a_failure_status_and_the_receiver_goes_on(
    node: RunningReceiver,
) -> None:
    paths = [path for path in shared("odd_and_broken", "hostile").iterdir() if path.is_file()]
    for path in paths:
        if path.read_bytes()[128:132] != b"DICM":
            continue
        syntax, data = data_set_of(path)
        meta = read_file_meta_info(path)
        class_uid = str(meta.MediaStorageSOPClassUID)
        with associated(node.port, [(class_uid, [syntax])]) as assoc:
            if any(cx.abstract_syntax == class_uid for cx in assoc.accepted_contexts):
                uid = str(meta.MediaStorageSOPInstanceUID)
                answer = send_bytes(assoc, data, uid, class_uid, class_uid)
                assert "Status" in answer, path.name
                if "Deeply" in path.name:
                    assert answer.Status == CANNOT_UNDERSTAND
    with associated(node.port) as assoc:
        assert assoc.send_c_echo().Status == SUCCESS


def test_no_patient_data_leaves_by_an_event_or_an_answer(
    node: RunningReceiver, capfd: pytest.CaptureFixture[str]
) -> None:
    ds = ct_image()
    with associated(node.port) as assoc:
        send_bytes(assoc, encoded(ds), ds.SOPInstanceUID)
        send_bytes(assoc, encoded(ds)[:-3], ds.SOPInstanceUID)
        send_bytes(assoc, encoded(ds), generate_uid())
    eventually(lambda: node.named("association.released"))
    written = "".join(capfd.readouterr()) + str(node.events)
    assert "instance.refused" in written
    assert not any(secret in written for secret in SECRETS)


# -- who gets in -----------------------------------------------------------------------------


def rejection(node: RunningReceiver, **titles: str) -> tuple[int, int, int] | None:
    """Ask for an association; pynetdicom, when slow, sees its end before the answer: ask again."""
    answer = None
    for _ in range(5):
        with associated(node.port, **titles) as assoc:  # type: ignore[arg-type]
            if assoc.is_established:
                return None
            answer = assoc.acceptor.primitive
        if answer is not None:
            break
    assert answer is not None
    return answer.result, answer.result_source, answer.diagnostic  # type: ignore[return-value]


def test_an_unknown_calling_ae_title_is_rejected(node: RunningReceiver) -> None:
    assert rejection(node, calling="STRANGER") == (1, 1, 3)
    eventually(lambda: node.named("association.rejected"))
    assert node.named("association.rejected")[0]["reason"] == "calling_ae_title_not_recognized"


def test_a_wrong_called_ae_title_is_rejected(node: RunningReceiver) -> None:
    assert rejection(node, called="SOMEBODY") == (1, 1, 7)


def test_the_listed_peer_gets_in(node: RunningReceiver) -> None:
    assert rejection(node) is None


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_associations=2) as node:
        with associated(node.port), associated(node.port):
            assert rejection(node) == (2, 3, 2)
        eventually(lambda: node.receiver.associations == 0)
        assert rejection(node) is None


def test_a_peer_cannot_take_the_places_of_others(tmp_path: Path) -> None:
    greedy = PeerRule("greedy", ("GREEDY",), (LOOPBACK,), max_associations=1)
    other = PeerRule("other", ("OTHER",), (LOOPBACK,))
    with (
        running_receiver(tmp_path, peers=(greedy, other)) as node,
        associated(node.port, calling="GREEDY"),
    ):
        assert rejection(node, calling="GREEDY") == (2, 3, 2)
        assert rejection(node, calling="OTHER") is None


def test_a_disk_below_its_mark_rejects_for_now_and_admits_when_space_returns(
    tmp_path: Path,
) -> None:
    with running_receiver(tmp_path) as node:
        node.service._free_mark = lambda total: total + 1
        assert rejection(node) == (2, 3, 1)
        node.service._free_mark = lambda total: 0
        assert rejection(node) is None


def test_other_rules_count_from_the_next_association_on(node: RunningReceiver) -> None:
    settings = node.receiver.settings
    changed = PeerRule("renamed", ("RENAMED",), (LOOPBACK,))
    node.receiver.reconfigure(type(settings)(**(vars(settings) | {"peers": (changed,)})))
    assert rejection(node) == (1, 1, 3)
    assert rejection(node, calling="RENAMED") is None


def test_who_is_a_peer_no_more_is_cut_off_and_the_others_are_not(node: RunningReceiver) -> None:
    settings = node.receiver.settings
    guest = PeerRule("guest", ("GUEST",), (LOOPBACK,))
    node.receiver.reconfigure(replace(settings, peers=(*settings.peers, guest)))
    with associated(node.port) as stays, associated(node.port, calling="GUEST") as goes:
        node.receiver.reconfigure(settings)
        eventually(lambda: goes.is_aborted)
        assert stays.send_c_echo().Status == SUCCESS
    eventually(lambda: node.receiver.associations == 0)


def test_a_deflated_context_is_not_accepted(node: RunningReceiver) -> None:
    contexts = [(CTImageStorage, [DeflatedExplicitVRLittleEndian])]
    with associated(node.port, contexts) as assoc:  # type: ignore[arg-type]
        assert [cx.abstract_syntax for cx in assoc.accepted_contexts] == ["1.2.840.10008.1.1"]


def test_uncompressed_is_preferred_where_a_peer_offers_both(node: RunningReceiver) -> None:
    offered = [JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    with associated(node.port, [(CTImageStorage, offered)]) as assoc:  # type: ignore[list-item]
        taken = [cx.transfer_syntax[0] for cx in assoc.accepted_contexts]
    assert ExplicitVRLittleEndian in taken
    assert DeflatedExplicitVRLittleEndian not in TRANSFER_SYNTAXES


def test_address_and_ae_title_together_name_one_peer() -> None:
    ward = PeerRule("ward", ("CT",), (ip_network("10.0.0.0/24"),))
    clinic = PeerRule("clinic", ("CT", "MR"), (ip_network("10.0.1.0/24"),))
    anywhere = PeerRule("anywhere", ("*",), (ip_network("192.168.0.0/16"),))
    silent = PeerRule("silent", ())
    peers = (silent, ward, clinic, anywhere)

    def named(address: str, title: str) -> str:
        request = AssociationRequest(address, title, "NODE", "1.2.840.10008.3.1.1.1")
        found = identify(request, peers, "NODE")
        return found.name if isinstance(found, PeerRule) else found.reason

    assert named("10.0.0.9", "CT ") == "ward"
    assert named("::ffff:10.0.1.9", "CT") == "clinic"
    assert named("10.0.0.9", "MR") == "calling_ae_title_not_recognized"
    assert named("192.168.3.4", "WHATEVER") == "anywhere"
    assert not is_listed(peers, address_of("172.16.0.1"))
    assert is_listed(peers, address_of("10.0.1.1"))


def test_a_peer_with_any_title_is_nobody_whom_another_peer_names() -> None:
    research = PeerRule("research", ("*",), (LOOPBACK,))
    ct1 = PeerRule("ct1", ("CT1",), (LOOPBACK,), needs_tls=True, certificate_names=("ct1",))
    shown = PeerCertificate(("ct1",), "f" * 64)

    def named(title: str, certificate: PeerCertificate | None = None) -> str:
        request = AssociationRequest(
            "127.0.0.1",
            title,
            "NODE",
            "1.2.840.10008.3.1.1.1",
            is_tls=certificate is not None,
            certificate=certificate,
        )
        found = identify(request, (research, ct1), "NODE")
        return found.name if isinstance(found, PeerRule) else found.reason

    assert named("CT1", shown) == "ct1", "whatever the order in the file"
    assert named("CT1") == "calling_ae_title_not_recognized"
    assert named("OTHER") == "research"
    assert named("A\0B") == "calling_ae_title_not_recognized"
    assert named("A\nB") == "calling_ae_title_not_recognized"


def test_a_thread_that_cannot_be_started_costs_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "association":
            raise RuntimeError("can't start new thread")
        start(thread)

    with running_receiver(tmp_path) as node:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            for _ in range(40):
                assert rejection(node) is None
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                assert stack.enter_context(associated(node.port)).is_established


def test_dcmtk_echoscu_gets_an_answer(node: RunningReceiver) -> None:
    command = [str(tool("echoscu")), "-aet", MODALITY, "-aec", AE_TITLE, "127.0.0.1"]
    run = subprocess.run([*command, str(node.port)], capture_output=True, timeout=60, check=False)
    assert run.returncode == 0


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(
                CannotListen, match=rf"127\.0\.0\.1:{port} here \(Address already in use"
            ),
            running_receiver(tmp_path, port=port),
        ):
            pass


def test_stopping_lets_the_object_in_progress_finish(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as node:
        ds = ct_image(PixelData=bytes(8_000_000), Rows=2000, Columns=2000)
        statuses: list[int] = []

        def send() -> None:
            with associated(node.port) as assoc:
                statuses.append(send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status)

        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: node.receiver.associations == 1)
        node.receiver.stop()
        sender.join()
    assert statuses == [SUCCESS]


def test_stopping_cuts_an_association_that_does_not_end(tmp_path: Path) -> None:
    with running_receiver(tmp_path, drain_seconds=0.2) as node:
        with associated(node.port) as assoc:
            began = time.monotonic()
            node.receiver.stop()
            assert time.monotonic() - began < 10
            eventually(lambda: not assoc.is_established)
        assert node.receiver.associations == 0


# -- a full disk -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_answered_and_the_receiver_goes_on_when_space_returns(
    tmp_path: Path, small_disk: Path
) -> None:
    with running_receiver(tmp_path, objects=small_disk / "data") as node:
        node.service._free_mark = lambda total: -(1 << 60)
        statuses = []
        with associated(node.port) as assoc:
            for _ in range(12):
                ds = ct_image(PixelData=bytes(400_000))
                statuses.append(send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status)
            stored = statuses.count(SUCCESS)
            assert 4 <= stored <= 7
            assert statuses == [SUCCESS] * stored + [OUT_OF_RESOURCES] * (12 - stored)
            assert node.incoming() == []
            grow = ["mount", "-o", "remount,size=9m", str(small_disk)]
            subprocess.run(grow, check=True)
            ds = ct_image(PixelData=bytes(400_000))
            assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == SUCCESS
        assert len(instances(node)) == len(node.stored_paths()) == stored + 1
        assert node.incoming() == []


def test_the_disk_mark_refuses_before_the_disk_is_full(node: RunningReceiver) -> None:
    ds = ct_image()
    with associated(node.port) as assoc:
        node.service._free_mark = lambda total: total + 1
        answer = send_bytes(assoc, encoded(ds), ds.SOPInstanceUID)
    assert (answer.Status, answer.ErrorComment) == (OUT_OF_RESOURCES, "disk below its mark")
    assert node.incoming() == []


def test_a_file_as_dcmtk_writes_it_can_be_read_by_dcmtk_again(
    node: RunningReceiver, tmp_path: Path
) -> None:
    outgoing = part10(ct_image(), tmp_path / "one.dcm")
    folder = tmp_path / "sent"
    folder.mkdir()
    shutil.move(outgoing.path, folder)
    assert storescu(node, folder) == 0
    (path,) = node.stored_paths()
    dump = subprocess.run([str(tool("dcmftest")), str(path)], capture_output=True, check=False)
    assert dump.returncode == 0
