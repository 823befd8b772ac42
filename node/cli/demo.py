"""The main job once, for everybody to see: a node, a PACS, a study in, results back."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from node.config.file import load
from node.pacs import StandInPACS
from node.parts import database_url
from node.scu import Destination, echo
from storage import queries
from storage.base import StoreUnavailable
from storage.database import Database

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
MOST_SECONDS = 600.0
_NODE_SECONDS = 60.0

_CONFIG = """\
schema: 1
node:
  ae_title: SCORENODE
  listen: {{ host: 127.0.0.1, port: {port} }}
  data: {data}
  health: off
peers:
  LOCAL:
    sends_as: ['*']
    from_networks: [127.0.0.0/8]
  PACS:
    address: {{ host: 127.0.0.1, port: {pacs_port}, ae_title: PACS }}
    takes_demonstration: yes
completion: {{ quiet: 2s, max_wait: 1m }}
rules:
  - name: head-ct-haemorrhage
    mode: live
    when: {{ Modality: CT }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo, timeout: 10m }}
    deliver:
      - to: PACS
        send: [seg, sr, capture]
        series: {{ number: 9101, description: 'AI ICH demo' }}
        retry: {{ after: [1s, 2s, 5s] }}
"""


class DemoFailed(Exception):
    """Raised when the demo cannot go on; the sentence says what to look at."""


@dataclass(frozen=True)
class Demo:
    """What the demo works with.

    Parameters
    ----------
    folder : Path
        Keeps everything; what the PACS received lies in ``pacs/``.
    study : Path or None
        A folder of DICOM files; None: a head CT phantom is made.
    console : Console
    """

    folder: Path
    study: Path | None
    console: Console

    def run(self) -> bool:
        """Do it; whether everything arrived."""
        study = self.study or self._phantom()
        pacs = StandInPACS(self.folder / "pacs")
        pacs.start()
        config = self.folder / "scorenode.yaml"
        port = _free_port()
        data_folder = self.folder.resolve() / "node-data"
        config.write_text(_CONFIG.format(port=port, data=_quoted(data_folder), pacs_port=pacs.port))
        try:
            with self._node(config, port):
                self._push(study, port)
                jobs = self._wait(config)
        finally:
            pacs.stop()
        return self._tell(jobs)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _phantom(self) -> Path:
        from models.phantom_ct import make_head_ct
        from pipelines.phantom_series import write_ct_series

        folder = self.folder / "study"
        self._say("Making a head CT phantom with a bleed ...")
        phantom = make_head_ct(seed=7, kind="iph")
        paths = write_ct_series(phantom, folder, seed=7)
        truth_ml = float((phantom.labels > 0).sum()) * phantom.volume.voxel_ml
        self._say(f"  {len(paths)} slices, {truth_ml:.1f} ml of blood, in {folder}")
        return folder

    @contextlib.contextmanager
    def _node(self, config: Path, port: int) -> Iterator[None]:
        self._say("Starting the node ...")
        with (self.folder / "node.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "node", "serve", "--config", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                self._await_echo(process, port)
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def _await_echo(self, process: subprocess.Popen[bytes], port: int) -> None:
        node = Destination("127.0.0.1", port, "SCORENODE", "DEMO", connect_seconds=2.0)
        end = time.monotonic() + _NODE_SECONDS
        while time.monotonic() < end:
            if process.poll() is not None:
                raise DemoFailed(f"The node ended; see {self.folder / 'node.log'}.")
            if echo(node).kind == "sent":
                self._say(f"  it answers C-ECHO on 127.0.0.1:{port}")
                return
            time.sleep(0.2)
        raise DemoFailed(f"The node does not answer; see {self.folder / 'node.log'}.")

    def _push(self, study: Path, port: int) -> None:
        """Send the study with a C-STORE client in a process of its own."""
        self._say(f"Sending {study} with storescu ...")
        command = [sys.executable, "-m", "pynetdicom", "storescu", "127.0.0.1", str(port)]
        command += [str(study), "-aec", "SCORENODE", "-aet", "DEMO", "-r", "-cx", "-q"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=MOST_SECONDS)
        if done.returncode:
            raise DemoFailed(f"storescu ended with status {done.returncode}.")

    def _wait(self, config: Path) -> list[queries.Row]:
        """Show how the jobs come along until the node is at rest."""
        database = Database(database_url(load(config)))
        end = time.monotonic() + MOST_SECONDS
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
        try:
            with Progress(*columns, console=self.console, transient=True) as bars:
                bar = bars.add_task("waiting for the series to be complete", total=1.0)
                while time.monotonic() < end:
                    with contextlib.suppress(StoreUnavailable), database.snapshot() as tx:
                        jobs = queries.jobs_list(tx)
                        if queries.unfinished(tx) == 0 and queries.series_list(tx):
                            return self._describe(tx, jobs)
                        if jobs:
                            at, done = jobs[0]["step"], jobs[0]["progress"]
                            state = jobs[0]["state"].replace("_", " ")
                            bars.update(bar, description=f"{at}: {state}", completed=done)
                    time.sleep(0.2)
        finally:
            database.close()
        raise DemoFailed(f"The jobs did not end; see {self.folder / 'node.log'}.")

    def _describe(self, tx: Any, jobs: list[queries.Row]) -> list[queries.Row]:
        for series in queries.series_list(tx):
            [series_id] = queries.series_ids(tx, series["series_instance_uid"])[:1]
            self._say(f"  {series['modality'] or '?'} series of {series['n_instances']} instances")
            of_series = [
                job for job in jobs if job["series_instance_uid"] == series["series_instance_uid"]
            ]
            for job in of_series:
                self._say(f"    rule {job['rule']}: {job['state']}. {job['sentence']}")
            if not of_series:
                for decision in queries.decisions_of(tx, series_id):
                    self._say(f"    {decision['sentence']}")
        return [queries.job_show(tx, job["id"]) or {} for job in jobs]

    def _tell(self, jobs: list[queries.Row]) -> bool:
        """Show what the PACS has now, as a person at a viewer would find it."""
        received = {}
        for path in sorted((self.folder / "pacs").glob("*.dcm")):
            ds = pydicom.dcmread(path)
            received[str(ds.SOPInstanceUID)] = (path, ds)
        expected = {delivery["sop_instance_uid"] for job in jobs for delivery in job["deliveries"]}
        self._show_received(received)
        missing = expected - received.keys()
        if missing:
            self._say(f"[red]{len(missing)} results did not arrive.[/]")
        if not expected:
            self._say("[yellow]Nothing was scored, so nothing was sent.[/]")
        ok = bool(expected) and not missing
        if self.study is None:
            slots = {delivery["slot"] for job in jobs for delivery in job["deliveries"]}
            ok = ok and slots == {"seg", "sr", "capture"}
        return ok

    def _show_received(self, received: Mapping[str, tuple[Path, pydicom.Dataset]]) -> None:
        from sr_templates.text import render, series_line

        self._say(f"\nThe PACS has {len(received)} new objects:")
        ordered = sorted(received.values(), key=lambda item: int(item[1].SeriesNumber or 0))
        for path, ds in ordered:
            self.console.print(
                f"  {series_line(ds)}  [{path.name}]", highlight=False, markup=False, soft_wrap=True
            )
        for _, ds in ordered:
            if ds.SOPClassUID == COMPREHENSIVE_SR:
                self.console.print("\n" + render(ds), highlight=False, markup=False, soft_wrap=True)
        for number, (_, ds) in enumerate(ordered):
            if ds.SOPClassUID == SECONDARY_CAPTURE:
                picture = self.folder / f"picture-{number}.png"
                picture.write_bytes(_png(ds))
                self._say(f"Picture: {picture}")


def demo(study: Path | None, keep: Path | None, console: Console) -> bool:
    """Run the demo in a folder that is kept, or in a temporary one of which the picture stays."""
    if study is not None and not study.is_dir():
        raise DemoFailed(f"There is no folder {study}.")
    folder = keep or Path(tempfile.mkdtemp(prefix="scorenode-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "pacs").exists() or (folder / "node-data").exists():
        raise DemoFailed(f"{folder} holds an earlier demo; name a new folder.")
    arrived = Demo(folder, study, console).run()
    if keep is None:
        # Nobody asked for copies of the images: what stays is the page, and the log.
        for name in ("study", "pacs", "node-data"):
            shutil.rmtree(folder / name, ignore_errors=True)
    else:
        console.print(f"Everything is kept in {folder}", highlight=False, soft_wrap=True)
    return arrived


def _png(ds: pydicom.Dataset) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(ds.pixel_array).save(buffer, "png")
    return buffer.getvalue()


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
