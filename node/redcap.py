"""Reads records of a REDCap project by its API.

References
----------
REDCap API documentation: "Export Records" (content=record) and "Export Metadata"
(content=metadata). A request is a POST of a form with the user's token; an error is a status
from 400 on with ``{"error": ...}``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import urllib3

from node.config.tables import REDCapSource, Table
from node.table_base import Row, TableAway, TableRefused

MOST_BYTES = 64 << 20
_CHUNK = 64 << 10


def records(table: Table, source: REDCapSource, key: str) -> list[Row]:
    """Export the records of one patient, with all its events and repeated instruments.

    Parameters
    ----------
    table : Table
    source : REDCapSource
    key : str
        Value of the table's id field. Where that is not the record id, the ids of all records
        are exported first, and then those of the patient, `page` at a time.

    Raises
    ------
    TableAway
        The server does not answer (in time), or not now.
    TableRefused
        The token is not valid or may not export; a field is not in the project; the answer is
        not that of REDCap.
    """
    api = _API(table, source)
    try:
        record_id = _record_id_field(api)
        names = [key] if table.id_column == record_id else _names_of(api, record_id, key)
        found: list[Row] = []
        for start in range(0, len(names), source.page):
            found += _export(api, record_id, names[start : start + source.page])
        return found
    finally:
        api.close()


def _record_id_field(api: _API) -> str:
    """Name of the record id: the first field of the project."""
    fields = api.ask({"content": "metadata"})
    names = [str(field.get("field_name", "")) for field in fields]
    if not names:
        raise TableRefused(f"The project of table {api.table.name} has no fields.")
    for column in api.table.columns:
        if column not in names:
            raise TableRefused(f"The project of table {api.table.name} has no field {column}.")
    return names[0]


def _names_of(api: _API, record_id: str, key: str) -> list[str]:
    wanted = {"fields[0]": record_id, "fields[1]": api.table.id_column}
    rows = api.ask({"content": "record", "action": "export", "type": "flat", **wanted})
    names = (_text(row, record_id) for row in rows if _text(row, api.table.id_column) == key)
    return list(dict.fromkeys(names))


def _export(api: _API, record_id: str, names: Sequence[str]) -> list[Row]:
    form = {"content": "record", "action": "export", "type": "flat", "rawOrLabel": "raw"}
    form |= {f"records[{place}]": name for place, name in enumerate(names)}
    if api.source.form:
        form["forms[0]"] = api.source.form
    if api.source.event:
        form["events[0]"] = api.source.event
    if api.source.form or api.table.fields:
        fields = dict.fromkeys((record_id, *api.table.columns))
        form |= {f"fields[{place}]": name for place, name in enumerate(fields)}
    rows = ({str(k): _text(row, k) for k in row} for row in api.ask(form))
    # REDCap may find a record by an id in other letters, as its database compares.
    return [row for row in rows if row.get(record_id) in names]


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()


class _API:
    """One server and one project; requests never follow a redirect, which would tell the token."""

    def __init__(self, table: Table, source: REDCapSource) -> None:
        self.table, self.source = table, source
        authorities = str(source.authorities) if source.authorities else None
        self._pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=authorities)

    def close(self) -> None:
        """Let go of connections."""
        self._pool.clear()

    def ask(self, form: dict[str, str]) -> list[dict[str, Any]]:
        """Post a form; the list that the server answers."""
        status, body = self._post(form | {
            "token": self.source.token, "format": "json", "returnFormat": "json",
        })  # fmt: skip
        name = self.table.name
        if status in (401, 403):
            raise TableRefused(
                f"REDCap does not let table {name} in (status {status}): is the token right, and "
                "may its user export?"
            )
        if 400 <= status < 500 and status not in (408, 429):
            raise TableRefused(f"REDCap refuses the request of table {name} (status {status}).")
        if status != 200:
            raise TableAway(f"REDCap cannot answer table {name} now (status {status}).")
        try:
            found = json.loads(body)
        except ValueError as error:
            raise TableRefused(f"What answers table {name} is not REDCap's API.") from error
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise TableRefused(f"What answers table {name} is not REDCap's API.")
        return found

    def _post(self, form: dict[str, str]) -> tuple[int, bytes]:
        name, seconds = self.table.name, self.table.timeout_seconds
        end = time.monotonic() + seconds
        try:
            answer = self._pool.request(
                "POST",
                self.source.url,
                body=urlencode(form),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                timeout=urllib3.Timeout(total=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = bytearray()
            while chunk := answer.read1(_CHUNK):  # whatever has come, so that time is looked at
                body += chunk
                if time.monotonic() > end:
                    raise TableAway(f"REDCap is too slow for table {name}: over {seconds:g} s.")
                if len(body) > MOST_BYTES:
                    raise TableRefused(f"REDCap answers table {name} with more than 64 MiB.")
            return answer.status, bytes(body)
        except urllib3.exceptions.SSLError as error:
            raise TableRefused(
                f"The certificate of REDCap for table {name} is not trusted: see redcap.ca."
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise TableAway(f"REDCap cannot be reached for table {name}.") from error
