"""A PACS that stores, commits and finds, and does wrong what a script tells it to."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from node.commitment import COMMITMENT, WELL_KNOWN_INSTANCE, report_of
from node.finding import FIND
from node.pacs import StandInPACS
from storage.commitment_requests import Judged

NOT_HELD = 0x0112

STORE_FAULTS = (
    "a700", "a900", "c001", "warned", "duplicate", "abort", "abort_after", "hang",
    "says_duplicate", "loses",
)  # fmt: skip
ASSOCIATION_FAULTS = ("reject_transient", "reject_permanent", "cut_mid_pdu", "stall_mid_pdu")
COMMITMENT_FAULTS = (
    "action_fails", "action_aborts", "never_reports", "denies", "reports_half", "lies",
    "reports_twice",
)  # fmt: skip
FIND_FAULTS = ("find_fails", "find_aborts", "finds_late")
FAULTS = (*STORE_FAULTS, *ASSOCIATION_FAULTS, *COMMITMENT_FAULTS, *FIND_FAULTS)


class Script:
    """Says what goes wrong next; each fault happens so many times in all."""

    def __init__(self, seed: int, times: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._times = times
        self.happened: Counter[str] = Counter()

    def next(self, among: Sequence[str], chance: float = 0.35) -> str:
        """Give a fault, or an empty string when all goes well this time."""
        with self._lock:
            left = [name for name in among if self.happened[name] < self._times]
            if not left or self._random.random() > chance:
                return ""
            fault = self._random.choice(left)
            self.happened[fault] += 1
            return fault

    @property
    def is_over(self) -> bool:
        """Whether all faults have happened."""
        return all(self.happened[fault] >= self._times for fault in FAULTS)


class FaultyPACS(StandInPACS):
    """Keeps objects by UID, and the digest of each arrival.

    Parameters
    ----------
    folder : Path
    script : Script
    report_to : callable
        Gives host, port and AE title that reports go to.
    """

    def __init__(
        self, folder: Path, script: Script, report_to: Callable[[], tuple[str, int, str]]
    ) -> None:
        self.script = script
        self._report_to = report_to
        self._guard = threading.Lock()
        self.held: dict[str, str] = {}
        self.arrived: dict[str, set[str]] = {}
        self._late: dict[str, int] = {}
        self._reporters: list[threading.Thread] = []
        super().__init__(folder)

    def add_contexts(self) -> None:
        super().add_contexts()
        self.ae.add_supported_context(FIND)
        self.ae.add_supported_context(COMMITMENT)

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self.store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._action),
        ]

    def stop(self) -> None:
        super().stop()
        for reporter in self._reporters:
            reporter.join(30)

    def _requested(self, event: evt.Event) -> None:
        fault = self.script.next(("reject_transient", "reject_permanent"))
        if fault:
            code = (2, 3, 1) if fault == "reject_transient" else (1, 1, 3)
            event.assoc.acse.send_reject(*code)
            event.assoc.is_rejected = True
            event.assoc.kill()

    # -- storage -------------------------------------------------------------------------------

    def store(self, event: evt.Event) -> int:
        request = cast(Any, event.request)
        uid = str(request.AffectedSOPInstanceUID)
        digest = hashlib.sha256(request.DataSet.getvalue()).hexdigest()
        with self._guard:
            self.arrived.setdefault(uid, set()).add(digest)
            is_held = uid in self.held
        # What it holds already it cannot lose any more.
        fault = self.script.next(STORE_FAULTS[:-2] if is_held else STORE_FAULTS)
        match fault:
            case "a700" | "a900" | "c001":
                return {"a700": 0xA700, "a900": 0xA900, "c001": 0xC001}[fault]
            case "abort":
                event.assoc.abort()
                return 0x0000
            case "says_duplicate":
                return 0x0111
            case "loses":
                return 0x0000
        with self._guard:
            self.held.setdefault(uid, digest)
        match fault:
            case "warned":
                return 0xB000
            case "duplicate":
                return 0x0111
            case "abort_after":
                event.assoc.abort()
            case "hang":
                threading.Event().wait(5.0)
        return 0x0000

    # -- storage commitment --------------------------------------------------------------------

    def _action(self, event: evt.Event) -> tuple[int, Dataset | None]:
        information = event.action_information
        asked = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        ]
        fault = self.script.next(COMMITMENT_FAULTS, 0.8)
        if fault == "action_fails":
            return 0x0110, None
        if fault == "action_aborts":
            event.assoc.abort()
            return 0x0110, None
        if fault == "never_reports":
            return 0x0000, None
        reporter = threading.Thread(
            target=self._report, args=(str(information.TransactionUID), asked, fault)
        )
        self._reporters.append(reporter)
        reporter.start()
        return 0x0000, None

    def _judge(self, asked: list[tuple[str, str]], fault: str) -> Judged:
        with self._guard:
            held = [one for one in asked if one[1] in self.held]
        missing = [one for one in asked if one not in held]
        if fault == "lies":
            held, missing = asked, []
        if fault == "denies":
            held, missing = held[1:], missing + held[:1]
        if fault == "reports_half":
            held = held[: len(held) // 2]
        return Judged(tuple(held), tuple((one, NOT_HELD) for one in missing))

    def _report(self, uid: str, asked: list[tuple[str, str]], fault: str) -> None:
        kind, information = report_of(uid, self._judge(asked, fault))
        host, port, title = self._report_to()
        for _ in range(2 if fault == "reports_twice" else 1):
            ae = AE(self.ae_title)
            ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
            ae.add_requested_context(COMMITMENT)
            roles = [build_role(COMMITMENT, scp_role=True)]
            assoc = ae.associate(host, port, ae_title=title, ext_neg=cast(Any, roles))
            if assoc.is_established:
                assoc.send_n_event_report(information, kind, COMMITMENT, WELL_KNOWN_INSTANCE)
                assoc.release()

    # -- query ---------------------------------------------------------------------------------

    def _find(self, event: evt.Event) -> Any:
        keys = event.identifier
        uid = str(keys.SOPInstanceUID)
        fault = self.script.next(FIND_FAULTS)
        if fault == "find_fails":
            yield 0xC000, None
            return
        if fault == "find_aborts":
            event.assoc.abort()
            return
        if fault == "finds_late":
            self._late.setdefault(uid, 2)
        with self._guard:
            late = self._late.get(uid, 0)
            self._late[uid] = max(0, late - 1)
            is_found = uid in self.held and not late
        if is_found:
            answer = Dataset()
            answer.QueryRetrieveLevel = "IMAGE"
            answer.StudyInstanceUID = keys.StudyInstanceUID
            answer.SeriesInstanceUID = keys.SeriesInstanceUID
            answer.SOPInstanceUID = uid
            yield 0xFF00, answer


class BadLine:
    """A way to a port that cuts or stalls connections in the midst of a PDU, and may be down."""

    def __init__(self, script: Script, to_port: int) -> None:
        self._script = script
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._stop = threading.Event()
        self._down = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> BadLine:
        self._listener.settimeout(0.2)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def go_down(self) -> None:
        """Drop every connection from now on."""
        self._down.set()

    def come_back(self) -> None:
        """Carry connections again."""
        self._down.clear()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._down.is_set():
                near.close()
                continue
            self._start(self._carry, near)

    def _carry(self, near: socket.socket) -> None:
        fault = self._script.next(("cut_mid_pdu", "stall_mid_pdu"))
        left = random.Random(len(self._threads)).randrange(120, 3000) if fault else 1 << 40
        try:
            far = socket.create_connection(("127.0.0.1", self._to_port), timeout=5)
        except OSError:
            near.close()
            return
        self._start(self._pipe, far, near)
        near.settimeout(20)
        try:
            while left > 0 and (data := near.recv(min(left, 65536))):
                far.sendall(data)
                left -= len(data)
            if fault == "stall_mid_pdu" and left <= 0:
                self._stop.wait(5.0)
        except OSError:
            pass
        finally:
            for end in (near, far):
                _close(end)

    def _pipe(self, far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(65536):
                near.sendall(data)
        except OSError:
            pass
        finally:
            for end in (near, far):
                _close(end)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
