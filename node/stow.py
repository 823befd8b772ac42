"""A destination that is called by DICOMweb: STOW-RS to store, QIDO-RS to see what it holds.

References
----------
DICOM PS3.18 sections 10.5 (STOW-RS), 10.6 (QIDO-RS), annex I (store responses).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3

from node.config.peers import DICOMweb
from node.scu import OutgoingObject, SendOutcome
from node.statuses import PROCESSING_FAILURE, is_warning, kind_of, meaning_of
from storage.base import Delivery

_CHUNK = 1 << 18
_LONGEST_ANSWER = 4 << 20
_FAILED, _FAILURE_REASON = "00081198", "00081197"
_REFERENCED, _WARNING_REASON = "00081199", "00081196"
_REFERENCED_UID = "00081155"
_NOW_AND_THEN = frozenset({408, 425, 429})
_UNSUPPORTED_MEDIA_TYPE = 415


class WebCall:
    """Stores objects at a DICOMweb server, one request for each, over kept connections.

    Parameters
    ----------
    name : str
        The peer, for sentences.
    web : DICOMweb
    connect_seconds, answer_seconds : float
    """

    def __init__(
        self, name: str, web: DICOMweb, connect_seconds: float, answer_seconds: float
    ) -> None:
        self._name = name
        self._url = web.url
        self._headers = {"Accept": "application/dicom+json"}
        if web.token:
            self._headers["Authorization"] = f"Bearer {web.token}"
        self._pool = urllib3.PoolManager(
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_seconds, read=answer_seconds),
            ca_certs=str(web.authorities) if web.authorities else None,
        )

    @property
    def failure(self) -> SendOutcome | None:
        """Nothing is known before a request is made."""
        return None

    def store(self, file: OutgoingObject) -> SendOutcome:
        """Send one object and read the answer."""
        uid, boundary = file.sop_instance_uid, secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        try:
            size = len(head) + file.path.stat().st_size + len(tail)
            answer = self._pool.request(
                "POST",
                f"{self._url}/studies",
                body=_body(head, file, tail),
                redirect=False,
                preload_content=False,
                headers=self._headers
                | {
                    "Content-Type": "multipart/related; "
                    f'type="application/dicom"; boundary={boundary}',
                    "Content-Length": str(size),
                },
            )
            body = answer.read(_LONGEST_ANSWER)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            return SendOutcome("retry", None, f"{self._name} did not answer ({_reason(error)})")
        except OSError as error:
            sentence = f"the file of {uid} cannot be read ({error.strerror})"
            return SendOutcome("retry", None, sentence)
        return self._outcome(uid, answer.status, _json(body))

    def holds(self, item: Delivery) -> bool | None:
        """Whether the server finds an object; None: it did not say."""
        try:
            answer = self._pool.request(
                "GET",
                f"{self._url}/studies/{item.study_instance_uid}"
                f"/series/{item.series_instance_uid}/instances",
                fields={"SOPInstanceUID": item.sop_instance_uid},
                redirect=False,
                headers=self._headers,
            )
        except urllib3.exceptions.HTTPError:
            return None
        if answer.status in (204, 404):
            return False
        found = _json(answer.data)
        if answer.status != 200 or not isinstance(found, list):
            return None
        return any(_first(one, "00080018") == item.sop_instance_uid for one in found)

    def ping(self) -> SendOutcome:
        """Ask whether the server is there; any answer of HTTP says so."""
        try:
            answer = self._pool.request(
                "GET",
                f"{self._url}/studies",
                fields={"limit": "1", "StudyInstanceUID": "1.2.3"},
                redirect=False,
                headers=self._headers,
            )
        except urllib3.exceptions.HTTPError as error:
            return SendOutcome("retry", None, f"{self._name} cannot be reached ({_reason(error)})")
        if answer.status in (401, 403):
            sentence = f"{self._name} answered HTTP {answer.status}: see dicomweb.token"
            return SendOutcome("refused", None, sentence)
        if answer.status >= 500:
            sentence = f"{self._name} answered HTTP {answer.status}"
            return SendOutcome("retry", None, sentence)
        return SendOutcome("sent", None, "")

    def end(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _outcome(self, uid: str, status: int, answer: Any) -> SendOutcome:
        """Say what an answer means for the object: what it says of it, then the status line."""
        said = f"{self._name} answered HTTP {status} for {uid}"
        if isinstance(answer, Mapping):
            reason = _reason_for(answer, _FAILED, _FAILURE_REASON, uid)
            if reason is not None:
                reason = reason or PROCESSING_FAILURE  # it failed, whether it says why or not
                sentence = f"{said}, Failure Reason 0x{reason:04X}: {meaning_of(reason)}"
                return SendOutcome(kind_of(reason), reason, sentence, reason == 0x0122)
            warned = _reason_for(answer, _REFERENCED, _WARNING_REASON, uid)
            if warned is not None and status in (200, 202):
                words = f"{said}, Warning Reason 0x{warned:04X}: {meaning_of(warned)}"
                return SendOutcome("sent", warned, words if is_warning(warned) else "")
        if status == 200:
            return SendOutcome("sent", None, f"{said} without naming it")
        if status in _NOW_AND_THEN or status >= 500:
            return SendOutcome("retry", None, said)
        return SendOutcome("refused", None, said, status == _UNSUPPORTED_MEDIA_TYPE)


def _body(head: bytes, file: OutgoingObject, tail: bytes) -> Iterator[bytes]:
    yield head
    with file.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    yield tail


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason_for(answer: Mapping[str, Any], sequence: str, reason: str, uid: str) -> int | None:
    """Reason given for an instance in a sequence; 0 where there is none; None: it is not there."""
    for item in _values(answer, sequence):
        if _first(item, _REFERENCED_UID) == uid:
            given = _first(item, reason)
            return given if isinstance(given, int) else 0
    return None


def _first(item: Any, tag: str) -> Any:
    values = _values(item, tag)
    return values[0] if values else None


def _values(item: Any, tag: str) -> list[Any]:
    """Values of an attribute in the DICOM JSON Model; none where it is no such thing."""
    element = item.get(tag) if isinstance(item, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _reason(error: Exception) -> str:
    """Name what went wrong without repeating addresses or headers."""
    return type(error).__name__
