"""Senders of other families: dcmsend with several associations, dcmjs-dimse on Node.js."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.node.receive.test_header import data_set_of
from tests.peers import AE_TITLE, MODALITY, ct_image, part10, running_receiver
from tests.tools import tool

pytestmark = pytest.mark.slow

DCMJS_DIMSE = "dcmjs-dimse@0.3.3"

SEND = """
const { Client, Dataset, requests, constants } = require('dcmjs-dimse');
const [port, ...files] = process.argv.slice(2);
const client = new Client();
const statuses = [];
for (const file of files) {
  const request = new requests.CStoreRequest(Dataset.fromFile(file));
  request.on('response', (response) => statuses.push(response.getStatus()));
  client.addRequest(request);
}
client.on('closed', () => console.log(JSON.stringify(statuses)));
client.on('networkError', (error) => { console.error(String(error)); process.exit(1); });
client.send('127.0.0.1', Number(port), 'MODALITY', 'SCORENODE');
"""


def studies(folder: Path, count: int) -> dict[str, Path]:
    """Files by SOP Instance UID."""
    folder.mkdir()
    made = {}
    for number in range(count):
        ds = ct_image(InstanceNumber=number, PixelData=bytes([number]) * 32)
        made[str(ds.SOPInstanceUID)] = part10(ds, folder / f"{number}.dcm").path
    return made


def test_dcmsend_stores_unchanged_and_says_so(tmp_path: Path) -> None:
    sent = studies(tmp_path / "study", 20)
    report = tmp_path / "report.txt"
    with running_receiver(tmp_path) as node:
        command = [tool("dcmsend"), "-aet", MODALITY, "-aec", AE_TITLE, "+sd", "+ma", "+crf"]
        done = subprocess.run(
            [*command, report, "127.0.0.1", str(node.port), tmp_path / "study"],
            check=False,
            capture_output=True,
            timeout=60,
        )
        # Its exit status is 0 whatever happened: its report tells.
        assert done.returncode == 0
        assert "with status SUCCESS  : 20" in report.read_text()
        stored = {str(dcmread(path).SOPInstanceUID): path for path in node.stored_paths()}
        assert stored.keys() == sent.keys()
        for uid, path in stored.items():
            assert data_set_of(path)[1] == data_set_of(sent[uid])[1]


@pytest.fixture(scope="module")
def dcmjs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dcmjs-dimse."""
    folder = tmp_path_factory.mktemp("dcmjs")
    install = [tool("npm"), "install", "--no-audit", "--no-fund", "--silent", DCMJS_DIMSE]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=240)
    (folder / "send.js").write_text(SEND)
    return folder


def test_dcmjs_dimse_stores_what_it_sends(tmp_path: Path, dcmjs: Path) -> None:
    sent = studies(tmp_path / "study", 10)
    with running_receiver(tmp_path) as node:
        done = subprocess.run(
            [tool("node"), "send.js", str(node.port), *map(str, sent.values())],
            cwd=dcmjs,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip().splitlines()[-1] == "[" + ",".join("0" * 10) + "]"
        # It encodes data sets anew, so values are compared and not bytes.
        stored = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, node.stored_paths())}
        assert stored.keys() == sent.keys()
        for uid, ds in stored.items():
            original = dcmread(sent[uid])
            assert ds.PixelData == original.PixelData
            assert ds.InstanceNumber == original.InstanceNumber
            assert ds.PatientName == original.PatientName
