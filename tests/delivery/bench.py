"""A sender with everything under it, and jobs that have their results already."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydicom.uid import (
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from node.commitment import CommitmentService
from node.config.file import Config, load
from node.parts import Parts, open_parts
from node.processes import receiver_settings
from node.proving import Prover
from node.sender import Sender
from node.tending import Tender
from storage import events, jobs, queries, reaper, tasks
from storage.base import JobState, NewResult
from storage.destinations import Rest
from storage.objects import object_key
from storage.tables import Delivery, Job, Series, Study
from tests.peers import RunningReceiver, ct_image, part10, running_receiver

SLOTS = {
    "capture": SecondaryCaptureImageStorage,
    "seg": SegmentationStorage,
    "sr": ComprehensiveSRStorage,
}
QUICK = Rest(0.2, 0.5)


def configuration(
    folder: Path,
    peers: str,
    node: str = "",
    deliver: str = "{ to: PACS, confirm: [commitment, find] }",
) -> Config:
    """Read the configuration of a node with some peers, and its data in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scorenode.yaml"
    path.write_text(f"""\
schema: 1
node:
  ae_title: SCORENODE
  data: '{folder}'
  listen: {{ host: 127.0.0.1, port: 11112 }}
  {node}
peers:
{peers}
rules:
  - name: head-ct
    mode: live
    when: {{ Modality: CT }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
    deliver: [ {deliver} ]
""")
    return load(path)


@dataclass
class Bench:
    """What a test works with; `receiver` takes the reports."""

    parts: Parts
    sender: Sender
    tender: Tender
    receiver: RunningReceiver
    folder: Path
    uids: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID to SHA-256 of the data set, of every result."""

    def new_job(self, terms: dict[str, Any], slots: Sequence[str] = tuple(SLOTS)) -> int:
        """Open a job that has its results, with deliveries to every destination of `terms`."""
        number = len(self.uids)
        study_uid = generate_uid()
        results = [self._result(slot, study_uid) for slot in slots]
        tx: Any
        with self.parts.database.transaction() as tx:
            now = tx.now
            study = tx.execute(
                sa.insert(Study)
                .values(study_instance_uid=study_uid, first_at=now, last_at=now)
                .returning(Study.id)
            ).scalar_one()
            series = tx.execute(
                sa.insert(Series)
                .values(
                    study_id=study, series_instance_uid=generate_uid(), state="closed",
                    generation=1, n_instances=1, bytes=1, modality="CT",
                    first_at=now, opened_at=now, last_at=now,
                )
                .returning(Series.id)
            ).scalar_one()  # fmt: skip
            job_id = tx.execute(
                sa.insert(Job)
                .values(
                    idem_key=hashlib.sha256(f"{study_uid}{number}".encode()).hexdigest(),
                    series_id=series, generation=1, rule="head-ct", mode="live",
                    pipeline="haemorrhage", model="haemorrhage-demo", config_digest="c" * 64,
                    snapshot={"destinations": terms}, priority=5, state=JobState.RUNNING,
                    step="report", lease_owner="me", lease_token=1, frozen_at=now, created_at=now,
                )
                .returning(Job.id)
            ).scalar_one()  # fmt: skip
            job = jobs.get(tx, job_id)
            assert job is not None
            wanted = {name: one.get("send", list(SLOTS)) for name, one in terms.items()}
            jobs.fix_results(tx, job, results, wanted)
        return int(job_id)

    def _result(self, slot: str, study_uid: str) -> NewResult:
        ds = ct_image(
            SOPClassUID=SLOTS[slot],
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=generate_uid(),
            PixelData=bytes(2048),
        )
        path = self.folder / f"{ds.SOPInstanceUID}.tmp"
        file = part10(ds, path)
        data = path.read_bytes()
        path.unlink()
        digest = hashlib.sha256(data).hexdigest()
        key = object_key("results", study_uid, slot, digest)
        self.parts.objects.put(key, data)
        self.uids[file.sop_instance_uid] = digest
        return NewResult(
            slot=slot,
            sop_instance_uid=file.sop_instance_uid,
            series_instance_uid=str(ds.SeriesInstanceUID),
            sop_class_uid=file.sop_class_uid,
            transfer_syntax_uid=file.transfer_syntax_uid,
            object_key=key,
            sha256=digest,
            size=len(data),
        )

    def deliveries(self) -> list[dict[str, Any]]:
        """Rows as an admin sees them."""
        with self.parts.database.snapshot() as tx:
            return queries.deliveries_list(tx, 100_000)

    def states(self) -> dict[str, int]:
        """How many deliveries are in which state."""
        with self.parts.database.snapshot() as tx:
            query = sa.select(Delivery.state, sa.func.count()).group_by(Delivery.state)
            return {str(state): int(count) for state, count in tx.execute(query)}

    def job_state(self, job_id: int) -> str:
        """How a job stands."""
        with self.parts.database.snapshot() as tx:
            return str(tx.execute(sa.select(Job.state).where(Job.id == job_id)).scalar_one())

    def alerts(self) -> list[str]:
        """Keys of the alerts that nobody has closed."""
        with self.parts.database.snapshot() as tx:
            return [alert["key"] for alert in events.open_alerts(tx, 1000)]

    def send_due(self) -> bool:
        """Do one task of the queue; whether there was one."""
        owner = self.parts.owner
        with self.parts.database.transaction() as tx:
            task = tasks.claim(tx, "deliver", owner, jobs.RetryPolicy().lease)
        if task is None:
            return False
        self.sender.deliver(task.job_id)
        with self.parts.database.transaction() as tx:
            tasks.finish(tx, task.message_id, owner)
        return True

    def work_until(
        self, condition: Callable[[], bool], what: str, seconds: float = 60, threads: int = 1
    ) -> None:
        """Send, prove and reap until a condition holds."""
        over = threading.Event()

        def send() -> None:
            while not over.is_set():
                if not self.send_due():
                    over.wait(0.02)

        senders = [threading.Thread(target=send, daemon=True) for _ in range(threads)]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + seconds
        try:
            while not condition():
                assert time.monotonic() < deadline, f"waited for {what}: {self.states()}"
                self.tender.tick()
                with self.parts.database.transaction() as tx:
                    reaper.wake_forgotten(tx)
                over.wait(0.05)
        finally:
            over.set()
            for sender in senders:
                sender.join(60)


@contextlib.contextmanager
def bench(
    config: Config, *, stay_seconds: float = 0.3, rest: Rest = QUICK, port: int = 0
) -> Iterator[Bench]:
    """Run a sender, a tender and a receiver on one store."""
    folder = config.node.data_folder
    with running_receiver(
        folder,
        objects=folder,
        commitment=lambda database: CommitmentService(database, lambda: config),
        peers=receiver_settings(config, "").peers,
        port=port,
    ) as receiver:
        parts = open_parts(config)
        tender = Tender(parts, Prover(parts, stay_seconds, rest), rest)
        try:
            yield Bench(parts, Sender(parts, rest), tender, receiver, folder)
        finally:
            tender.stop()
            parts.close()
