"""Sees what a peer offers: network, C-ECHO, the classes we send, C-FIND, storage commitment.

Nothing is stored at the peer, and nothing is asked of it about patients.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.commitment import COMMITMENT
from node.config.base import USUAL_SLOTS
from node.config.file import Config
from node.config.peers import Peer
from node.config.problems import Problem
from node.destinations import destination_of, ping
from node.finding import FIND, PENDING
from node.scu import Call, Destination
from pipelines.base import SOP_CLASSES


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        ``network``, ``echo``, ``seg``, ``sr``, ``capture``, ``find``, ``commitment`` ...
    is_offered : bool
    is_wanted : bool
        Whether the configuration needs it.
    sentence : str
        Why not, or what to do; empty where all is well.
    """

    what: str
    is_offered: bool
    is_wanted: bool
    sentence: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing that is wanted is missing."""
        return self.is_offered or not self.is_wanted

    def row(self) -> dict[str, Any]:
        """Cells of a table."""
        mark = "yes" if self.is_offered else "NO" if self.is_wanted else "no"
        return {"what": self.what, "offered": mark, "sentence": self.sentence}


@dataclass(frozen=True)
class Checked:
    """What was seen of one peer."""

    peer: str
    lines: tuple[Line, ...]

    @property
    def is_good(self) -> bool:
        """Whether it offers all that is wanted of it."""
        return all(line.is_good for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """JSON values, to be kept and printed."""
        lines = [asdict(line) | {"is_good": line.is_good} for line in self.lines]
        return {"peer": self.peer, "is_good": self.is_good, "lines": lines}


def check(peer: Peer, config: Config) -> Checked:
    """Call a peer and see what it offers.

    Parameters
    ----------
    peer : Peer
    config : Config
        Says what is wanted of it, and our AE title.
    """
    if peer.address is None:
        outcome = ping(peer, config.node.ae_title) if peer.takes_results else None
        if outcome is None:
            return Checked(peer.name, (Line("network", False, False, "It is not called."),))
        is_there = outcome.kind == "sent"
        return Checked(peer.name, (Line("network", is_there, True, outcome.sentence),))
    there = destination_of(peer, config.node.ae_title)
    return Checked(peer.name, tuple(_lines(there, *_wanted(peer, config))))


def unmet(config: Config, seen: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield a warning for each thing that a rule asks of a peer and that was not seen there.

    Parameters
    ----------
    config : Config
    seen : mapping
        Name of a peer to what `Checked.to_json` gave when it was checked last; a peer that is not
        there was never checked.
    """
    for rule in config.rules:
        for number, there in enumerate(rule.deliver, start=1):
            lines = seen.get(there.peer, {}).get("lines", ())
            lacks = {line["what"] for line in lines if not line["is_offered"]}
            instead = asdict(there.if_refused) if there.if_refused else {}
            for key, asked in (("send", there.send), ("confirm", there.confirm)):
                for what in asked:
                    if what in lacks and not instead.get(what):
                        place = f"rule {rule.name}, deliver[{number}].{key}"
                        sentence = f"{there.peer} does not take {what}: {_ADVICE[key]} {_AGAIN}"
                        sentence = sentence.format(peer=there.peer)
                        yield Problem(str(config.path), 0, place, sentence, "warning")


_ADVICE = {
    "send": "say under if_refused what goes in its place.",
    "confirm": "leave it out, or nothing sent there will ever count as proved.",
}
_AGAIN = "Seen by the last check; again: scorenode peers check {peer}"


def _wanted(peer: Peer, config: Config) -> tuple[set[str], set[str]]:
    """Say which slots go there, and how they are to be proved."""
    there = [d for rule in config.rules for d in rule.deliver if d.peer == peer.name]
    slots: set[str] = {slot for destination in there for slot in destination.send}
    ways: set[str] = {way for destination in there for way in destination.confirm}
    return slots, ways


def _lines(there: Destination, slots: set[str], ways: set[str]) -> Iterator[Line]:
    trouble = _network(there)
    yield Line("network", not trouble, True, trouble)
    if trouble:
        return
    sent = {s: uid for s, uid in SOP_CLASSES.items() if s in USUAL_SLOTS or s in slots}
    contexts = [(uid, str(ExplicitVRLittleEndian)) for uid in dict.fromkeys(sent.values())]
    contexts += [(uid, "") for uid in (str(Verification), FIND, COMMITMENT)]
    call = Call(there, contexts)
    try:
        failure = call.failure
        yield Line("association", failure is None, True, failure.sentence if failure else "")
        if failure is not None:
            return
        yield _echo(call)
        for slot, uid in sent.items():
            offered = call.offers(uid)
            sentence = "" if offered else f"It does not take {UID(uid).name}: see if_refused."
            yield Line(slot, offered, slot in slots, sentence)
        yield _find(call, "find" in ways)
        offered = call.offers(COMMITMENT)
        yield Line("commitment", offered, "commitment" in ways, "" if offered else _NOT_OFFERED)
    finally:
        call.end()


_NOT_OFFERED = "It accepts no presentation context for it: leave it out of confirm."


def _network(there: Destination) -> str:
    try:
        with socket.create_connection((there.host, there.port), timeout=there.connect_seconds):
            return ""
    except OSError as error:
        return f"{there.host}:{there.port} cannot be reached ({error.strerror or error})."


def _echo(call: Call) -> Line:
    if not call.offers(str(Verification)):
        return Line("echo", False, False, "It accepts no presentation context for C-ECHO.")
    try:
        status = call.echo().get("Status")
    except (RuntimeError, ValueError):
        status = None
    sentence = "" if status == 0 else "It did not answer C-ECHO with success."
    return Line("echo", status == 0, True, sentence)


def _find(call: Call, is_wanted: bool) -> Line:
    """Ask for an instance that cannot exist: success without a match is what is wanted."""
    if not call.offers(FIND):
        return Line("find", False, is_wanted, _NOT_OFFERED)
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(keys, keyword, generate_uid())
    try:
        statuses = [answer.get("Status") for answer, _ in call.association.send_c_find(keys, FIND)]
    except (RuntimeError, ValueError):
        statuses = []
    if statuses == [0x0000]:
        return Line("find", True, is_wanted)
    if any(status in PENDING for status in statuses):
        return Line("find", False, is_wanted, "It finds instances that cannot exist.")
    last = statuses[-1] if statuses else None
    said = "nothing" if last is None else f"0x{last:04X}"
    return Line("find", False, is_wanted, f"It answered C-FIND at level IMAGE with {said}.")
