"""When the certificates end that the configuration names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from node.config.file import Config
from node.receive.tls import InvalidTLS, TLSFiles, end_dates, server_context


def certificates(config: Config, now: datetime | None = None) -> list[dict[str, Any]]:
    """Say for each file when its first certificate ends; nothing where there is no TLS.

    Parameters
    ----------
    config : Config
    now : datetime or None
        Timezone-aware; None: the host's time.

    Returns
    -------
    list of dict
        ``file ends seconds_left days_left trouble``.
    """
    tls = config.node.tls
    if tls is None:
        return []
    now = now or datetime.now(UTC)
    files = TLSFiles(tls.certificate, tls.key, tls.authorities)
    try:
        server_context(files, demand=True)
        ends = end_dates(files)
    except InvalidTLS as error:
        return [_row("certificate", None, now, str(error))]
    return [_row(name, end, now, "") for name, end in ends.items()]


def _row(name: str, end: datetime | None, now: datetime, trouble: str) -> dict[str, Any]:
    left = (end - now).total_seconds() if end is not None else 0.0
    return {
        "file": name,
        "ends": end.isoformat() if end is not None else "",
        "seconds_left": left,
        "days_left": int(left // 86400),
        "trouble": trouble or ("It has ended." if left <= 0 else ""),
    }
