"""PACS for end-to-end tests: a stand-in that remembers everything, and Orthanc."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom

from node.pacs import Arrival, StandInPACS
from tests.end_to_end.harness import until
from tests.ports import free_port
from tests.services import missing

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
SC = "1.2.840.10008.5.1.4.1.1.7"
DICOM_WEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


class RememberingPACS(StandInPACS):
    """Keeps what came, and the digest of every arrival of every object."""

    def __init__(self, folder: Path) -> None:
        self.digests: dict[str, list[str]] = defaultdict(list)
        super().__init__(folder, on_arrival=self._remember)

    def _remember(self, arrival: Arrival) -> None:
        digest = hashlib.sha256(arrival.path.read_bytes()).hexdigest()
        self.digests[arrival.sop_instance_uid].append(digest)

    def objects(self) -> dict[str, pydicom.FileDataset]:
        """What it has now, by SOP Class UID; fails when there are two of one class."""
        found: dict[str, pydicom.FileDataset] = {}
        for path in sorted(self.folder.glob("*.dcm")):
            ds = pydicom.dcmread(path)
            assert ds.SOPClassUID not in found, f"two objects of class {ds.SOPClassUID.name}"
            found[ds.SOPClassUID] = ds
        return found

    def every_object_came_with_one_content(self) -> bool:
        """Whether objects that came more than once were identical each time."""
        return all(len(set(digests)) == 1 for digests in self.digests.values())


@contextlib.contextmanager
def remembering_pacs(folder: Path) -> Iterator[RememberingPACS]:
    """Run a stand-in PACS."""
    pacs = RememberingPACS(folder)
    pacs.start()
    try:
        yield pacs
    finally:
        pacs.stop()


class Orthanc:
    """The real thing, on ports of its own."""

    def __init__(
        self,
        folder: Path,
        node_port: int = 0,
        *,
        dicom_web: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True)
        self.configuration = folder / "orthanc.json"
        self.configuration.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(folder / "db"),
                    "IndexDirectory": str(folder / "db"),
                    "DicomAet": "PACS",
                    "DicomPort": self.port,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomAlwaysAllowStore": True,
                    "Plugins": [DICOM_WEB_PLUGIN] if dicom_web else [],
                    "UnknownSopClassAccepted": True,
                    "DefaultEncoding": "Utf8",
                    "DicomWeb": {
                        "Enable": True,
                        "Root": "/dicom-web/",
                        "StudiesMetadata": "Full",
                        "SeriesMetadata": "Full",
                    },
                    "DicomModalities": (
                        {"node": ["SCORENODE", "127.0.0.1", node_port]} if node_port else {}
                    ),
                    **(more or {}),
                }
            )
        )

    def get(self, path: str) -> Any:
        """Ask its REST interface."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())

    def post(self, path: str, value: Any) -> Any:
        """Tell its REST interface something."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, json.dumps(value).encode(), timeout=10) as answer:
            return json.loads(answer.read())

    def delete(self, path: str) -> None:
        """Have it forget something."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10):
            pass

    def instance_uids(self) -> list[str]:
        """SOP Instance UID of everything it holds."""
        return [
            self.get(f"/instances/{one}/simplified-tags")["SOPInstanceUID"]
            for one in self.get("/instances")
        ]

    def is_up(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError):
            return bool(self.get("/system"))
        return False


@contextlib.contextmanager
def orthanc(
    folder: Path,
    node_port: int = 0,
    *,
    dicom_web: bool = False,
    more: Mapping[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Run Orthanc, which knows our node at a port; skips without it, fails without it in CI."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        missing("Orthanc")
    if dicom_web and not Path(DICOM_WEB_PLUGIN).exists():
        missing("Orthanc's DICOMweb plugin")
    found = Orthanc(folder, node_port, dicom_web=dicom_web, more=more)
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(found.configuration)], stdout=log, stderr=log)
        try:
            until(found.is_up, "Orthanc to answer", 60)
            yield found
        finally:
            process.terminate()
            process.wait(30)
