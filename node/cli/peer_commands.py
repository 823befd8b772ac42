"""Commands about peers and what is on its way to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from node.cli.app import (
    PROBLEM,
    USAGE,
    ConfigOption,
    DeliveryArgument,
    JsonOption,
    LimitOption,
    deliveries_app,
    fail,
    load_config,
    peers_app,
    store,
)
from node.cli.output import console, print_json, show
from storage.base import TO_SEND, DeliveryState

NameArgument = Annotated[str, typer.Argument(help="Name of the peer under peers:.")]


@peers_app.command("ls")
def peers_ls(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the peers that results go to, and how they fare."""
    from storage import queries

    loaded = load_config(config)
    with store(config) as database, database.snapshot() as tx:
        known = {row["name"]: row for row in queries.destinations(tx)}
    rows = [_row(peer, known.get(name, {})) for name, peer in loaded.peers.items()]
    columns = ["name", "called", "standing", "window", "failures", "checked_at", "last_ok_at"]
    show(rows, [*columns, "last_sentence"], as_json=as_json)


def _row(peer: Any, known: dict[str, Any]) -> dict[str, Any]:
    where = peer.address and f"{peer.address.ae_title} at {peer.address.host}:{peer.address.port}"
    called = where or (peer.dicomweb and peer.dicomweb.url) or peer.folder or "not called"
    return {
        "name": peer.name,
        "called": str(called),
        "standing": standing_of(peer, known.get("standing", "open")),
        "window": str(peer.sending.window or ""),
        "failures": known.get("failures", 0),
        "checked_at": known.get("checked_at"),
        "capabilities": known.get("capabilities", {}),
        "last_ok_at": known.get("last_ok_at"),
        "last_sentence": known.get("last_sentence", ""),
    }


def standing_of(peer: Any, standing: str) -> str:
    """Say how a destination stands, in a word; ``shut``: its window is."""
    window = peer.sending.window
    now = datetime.now().astimezone()
    is_shut = window is not None and window.opens_in(now) > timedelta(0)
    return "shut" if standing == "open" and is_shut else standing


@peers_app.command("check")
def peers_check(
    names: Annotated[list[str] | None, typer.Argument(help="All with an address if none.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call peers and keep what they offer: network, C-ECHO, classes, C-FIND, commitment."""
    from node.peer_check import check
    from storage import destinations

    loaded = load_config(config)
    unknown = [name for name in names or () if name not in loaded.peers]
    if unknown:
        raise fail(f"There is no peer {unknown[0]} in {loaded.path}.", USAGE)
    peers = [loaded.peers[name] for name in names or loaded.peers]
    found = [check(peer, loaded) for peer in peers if names or peer.takes_results]
    with store(config) as database, database.transaction() as tx:
        for one in found:
            destinations.keep_capabilities(tx, one.peer, one.to_json())
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        for one in found:
            console.print(f"[bold]{one.peer}[/]", highlight=False)
            show([line.row() for line in one.lines], ["what", "offered", "sentence"], as_json=False)
    if not all(one.is_good for one in found):
        raise typer.Exit(PROBLEM)


@peers_app.command("suspend")
def peers_suspend(name: NameArgument, config: ConfigOption = None) -> None:
    """Send nothing to a peer until it is resumed; what is due waits."""
    from storage import destinations

    _known(name, config)
    with store(config) as database, database.transaction() as tx:
        destinations.suspend(tx, name)
    console.print(f"Nothing is sent to {name} until 'scorenode peers resume {name}'.")


@peers_app.command("resume")
def peers_resume(name: NameArgument, config: ConfigOption = None) -> None:
    """Send to a peer again, at once; also where it rested because it was away."""
    from storage import destinations

    _known(name, config)
    with store(config) as database, database.transaction() as tx:
        destinations.resume(tx, name)
    console.print(f"What waits for {name} goes now.")


def _known(name: str, config: Any) -> None:
    loaded = load_config(config)
    if name not in loaded.peers or not loaded.peers[name].takes_results:
        raise fail(f"There is no peer {name} that results go to in {loaded.path}.", USAGE)


UNDER_WAY = TO_SEND | {DeliveryState.CONFIRMING}
_KEPT = {
    "suspended": "{peer} is suspended: scorenode peers resume {peer}",
    "away": "{peer} is away and is asked again by and by",
    "shut": "waits for the window of {peer}, {window}",
}
"""What keeps a delivery waiting, by the standing of its destination."""


@deliveries_app.command("ls")
def deliveries_ls(
    config: ConfigOption = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, those of the latest job first."""
    from storage import queries

    peers = load_config(config).peers
    with store(config) as database, database.snapshot() as tx:
        rows = queries.deliveries_list(tx, limit, state)
        standing = {row["name"]: row["standing"] for row in queries.destinations(tx)}
    for row in rows:
        if row["state"] in UNDER_WAY and row["destination"] in peers:
            peer = peers[row["destination"]]
            why = _KEPT.get(standing_of(peer, standing.get(peer.name, "open")), "")
            waits = why.format(peer=peer.name, window=peer.sending.window)
            row["sentence"] = "; ".join(filter(None, (waits, row["sentence"])))
    columns = ["id", "job_id", "destination", "slot", "state", "proof", "attempt", "next_at"]
    columns += ["sentence"]
    show(rows, columns, as_json=as_json)


@deliveries_app.command("retry")
def deliveries_retry(delivery_id: DeliveryArgument, config: ConfigOption = None) -> None:
    """Try one delivery again now."""
    from storage import delivery_admin

    with store(config) as database, database.transaction() as tx:
        done = delivery_admin.retry(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not there, does not wait, or was taken back.")
    console.print(f"Delivery {delivery_id} is tried again.")


@deliveries_app.command("hold")
def deliveries_hold(delivery_id: DeliveryArgument, config: ConfigOption = None) -> None:
    """Keep one delivery back until it is released."""
    from storage import delivery_admin

    with store(config) as database, database.transaction() as tx:
        done = delivery_admin.hold(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not there, is being sent, or was sent.")
    console.print(f"Delivery {delivery_id} is held.")


@deliveries_app.command("release")
def deliveries_release(delivery_id: DeliveryArgument, config: ConfigOption = None) -> None:
    """Let a held delivery go."""
    from storage import delivery_admin

    with store(config) as database, database.transaction() as tx:
        done = delivery_admin.release(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not held.")
    console.print(f"Delivery {delivery_id} goes.")
