"""A tracking server of MLflow: runs are written to it, and model packages fetched from it.

Only its REST API is used, never its client: no pickle is read, and a package that is fetched is
what its manifest's digests say.

References
----------
MLflow REST API 2.0 (experiments, runs, registered models, model versions); artefacts by the proxy
``mlflow-artifacts``, which ``mlflow server`` offers by default.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

_API = "/api/2.0/mlflow/"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
_PROXIED = "mlflow-artifacts:"
_CHUNK = 1 << 20
_LONGEST_ANSWER = 8 << 20
_MOST_IN_BATCH = 1000
_MOST_TEXT = 500
SECONDS = 30.0


class MLflowError(Exception):
    """Raised when a server cannot be used; the sentence says why."""


@dataclass(frozen=True)
class Run:
    """A run that is being written.

    Parameters
    ----------
    run_id : str
    artefacts : str
        URI of the folder of its files.
    """

    run_id: str
    artefacts: str


class MLflowServer:
    """One tracking server.

    Who we are comes from the variables that MLflow's own client reads: ``MLFLOW_TRACKING_TOKEN``,
    or ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.

    Parameters
    ----------
    uri : str
        Such as ``https://mlflow.hospital.lan:5000``.

    Raises
    ------
    MLflowError
        The address is none of a server. So does every method when the server does not answer, or
        refuses.
    """

    def __init__(self, uri: str) -> None:
        try:
            parts = urlsplit(uri)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets or a port that make no sense
            usable = False
        if not usable:
            raise MLflowError(
                f"'{uri}' is no address of an MLflow server, such as http://host:5000."
            )
        self._uri = uri.rstrip("/")
        self.name = str(parts.hostname)
        self._pool = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=10.0, read=SECONDS),
            headers=_who_we_are(),
        )

    def begin(self, experiment: str, name: str, params: Mapping[str, object]) -> Run:
        """Begin a run in an experiment, which is made if it is not there."""
        found = self._ask_or_none("GET", "experiments/get-by-name", {"experiment_name": experiment})
        if found is None:
            found = self._ask("POST", "experiments/create", {"name": experiment})
        experiment_id = self._in(found.get("experiment", found), "experiment_id")
        began = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": _milliseconds(),
            "tags": [{"key": "mlflow.source.name", "value": "scorenode"}],
        }
        info = self._ask("POST", "runs/create", began)
        run = Run(
            self._in(info, "run", "info", "run_id"), self._in(info, "run", "info", "artifact_uri")
        )
        told = [{"key": key, "value": str(value)[:_MOST_TEXT]} for key, value in params.items()]
        self._ask("POST", "runs/log-batch", {"run_id": run.run_id, "params": told})
        return run

    def log(self, run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
        """Write figures of a run at a step."""
        now = _milliseconds()
        told = [
            {"key": key, "value": value, "timestamp": now, "step": step}
            for key, value in metrics.items()
        ]
        for start in range(0, len(told), _MOST_IN_BATCH):
            batch = {"run_id": run.run_id, "metrics": told[start : start + _MOST_IN_BATCH]}
            self._ask("POST", "runs/log-batch", batch)

    def end(self, run: Run, *, failed: bool = False) -> None:
        """End a run."""
        status = "FAILED" if failed else "FINISHED"
        ended = {"run_id": run.run_id, "status": status, "end_time": _milliseconds()}
        self._ask("POST", "runs/update", ended)

    def put(self, run: Run, folder: Path, under: str) -> str:
        """Store the files of a folder with a run; URI of the folder there."""
        uri = f"{run.artefacts}/{under}"
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            url = self._file_url(f"{uri}/{path.relative_to(folder).as_posix()}")
            with path.open("rb") as file:
                self._call("PUT", url, body=file.read())
        return uri

    def register(self, name: str, run: Run, source: str) -> str:
        """Make a new version of a registered model from files of a run; its number."""
        if self._ask_or_none("GET", "registered-models/get", {"name": name}) is None:
            self._ask("POST", "registered-models/create", {"name": name})
        made = {"name": name, "source": source, "run_id": run.run_id}
        found = self._ask("POST", "model-versions/create", made)
        return self._in(found, "model_version", "version")

    def source_of(self, model: str) -> str:
        """URI of the files of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``."""
        name, version = self._version(model)
        asked = {"name": name, "version": version}
        found = self._ask("GET", "model-versions/get-download-uri", asked)
        return self._in(found, "artifact_uri")

    def fetch(self, uri: str, most_bytes: int, into: Path) -> None:
        """Fetch one file.

        Raises
        ------
        MLflowError
            It is longer than `most_bytes`.
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        with self._sent("GET", self._file_url(uri), None, {}) as answer:
            self._refuse_status(answer.status, b"", uri.rpartition("/")[2])
            size = 0
            with into.open("wb") as file:
                for chunk in answer.stream(_CHUNK):
                    size += len(chunk)
                    if size > most_bytes:
                        raise MLflowError(f"{into.name} on {self.name} is too long.")
                    file.write(chunk)

    def _version(self, model: str) -> tuple[str, str]:
        name, at, alias = model.removeprefix("models:/").rpartition("@")
        if at:
            asked = {"name": name, "alias": alias}
            found = self._ask_or_none("GET", "registered-models/alias", asked)
            if found is None:
                raise MLflowError(f"MLflow at {self.name} has no model {name} with alias {alias}.")
            return name, self._in(found, "model_version", "version")
        name, slash, version = model.removeprefix("models:/").rpartition("/")
        if not slash or not version.isdigit():
            raise MLflowError(f"'{model}' names no model: models:/NAME@ALIAS or models:/NAME/3.")
        return name, version

    def _file_url(self, uri: str) -> str:
        if not uri.startswith(_PROXIED):
            kind = uri.partition(":")[0]
            raise MLflowError(
                f"MLflow at {self.name} keeps files where only it can reach them ({kind}). Start "
                "it with --serve-artifacts and --artifacts-destination."
            )
        path = urlsplit(uri).path.strip("/")
        return f"{self._uri}{_FILES}/{quote(path)}"

    def _ask(self, method: str, what: str, content: Mapping[str, object]) -> dict[str, Any]:
        url = f"{self._uri}{_API}{what}"
        if method == "GET":
            body = self._call(method, f"{url}?{urlencode(content)}")
        else:
            body = self._call(method, url, json.dumps(content).encode(), "application/json")
        try:
            found = json.loads(body or b"{}")
        except ValueError as error:
            raise MLflowError(f"What answers at {self.name} is not MLflow's API.") from error
        if not isinstance(found, dict):
            raise MLflowError(f"What answers at {self.name} is not MLflow's API.")
        return found

    def _in(self, answer: object, *keys: str) -> str:
        """Give what stands in an answer under keys, one within the other."""
        for key in keys:
            answer = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(answer, str | int):
            raise MLflowError(f"What answers at {self.name} is not MLflow's API: no {keys[-1]}.")
        return str(answer)

    def _ask_or_none(
        self, method: str, what: str, content: Mapping[str, object]
    ) -> dict[str, Any] | None:
        try:
            return self._ask(method, what, content)
        except _NotThere:
            return None

    def _call(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        kind: str = "application/octet-stream",
    ) -> bytes:
        headers = {"Content-Type": kind} if body is not None else {}
        with self._sent(method, url, body, headers) as answer:
            found: bytes = answer.read(_LONGEST_ANSWER)
        self._refuse_status(answer.status, found, url.rpartition("/")[2].partition("?")[0])
        return found

    @contextmanager
    def _sent(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request; its answer, which is read inside the block."""
        did = "does not answer"
        try:
            answer = self._pool.request(
                method,
                url,
                body=body,
                headers={**self._pool.headers, **headers},
                redirect=False,
                preload_content=False,
            )
            did = "broke off"
            try:
                yield answer
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise MLflowError(f"MLflow at {self.name} {did} ({type(error).__name__}).") from error

    def _refuse_status(self, status: int, body: bytes, what: str) -> None:
        if status == 200:
            return
        if status in (401, 403):
            raise MLflowError(
                f"MLflow at {self.name} does not let us in (status {status}). Set "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        reason = _reason(body)
        told = f", {reason}" if reason else ""
        sentence = f"MLflow at {self.name} refuses {what} (status {status}{told})."
        # An alias that nobody has given counts as an invalid parameter.
        absent = status == 404 or reason == "INVALID_PARAMETER_VALUE"
        raise _NotThere(sentence) if absent else MLflowError(sentence)


class _NotThere(MLflowError):
    """What was asked for is not there."""


def flat(metrics: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """Name every figure of ``metrics.json`` as MLflow wants it; intervals are left out."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        name = f"{before}{_name(key)}"
        first = value[0] if isinstance(value, Sequence) and len(value) == 3 else value
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}/")
        elif isinstance(first, int | float) and not isinstance(first, bool):
            found[name] = float(first)
    return found


def _name(key: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in key)


def _reason(body: bytes) -> str:
    try:
        code = json.loads(body).get("error_code", "")
    except (ValueError, AttributeError):
        return ""
    return code if isinstance(code, str) and code.replace("_", "").isalnum() else ""


def _who_we_are() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if name:
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        both = base64.b64encode(f"{name}:{password}".encode()).decode()
        return {"Authorization": f"Basic {both}"}
    return {}


def _milliseconds() -> int:
    return int(time.time() * 1000)
