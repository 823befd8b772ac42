"""What `peers check` sees of a peer, and what it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from node.commitment import COMMITMENT
from node.config.file import Config
from node.finding import FIND
from node.peer_check import Checked, check, unmet
from storage import destinations
from storage.database import Database
from storage.migrate import migrate
from tests.delivery.bench import configuration
from tests.delivery.faulty_pacs import FaultyPACS, Script
from tests.peers import ScriptedPACS, running
from tests.ports import free_port

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def config_with(folder: Path, port: int) -> Config:
    peer = f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    supports: {{ commitment: yes, find: yes }}
    takes_demonstration: yes
    timeout: 5s
"""
    return configuration(folder, peer)


def seen(found: Checked) -> dict[str, bool]:
    return {line.what: line.is_offered for line in found.lines}


def test_a_peer_with_everything_is_good(tmp_path: Path) -> None:
    pacs = FaultyPACS(tmp_path / "pacs", Script(1, 0), lambda: ("127.0.0.1", 1, "X"))
    with running(pacs):
        config = config_with(tmp_path, pacs.port)
        found = check(config.peers["PACS"], config)

    assert found.is_good
    assert seen(found) == dict.fromkeys(
        ["network", "association", "echo", "seg", "sr", "capture", "find", "commitment"], True
    )


def test_what_is_wanted_and_not_offered_is_said(tmp_path: Path) -> None:
    with running(ScriptedPACS(tmp_path / "pacs", sop_classes=[CAPTURE])) as pacs:
        config = config_with(tmp_path, pacs.port)
        found = check(config.peers["PACS"], config)

    assert not found.is_good
    wrong = {line.what: line.sentence for line in found.lines if not line.is_good}
    assert set(wrong) == {"seg", "sr", "find", "commitment"}
    assert "if_refused" in wrong["seg"]
    assert FIND not in wrong["find"]
    assert COMMITMENT not in wrong["commitment"]


def test_a_peer_that_cannot_be_reached_is_said_to_be_so(tmp_path: Path) -> None:
    config = config_with(tmp_path, free_port())
    (line,) = check(config.peers["PACS"], config).lines
    assert line.what == "network"
    assert "cannot be reached" in line.sentence


@pytest.mark.parametrize("is_there", [True, False])
def test_the_command_keeps_what_it_saw(tmp_path: Path, is_there: bool) -> None:
    pacs = FaultyPACS(tmp_path / "pacs", Script(1, 0), lambda: ("127.0.0.1", 1, "X"))
    with running(pacs):
        config = config_with(tmp_path, pacs.port if is_there else free_port())
        database = Database(f"sqlite:///{tmp_path / 'node.db'}")
        migrate(database)
        arguments = ["peers", "check", "--json", "--config", str(config.path)]
        done = CliRunner().invoke(app, arguments)

    assert done.exit_code == (0 if is_there else 1)
    (printed,) = json.loads(done.stdout)
    with database.snapshot() as tx:
        assert destinations.capabilities(tx, "PACS") == printed
    database.close()


def test_config_check_warns_of_what_the_last_check_did_not_find(tmp_path: Path) -> None:
    with running(ScriptedPACS(tmp_path / "pacs", sop_classes=[CAPTURE])) as pacs:
        config = config_with(tmp_path, pacs.port)
        before = CliRunner().invoke(app, ["config", "check", "--json", str(config.path)])
        database = Database(f"sqlite:///{tmp_path / 'node.db'}")
        migrate(database)
        database.close()
        CliRunner().invoke(app, ["peers", "check", "--config", str(config.path)])
    after = CliRunner().invoke(app, ["config", "check", "--json", str(config.path)])

    new = [one for one in json.loads(after.stdout) if one not in json.loads(before.stdout)]
    assert after.exit_code == before.exit_code == 0
    assert {problem["severity"] for problem in new} == {"warning"}
    told = {problem["sentence"].partition(":")[0] for problem in new}
    assert told == {f"PACS does not take {what}" for what in ("seg", "sr", "find", "commitment")}
    assert {problem["where"] for problem in new} == {
        "rule head-ct, deliver[1].send",
        "rule head-ct, deliver[1].confirm",
    }


def test_what_stands_in_for_a_refused_result_needs_no_warning(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        "  PACS: { folder: results }",
        deliver="{ to: PACS, send: [seg, sr], if_refused: { seg: capture } }",
    )
    lacks = [{"what": what, "is_offered": False} for what in ("seg", "sr")]

    [problem] = unmet(config, {"PACS": {"lines": lacks}})

    assert "does not take sr" in problem.sentence
    assert list(unmet(config, {})) == []
