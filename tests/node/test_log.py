"""The log: one JSON object per line, and no patient in any of them."""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pydicom
import pytest
import structlog
from pydicom.dataset import Dataset
from pynetdicom import _config as pynetdicom_config

from node import log as node_log
from node.config.problems import ConfigError, Problem
from node.log import KEYS, configure

PATIENT = ("Zzyzx", "Quagmire", "19470815", "MRN-77-4711")
UID = "1.2.826.0.1.3680043.8.498.1"


class Stream(io.StringIO):
    """A stream that can refuse to write, as a full disk does."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Iterator[Stream]:
    root = logging.getLogger()
    before = (root.handlers, root.level, warnings.showwarning, sys.excepthook)
    hooks = (threading.excepthook, sys.unraisablehook, logging.raiseExceptions)
    flags = vars(pynetdicom_config).copy()
    stream = Stream()
    configure(stream, "info")
    yield stream
    text = stream.getvalue()
    root.handlers, root.level, warnings.showwarning, sys.excepthook = before
    threading.excepthook, sys.unraisablehook, logging.raiseExceptions = hooks
    vars(pynetdicom_config).update(flags)
    structlog.reset_defaults()
    assert not [planted for planted in PATIENT if planted.lower() in text.lower()]


@pytest.fixture
def patient() -> Dataset:
    ds = Dataset()
    ds.PatientName = "Zzyzx^Quagmire"
    ds.PatientID = "MRN-77-4711"
    ds.PatientBirthDate = "19470815"
    ds.StudyDescription = "CT head of Zzyzx Quagmire"
    return ds


def test_a_line_is_json_with_its_event_its_level_and_its_time_in_utc(stream: Stream) -> None:
    structlog.get_logger().info("series.completed", series_instance_uid=UID, instances=28)

    (line,) = stream.lines()
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert at.utcoffset() == timedelta(0)
    assert line == {
        "event": "series.completed",
        "level": "info",
        "series_instance_uid": UID,
        "instances": 28,
    }


def test_context_is_added_and_lines_below_the_level_are_left_out(stream: Stream) -> None:
    with structlog.contextvars.bound_contextvars(job_id=7):
        structlog.get_logger().debug("stage.skipped")
        structlog.get_logger().warning("stage.discarded")

    assert [(line["event"], line["job_id"]) for line in stream.lines()] == [("stage.discarded", 7)]


def test_unknown_keys_are_dropped_and_counted(stream: Stream, patient: Dataset) -> None:
    structlog.get_logger().info(
        "instance.stored",
        sop_instance_uid=UID,
        patient_name=str(patient.PatientName),
        dataset=patient,
        study_description=patient.StudyDescription,
    )

    (line,) = stream.lines()
    assert line["dropped"] == 3
    assert set(line) == {"event", "level", "timestamp", "sop_instance_uid", "dropped"}


@pytest.mark.parametrize("key", sorted(KEYS.keys() - {"sentence"}))
def test_a_known_key_does_not_carry_the_words_of_a_patient(
    stream: Stream, patient: Dataset, key: str
) -> None:
    values: list[object] = [patient, {"name": patient.PatientName}, patient.PatientName]
    if not key.endswith("ae_title"):
        values += ["Zzyzx^Quagmire", "Zzyzx Quagmire", ["Zzyzx Quagmire"], "Zzyzx\nQuagmire"]
    for value in values:
        structlog.get_logger().info("instance.stored", **{key: value})

    assert len(stream.lines()) == len(values)
    assert all(line[key] in ("withheld", ["withheld"]) for line in stream.lines())


def test_an_event_with_data_in_its_name_loses_it_and_says_where_it_was(stream: Stream) -> None:
    structlog.get_logger().info("stored Zzyzx Quagmire")
    structlog.get_logger().info("stored %s", "Zzyzx")

    first, second = stream.lines()
    assert first["event"] == second["event"] == "log.unnamed"
    assert first["where"].startswith("test_log.py:")


def test_an_exception_shows_types_and_places_and_no_foreign_words(
    stream: Stream, patient: Dataset
) -> None:
    def read(ds: Dataset) -> None:
        name = str(ds.PatientName)
        try:
            raise KeyError(name)
        except KeyError as error:
            raise ValueError(f"{name} is odd") from error

    try:
        read(patient)
    except ValueError:
        structlog.get_logger().exception("stage.broken")

    outer, cause = stream.lines()[0]["exception"]
    assert outer["type"] == "builtins.ValueError"
    assert cause["type"] == "builtins.KeyError"
    assert outer["frames"][-1].endswith(" read")
    assert set(outer) == {"type", "frames"}


def test_an_exception_of_ours_shows_its_sentence(stream: Stream) -> None:
    error = ConfigError([Problem("scorenode.yaml", 3, "node", "This has no value.")])

    structlog.get_logger().error("config.refused", exc_info=error)

    (described,) = stream.lines()[0]["exception"]
    assert described["type"] == "node.config.problems.ConfigError"
    assert described["sentence"] == "scorenode.yaml:3: node: This has no value."


def test_a_group_of_exceptions_shows_each_of_them(stream: Stream) -> None:
    group = ExceptionGroup("of Zzyzx", [ValueError("Quagmire"), OSError("MRN-77-4711")])

    structlog.get_logger().error("process.crashed", exc_info=group)

    (described,) = stream.lines()[0]["exception"]
    types = [one["type"] for one in described["exceptions"]]
    assert types == ["builtins.ValueError", "builtins.OSError"]


def test_libraries_are_heard_from_warning_up_without_their_words(
    stream: Stream, patient: Dataset
) -> None:
    foreign = logging.getLogger("pynetdicom.events")
    foreign.info("Dataset %s", patient)
    foreign.warning("Dataset %s", patient)
    try:
        raise ValueError(str(patient))
    except ValueError:
        foreign.exception("Exception raised for %s", patient.PatientName)

    warning, error = stream.lines()
    assert (warning["event"], warning["level"]) == ("library.reported", "warning")
    assert (warning["logger"], warning["where"][:9]) == ("pynetdicom.events", "test_log:")
    assert error["level"] == "error"
    assert error["exception"][0]["type"] == "builtins.ValueError"


def test_a_library_that_made_its_own_handler_is_caught_too(
    patient: Dataset, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = logging.getLogger("chatty.library")
    foreign.addHandler(logging.StreamHandler(sys.stderr))
    foreign.setLevel(logging.DEBUG)

    stream: Stream = request.getfixturevalue("stream")
    foreign.debug("%s", patient)
    foreign.error("%s", patient)

    assert [line["logger"] for line in stream.lines()] == ["chatty.library"]
    assert capsys.readouterr().err == ""


def test_warnings_that_quote_a_value_lose_it(stream: Stream) -> None:
    ds = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = node_log._show_warning
        ds.add_new(0x00100030, "DA", "Zzyzx Quagmire")
        ds.add_new(0x00100010, "PN", "Zzyzx^Quagmire" * 20)

    lines = stream.lines()
    assert lines
    assert {line["event"] for line in lines} == {"library.warned", "library.reported"}
    assert {line["error"] for line in lines if "error" in line} == {"UserWarning"}


def test_what_ends_a_thread_or_the_process_is_logged_without_words(stream: Stream) -> None:
    def work() -> None:
        raise ValueError("Zzyzx Quagmire")

    thread = threading.Thread(target=work, name="receiver-1")
    thread.start()
    thread.join()
    try:
        work()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    assert [line["event"] for line in stream.lines()] == ["thread.crashed", "process.crashed"]
    assert stream.lines()[0]["thread"] == "receiver-1"


def test_what_a_finaliser_raises_is_logged_without_words(stream: Stream) -> None:
    class Fragile:
        def __del__(self) -> None:
            raise ValueError("Zzyzx Quagmire")

    Fragile()
    gc.collect()

    assert [line["event"] for line in stream.lines()] == ["exception.unraised"]


def test_identifiers_of_queries_are_never_logged(stream: Stream) -> None:
    assert not pynetdicom_config.LOG_REQUEST_IDENTIFIERS
    assert not pynetdicom_config.LOG_RESPONSE_IDENTIFIERS
    assert pynetdicom_config.LOG_HANDLER_LEVEL == "none"


def test_a_sentence_cannot_forge_a_second_line(stream: Stream) -> None:
    structlog.get_logger().info("job.failed", sentence='bad\n{"event": "node.stopped"}\x1b[2J')

    (line,) = stream.lines()
    assert line["sentence"] == 'bad {"event": "node.stopped"} [2J'


def test_a_full_disk_costs_lines_and_not_the_caller(stream: Stream) -> None:
    log = structlog.get_logger()
    stream.full = True
    log.info("instance.stored")
    log.info("instance.stored")
    stream.full = False
    log.info("node.stopped")

    events = [(line["event"], line.get("count")) for line in stream.lines()]
    assert events == [("log.lost", 2), ("node.stopped", None)]


def test_lines_of_many_threads_stay_whole(stream: Stream) -> None:
    def write() -> None:
        for number in range(200):
            structlog.get_logger().info("instance.stored", count=number, sentence="x" * 300)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(stream.lines()) == 1600


def test_numbers_that_json_does_not_know_are_withheld(stream: Stream) -> None:
    structlog.get_logger().info(
        "stage.finished", seconds=float("nan"), job_id=pydicom.valuerep.IS("3")
    )

    (line,) = stream.lines()
    assert (line["seconds"], line["job_id"]) == ("withheld", 3)
