"""Commands about peers and what is on its way to them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.cli.app import (
    PROBLEM,
    USAGE,
    ConfigOption,
    JsonOption,
    deliveries_app,
    fail,
    load_config,
    peers_app,
    store,
)
from node.cli.output import console, print_json, show

NameArgument = Annotated[str, typer.Argument(help="Name of the peer under peers:.")]


@peers_app.command("ls")
def peers_ls(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the peers that results go to, and how they fare."""
    from storage import queries

    loaded = load_config(config)
    with store(config) as database, database.snapshot() as tx:
        known = {row["name"]: row for row in queries.destinations(tx)}
    rows = [_row(peer, known.get(name, {})) for name, peer in loaded.peers.items()]
    columns = ["name", "called", "standing", "failures", "checked_at", "last_ok_at"]
    show(rows, [*columns, "last_sentence"], as_json=as_json)


def _row(peer: Any, known: dict[str, Any]) -> dict[str, Any]:
    where = peer.address and f"{peer.address.ae_title} at {peer.address.host}:{peer.address.port}"
    called = where or (peer.dicomweb and peer.dicomweb.url) or peer.folder or "not called"
    return {
        "name": peer.name,
        "called": str(called),
        "standing": known.get("standing", "open"),
        "failures": known.get("failures", 0),
        "checked_at": known.get("checked_at"),
        "capabilities": known.get("capabilities", {}),
        "last_ok_at": known.get("last_ok_at"),
        "last_sentence": known.get("last_sentence", ""),
    }


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


@deliveries_app.command("hold")
def deliveries_hold(delivery_id: int, config: ConfigOption = None) -> None:
    """Keep one delivery back until it is released."""
    from storage import delivery_admin

    with store(config) as database, database.transaction() as tx:
        done = delivery_admin.hold(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not there, is being sent, or was sent.")
    console.print(f"Delivery {delivery_id} is held.")


@deliveries_app.command("release")
def deliveries_release(delivery_id: int, config: ConfigOption = None) -> None:
    """Let a held delivery go."""
    from storage import delivery_admin

    with store(config) as database, database.transaction() as tx:
        done = delivery_admin.release(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not held.")
    console.print(f"Delivery {delivery_id} goes.")
