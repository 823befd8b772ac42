"""The JSON Schema and the reference: made from what reads the file, and current."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from typer.testing import CliRunner

from node.cli.main import app
from node.config.certificate_checks import certificate_checks
from node.config.default import default_config
from node.config.file import check, load
from node.config.meanings import MEANINGS
from node.config.parts import Parts
from node.config.peers import Peer
from node.config.reference import json_schema, keys_of, markdown
from node.config.rule_checks import ModelCard
from node.config.rules import RuleLines
from node.config.sections import SECTIONS
from node.config.tables import Table
from tests.certificates import authority
from tests.node.test_config import CHANGES, GOOD

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _kinds(kind: type, seen: set[type]) -> Iterator[type]:
    if kind in seen:
        return
    seen.add(kind)
    yield kind
    for key in keys_of(kind):
        if key.section is not None:
            yield from _kinds(key.section, seen)


def _all_kinds() -> list[type]:
    seen: set[type] = set()
    return [k for top in (*SECTIONS.values(), Peer, Table, RuleLines) for k in _kinds(top, seen)]


def test_every_key_has_a_meaning_and_no_meaning_is_left_over() -> None:
    kinds = _all_kinds()

    assert all(is_dataclass(kind) for kind in kinds)
    assert {kind.__name__ for kind in kinds} == set(MEANINGS)
    for kind in kinds:
        keys = list(keys_of(kind))
        assert {key.name for key in keys} == set(MEANINGS[kind.__name__])
        assert all(key.meaning.meaning and key.meaning.example for key in keys)


def test_the_printed_reference_is_current() -> None:
    written = (DOCS / "configuration.md").read_text()

    assert written == markdown(), "run: scorenode config reference > docs/configuration.md"


def test_the_command_prints_the_schema() -> None:
    done = CliRunner().invoke(app, ["config", "schema"])

    assert done.exit_code == 0
    assert json.loads(done.stdout) == json_schema()


def _errors(text: str) -> list[str]:
    Draft202012Validator.check_schema(json_schema())
    content: Any = YAML(typ="safe", pure=True).load(io.StringIO(text))
    return [
        f"{e.json_path}: {e.message}"
        for e in Draft202012Validator(json_schema()).iter_errors(content)
    ]


@pytest.mark.parametrize("name", ["default", "example", "good"])
def test_good_files_satisfy_the_schema(name: str) -> None:
    texts = {
        "default": default_config(Path("data")),
        "example": (DOCS / "example.yaml").read_text(),
        "good": GOOD,
    }

    assert _errors(texts[name]) == []


SEEN = (
    "Did you mean completion", "Did you mean disk", "Did you mean sends_as", "Did you mean prior",
    "Did you mean give_up", "Did you mean min", "Write fail, ignore or hold", "Did you mean seg",
    "Did you mean live", "key mode is missing", "out of range: 0", "needs a unit", "level",
    "Did you mean header", "Did you mean plane", "this is in mm", "Did you mean most_slices",
    "Did you mean volume_ml", "is not a share", "Did you mean commitment", "'on' is not known",
)  # fmt: skip
"""Mistakes of vocabulary, which need neither a dictionary nor the rest of the file."""


@pytest.mark.parametrize(
    "change",
    [c for c in CHANGES if any(word in c[3] for word in SEEN) and "level: series" not in c[1]],
    ids=lambda change: change[2],
)
def test_an_editor_sees_most_mistakes_of_vocabulary(change: tuple[str, str, str, str]) -> None:
    old, new, _, _ = change

    assert _errors(GOOD.replace(old, new))


def _example(folder: Path) -> Path:
    path = folder / "scorenode.yaml"
    path.write_text((DOCS / "example.yaml").read_text())
    (folder / "redcap-token").write_text("0" * 32)
    (folder / "pki").mkdir()
    signer = authority(folder / "pki", "hospital-ca")
    signer.certificate.rename(folder / "pki" / "hospital-ca.pem")
    issued = authority(folder / "pki", "node")
    issued.certificate.rename(folder / "pki" / "node.pem")
    return path


def _checked(path: Path) -> list[str]:
    problems = check(
        path,
        pipelines={"haemorrhage", "dementia"},
        models={"haemorrhage", "dementia-demo"},
        cards={
            "haemorrhage": ModelCard("1.4.0", "clinical"),
            "dementia-demo": ModelCard(
                "1.0.0", "demonstration", kind="prognosis", scores=frozenset({"mmse"})
            ),
        },
    )
    return [str(problem) for problem in problems if problem.severity == "error"]


def test_the_example_passes_the_check(tmp_path: Path) -> None:
    assert _checked(_example(tmp_path)) == []


def test_certificates_that_cannot_be_used_are_told_with_their_line(tmp_path: Path) -> None:
    path = _example(tmp_path)
    (tmp_path / "pki" / "node.pem").write_text("no certificate")
    (tmp_path / "pki" / "node.key").unlink()
    line = (
        path.read_text()
        .splitlines()
        .index("    tls: { ca: pki/hospital-ca.pem, cert: pki/node.pem, key: pki/node.key }")
    )

    told = _checked(path)

    assert [problem.split(": ", 1)[0] for problem in told] == [f"{path}:{line + 1}"] * 2
    assert "node.pem holds no certificate in PEM form" in told[0]
    assert "node.key cannot be read: No such file" in told[1]


def test_a_certificate_that_has_ended_is_an_error_and_one_that_ends_soon_a_warning(
    tmp_path: Path,
) -> None:
    path = _example(tmp_path)
    config = load(path)
    peers, now = config.peers, datetime.now(UTC)
    parts = Parts({}, {}, peers, {}, {})

    soon = [found[-1] for found in certificate_checks(parts, now + timedelta(days=70))]
    ended = [found[-1] for found in certificate_checks(parts, now + timedelta(days=91))]

    assert (soon, ended) == (["warning"] * 2, ["error"] * 2)
