"""Input of a job: earlier series of the patient, found at a peer and retrieved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import structlog

from node.candidates import Evidence, SeriesFacts, choose
from node.config.conditions import evaluate, tally
from node.config.inputs import SeriesInput
from node.config.rules import Rule
from node.deciding import facts_of
from node.destinations import destination_of
from node.inputs import Absent, Later, Outcome, Ready
from node.parts import Parts
from node.query import Header, QueryFailed, find, move
from node.retrieving import get_into_store
from node.scu import Destination
from node.table_rows import dicom_day
from storage import retrievals, studies
from storage.base import ClosedSeries, Job

ASKED_AGAIN_AFTER = timedelta(minutes=15)
MOST_STUDIES = 20
"""Earlier studies that are looked at, the newest first."""

log = structlog.get_logger()


def prior(want: Mapping[str, Any], job: Job, closed: ClosedSeries, parts: Parts) -> Outcome:
    """Find, retrieve and check a prior.

    Parameters
    ----------
    want : mapping
        A `node.config.inputs.PriorInput`, as the job's snapshot has it.
    job : Job
    closed : ClosedSeries
        The series the job is about.
    parts : Parts

    Returns
    -------
    Ready
        With the series, the newest one under the input's own name, others with a number behind.
    Later
        The peer is away, or a series is on its way.
    Absent
        The peer has none that fits.
    """
    try:
        rule = parts.config.rule(job.rule)
    except KeyError:
        return Later(f"The rule {job.rule} is not in the configuration any more.")
    peer = parts.config.peers.get(want["peer"])
    if peer is None or peer.address is None:
        return Later(f"{want['peer']} has no address under peers: in the configuration.")
    like = _criteria(rule, want["like"])
    if like is None:
        return Later(f"The rule {job.rule} has no input {want['like']} any more.")
    there = destination_of(peer, parts.config.node.ae_title)
    by_get = bool(peer.supports.get) and not peer.supports.move
    search = _Search(parts, there, peer.name, want, *like, by_get=by_get)
    try:
        return search.run(closed)
    except QueryFailed as error:
        return Later(str(error))


def _criteria(rule: Rule, like: str) -> tuple[Rule, SeriesInput] | None:
    """Say what a prior must be: the lines of the input it is like, and the rule's Modality."""
    found = next((one for one in rule.received if one.name == like), None)
    if found is None:
        return None
    of_modality = tuple(line for line in rule.conditions if line.key == "Modality")
    ambiguous = "best" if found.if_ambiguous == "each" else found.if_ambiguous
    return replace(rule, conditions=of_modality), replace(found, if_ambiguous=ambiguous)


