"""One JSON object per line, from a fixed set of keys, so that no patient data leaves by the log.

What a key may hold is fixed too (`KEYS`): a UID, a number, a word without spaces. Messages of
libraries and of exceptions we did not write are left out; where they came from is shown.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

OUR_PACKAGES = frozenset({"node", "pipelines", "models", "sr_templates", "storage"})
MAX_ITEMS = 32
MAX_SENTENCE = 400
MAX_FRAMES = 30
WITHHELD = "withheld"
FOREIGN_LEVEL = logging.WARNING

_EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_LOGGERS_WITH_HARMLESS_TEXT = frozenset({"alembic.runtime.migration"})


class Kind(Enum):
    """What the value of a key must look like; text that does not is withheld."""

    UID = re.compile(r"[0-9.]{1,64}")
    WORD = re.compile(r"[A-Za-z0-9_.:/@+*\[\]-]{0,160}")
    AE_TITLE = re.compile(r"[ -~]{0,16}")
    SENTENCE = re.compile(r"(?s).*")
    NUMBER = re.compile(r"(?!)")


def _kinds(**groups: str) -> dict[str, Kind]:
    return {key: Kind[kind] for kind, keys in groups.items() for key in keys.split()}


KEYS: Mapping[str, Kind] = _kinds(
    UID="""study_instance_uid series_instance_uid sop_instance_uid sop_class_uid
        transfer_syntax_uid transaction_uid""",
    AE_TITLE="calling_ae_title called_ae_title ae_title",
    WORD="""address host peer destination node station role roles process owner owners thread
        device worker pipeline model rule mode slot step stage queue message_id kind outcome
        verdict reason state from_state to_state error status version digest config
        config_digest logger where signal object_key priority name""",
    NUMBER="""job_id delivery_id association_id series_id result_id port pid instances jobs
        results objects tasks deliveries rules problems generation attempt attempts failures woken
        released count lost stored refused duplicates conflicts bytes free_bytes memory_bytes
        seconds wait_seconds late_seconds exit_code line progress associations leftovers deleted
        max_associations queued depth files rows inputs failed""",
    SENTENCE="sentence",
)
"""Every key a line may have; the rest are dropped, and counted under ``dropped``."""

_OWN_KEYS = frozenset({"event", "timestamp", "level", "exception", "dropped"})
_NUMBERS_TOO = frozenset({Kind.NUMBER, Kind.WORD, Kind.SENTENCE})


def configure(stream: TextIO, level: str) -> None:
    """Send every log line of this process to a stream.

    Also what libraries say through `logging` and `warnings` (from level warning up), and what
    ends a thread or the process; pynetdicom's own logging of identifiers is switched off.

    Parameters
    ----------
    stream : TextIO
        Normally ``sys.stdout``.
    level : str
        ``debug``, ``info``, ``warning`` or ``error``.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _name_event,
            _describe_exception,
            _keep_known_keys,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines(stream),
        cache_logger_on_first_use=False,
    )
    _listen_to_libraries()
    _quieten_pynetdicom()
    _catch_what_escapes()


def is_debugging() -> bool:
    """Whether lines of level debug are written; asking costs less than a line that is dropped."""
    wrapper: Any = structlog.get_config()["wrapper_class"]
    return wrapper is not None and getattr(wrapper, "debug", None) is not _DROPPED


_DROPPED: Any = structlog.make_filtering_bound_logger("info").debug


class _Lines:
    """Writes whole lines; a full disk or closed pipe costs lines, never the caller's work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lost = 0

    def __call__(self, *_: object) -> _Lines:
        return self

    def msg(self, line: str) -> None:
        """Write one line, and how many were lost before it."""
        with self._lock:
            try:
                if self._lost:
                    lost = {"event": "log.lost", "level": "warning", "count": self._lost}
                    self._stream.write(json.dumps(lost) + "\n")
                    self._lost = 0
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._lost += 1

    debug = info = warning = error = critical = msg


def _name_event(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Let through event names only; anything else may have data in it."""
    if not _EVENT.fullmatch(str(line.get("event"))):
        line["event"] = "log.unnamed"
        line.setdefault("where", _caller())
    return line


def _caller() -> str:
    for frame in reversed(traceback.extract_stack(limit=24)):
        if "structlog" not in frame.filename and frame.filename != __file__:
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return ""


def _describe_exception(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    info = line.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        line["exception"] = describe(error)
    return line


def describe(error: BaseException) -> list[dict[str, Any]]:
    """Describe an exception and what caused it, outermost first, without data.

    Returns
    -------
    list of dict
        ``type``; ``frames`` as ``file:line function``, innermost last, never local variables;
        and ``sentence`` for classes of our own, whose messages hold no patient data.
    """
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(found) < MAX_ITEMS:
        seen.add(id(current))
        found.append(_describe_one(current))
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return found


def _describe_one(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    described: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    if kind.__module__.split(".")[0] in OUR_PACKAGES:
        described["sentence"] = _clean(str(error))
    described["frames"] = _frames(error.__traceback__)
    if isinstance(error, BaseExceptionGroup):
        described["exceptions"] = [_describe_one(one) for one in error.exceptions[:MAX_ITEMS]]
    return described


def _frames(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-MAX_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _clean(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= MAX_SENTENCE else printable[:MAX_SENTENCE] + "..."


def _keep_known_keys(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    kept = {key: line[key] for key in line if key in _OWN_KEYS and key != "dropped"}
    dropped = 0
    for key, value in line.items():
        if key in _OWN_KEYS - {"dropped"}:
            continue
        if key not in KEYS:
            dropped += 1
            continue
        kept[key] = _value(KEYS[key], value)
        dropped += kept[key] == WITHHELD
    if dropped:
        kept["dropped"] = dropped
    return kept


def _value(kind: Kind, value: object) -> object:
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(kind, item) for item in list(value)[:MAX_ITEMS]]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        finite = isinstance(value, int) or math.isfinite(value)
        return value if finite and kind in _NUMBERS_TOO else WITHHELD
    text = str(value) if isinstance(value, str) else WITHHELD
    if kind is Kind.SENTENCE:
        return _clean(text)
    return text if kind.value.fullmatch(text) else WITHHELD


class _Library(logging.Handler):
    """Passes on that a library said something, and where, but not what it said."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record of the standard library's logging."""
        said: dict[str, Any] = {
            "logger": record.name,
            "where": f"{record.module}:{record.lineno}",
        }
        if record.name in _LOGGERS_WITH_HARMLESS_TEXT:
            said["sentence"] = record.getMessage()
        if record.exc_info:
            said["exc_info"] = record.exc_info
        log = structlog.get_logger()
        _at_level(log, record.levelno)("library.reported", **said)


def _at_level(log: Any, level: int) -> Callable[..., None]:
    name = "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "info"
    method: Callable[..., None] = getattr(log, name)
    return method


def _listen_to_libraries() -> None:
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers = [_Library()]
    root.setLevel(FOREIGN_LEVEL)
    for name in list(root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    structlog.get_logger().warning(
        "library.warned", error=category.__name__, where=f"{Path(filename).name}:{lineno}"
    )


def _quieten_pynetdicom() -> None:
    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False


def _catch_what_escapes() -> None:
    sys.excepthook = _process_crashed
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _went_unraised


def _process_crashed(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        structlog.get_logger().error("process.crashed", exc_info=error)


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error(
        "thread.crashed", thread=crash.thread.name if crash.thread else "", exc_info=crash.exc_value
    )


def _went_unraised(crash: sys.UnraisableHookArgs) -> None:
    structlog.get_logger().error("exception.unraised", exc_info=crash.exc_value)
