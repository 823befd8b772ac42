"""A server that answers as REDCap's API documentation says: POST of a form, JSON back."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tests.certificates import Issued

TOKEN = "0123456789ABCDEF" * 2


@dataclass
class RedcapProject:
    """A project, and how its server behaves.

    `requests` are the forms that came. `answer` is ``ok``, ``slow`` (a byte now and then),
    ``broken`` (500), ``busy`` (503), ``html`` (a page of a proxy) or ``moved`` (a redirect).
    With `ignores_case` records are found as MySQL's usual collations compare.
    """

    fields: list[str]
    rows: list[dict[str, str]]
    forms: dict[str, list[str]] = field(default_factory=dict)
    answer: str = "ok"
    requests: list[dict[str, str]] = field(default_factory=list)
    ignores_case: bool = False

    def export(self, form: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON for one request."""
        if form.get("token") != TOKEN:
            return 403, {"error": "You do not have permissions to use the API"}
        if form.get("format") != "json":
            return 400, {"error": "Invalid or missing format"}
        if form.get("content") == "metadata":
            return 200, [{"field_name": name, "form_name": "x"} for name in self.fields]
        if form.get("content") != "record" or form.get("action") != "export":
            return 400, {"error": "The value of the parameter 'content' is not valid"}
        return self._records(form)

    def _records(self, form: dict[str, str]) -> tuple[int, Any]:
        asked = {kind: _listed(form, kind) for kind in ("records", "fields", "forms", "events")}
        unknown = set(asked["fields"]) - set(self.fields)
        if unknown:
            return 400, {"error": f"The following values are not valid: {unknown}"}
        columns = [*asked["fields"]]
        for name in asked["forms"]:
            columns += self.forms[name]
        fold = str.casefold if self.ignores_case else str
        records = [fold(name) for name in asked["records"]]
        rows = [
            row
            for row in self.rows
            if (not records or fold(row[self.fields[0]]) in records)
            and (not asked["events"] or row.get("redcap_event_name") in asked["events"])
        ]
        kept = set(columns or self.fields) | {"redcap_event_name"}
        return 200, [{k: v for k, v in row.items() if k in kept} for row in rows]


def _listed(form: dict[str, str], kind: str) -> list[str]:
    return [value for key, value in form.items() if key.startswith(f"{kind}[")]


@contextmanager
def redcap(project: RedcapProject, issued: Issued, port: int = 0) -> Iterator[str]:
    """Run the server over HTTPS; the URL of its API."""
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            project.requests.append(form)
            self._answer(*project.export(form))

        def _answer(self, status: int, content: Any) -> None:
            text = json.dumps(content).encode()
            kinds = {"broken": 500, "busy": 503, "moved": 302}
            if project.answer == "html":
                text = b"<html>Please log in</html>"
            self.send_response(kinds.get(project.answer, status))
            self.send_header("Location", "https://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            for place in range(len(text) if project.answer == "slow" else 0):
                if stopping.wait(0.2):
                    return
                self.wfile.write(text[place : place + 1])
            if project.answer != "slow":
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/api/"
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