class _Search:
    """Looks at earlier studies, the newest first, until enough fit."""

    def __init__(
        self,
        parts: Parts,
        there: Destination,
        peer: str,
        want: Mapping[str, Any],
        rule: Rule,
        like: SeriesInput,
        *,
        by_get: bool,
    ) -> None:
        self._parts, self._there, self._peer, self._want = parts, there, peer, want
        self._rule, self._like, self._by_get = rule, like, by_get

    def run(self, closed: ClosedSeries) -> Outcome:
        """Search for priors of one series."""
        patients = {str(v[0]) for i in closed.instances if (v := i.header.get("PatientID"))}
        day = next(
            (d for i in closed.instances if (d := dicom_day(i.header.get("StudyDate")))), None
        )
        if len(patients) != 1 or day is None:
            return Absent("The images have no Patient ID and Study Date to look for a prior with.")
        newest = day - timedelta(seconds=self._want["older_than_seconds"])
        found: list[ClosedSeries] = []
        for study_uid in self._studies(patients.pop(), newest, closed.study_instance_uid):
            outcome = self._of_study(study_uid)
            if isinstance(outcome, Later):
                return outcome
            if outcome is not None:
                found.append(outcome)
            if len(found) == self._want["newest"]:
                break
        if not found:
            return Absent(f"{self._peer} has no earlier series that is like {self._like.name}.")
        name = self._want["name"]
        return Ready(
            series={
                name if place == 0 else f"{name}.{place + 1}": (one.series_id, one.generation)
                for place, one in enumerate(found)
            }
        )

    def _studies(self, patient_id: str, newest: date, own: str) -> Iterator[str]:
        keys = {"PatientID": patient_id, "StudyDate": f"-{newest:%Y%m%d}"}
        found = []
        for header in find(self._there, "STUDY", keys):
            day, uid = dicom_day(header.get("StudyDate")), _one(header, "StudyInstanceUID")
            # A peer may ignore what it is asked to match.
            same = _one(header, "PatientID") == patient_id
            if uid and uid != own and same and day is not None and day <= newest:
                found.append((day, uid))
        return iter([uid for _, uid in sorted(found, reverse=True)[:MOST_STUDIES]])

    def _of_study(self, study_uid: str) -> ClosedSeries | Later | None:
        """Give the series of a study that fits; Later where one is on its way."""
        here: list[ClosedSeries] = []
        for header in find(self._there, "SERIES", {"StudyInstanceUID": study_uid}):
            uid = _one(header, "SeriesInstanceUID")
            of_study = _one(header, "StudyInstanceUID") in ("", study_uid)
            if not uid or not of_study or not self._may_fit(header):
                continue
            closed = self._held(uid)
            if isinstance(closed, Later):
                return closed
            if closed is None:
                return self._retrieve(study_uid, uid)
            here.append(closed)
        return self._best(here)

    def _may_fit(self, header: Header) -> bool:
        """Whether what the peer told of a series contradicts no line."""
        lines = (*self._rule.conditions, *self._like.header)
        told = [line for line in lines if header.get(line.key)]
        return all(evaluate(line, tally(line.key, [header])).outcome != "not_met" for line in told)

    def _held(self, uid: str) -> ClosedSeries | Later | None:
        """Give a series that we hold completely; None where it has to be retrieved.

        What retention has deleted since it came, or since it was retrieved, is retrieved (again),
        and so is what a node that was killed had asked for.
        """
        with self._parts.database.snapshot() as tx:
            series_id = retrievals.series_id(tx, uid)
            closed = studies.closed_series(tx, series_id) if series_id is not None else None
            state = retrievals.get(tx, uid)
            busy = retrievals.recently_asked(tx, uid, ASKED_AGAIN_AFTER)
            arriving = retrievals.is_arriving(tx, uid)
        wanted = max(1, state.instances) if state is not None else 1
        trusted = state is None or state.state == retrievals.DONE
        if trusted and closed is not None and len(closed.instances) >= wanted:
            return closed
        if busy or (trusted and arriving):
            return Later(f"A prior is on its way from {self._peer}.")
        return None

    def _retrieve(self, study_uid: str, uid: str) -> Later:
        with self._parts.database.transaction() as tx:
            retrievals.ask(tx, study_uid, uid, self._peer)
        try:
            if self._by_get:
                counted = get_into_store(self._parts, self._there, self._peer, study_uid, uid)
            else:
                counted = move(self._there, study_uid, uid)
        except QueryFailed:
            with self._parts.database.transaction() as tx:
                retrievals.settle(tx, uid, 0, complete=False)
            raise
        with self._parts.database.transaction() as tx:
            came = counted.completed + counted.warned
            retrievals.settle(tx, uid, came, complete=counted.is_complete)
        log.info("prior.retrieved", series_instance_uid=uid, instances=came, failed=counted.failed)
        if not counted.is_complete:
            return Later(f"{self._peer} could not send {counted.failed} images of a prior.")
        return Later(f"A prior is on its way from {self._peer}.")

    def _best(self, here: list[ClosedSeries]) -> ClosedSeries | None:
        with self._parts.database.snapshot() as tx:
            facts: list[SeriesFacts] = [facts_of(tx, one) for one in here]
        chosen = choose(self._rule, self._like, [Evidence(one) for one in facts])
        taken = chosen.taken[:1]
        return next((one for one in here if one.series_instance_uid in taken), None)


def _one(header: Header, keyword: str) -> str:
    values = header.get(keyword)
    return str(values[0]).strip() if values else ""
