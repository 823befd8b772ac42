"""The table of states, against another implementation of it."""

from __future__ import annotations

from pynetdicom.fsm import TRANSITION_TABLE

from node.receive.engine.states import TRANSITIONS, Event, State


def test_the_table_says_what_pynetdicoms_says_about_an_acceptor() -> None:
    theirs = {
        (int(event.removeprefix("Evt")), int(state.removeprefix("Sta"))): action
        for (event, state), action in TRANSITION_TABLE.items()
    }
    ours = {(int(event), int(state)): action for (event, state), action in TRANSITIONS.items()}

    states, events = {int(state) for state in State}, {int(event) for event in Event}
    assert ours == {
        (event, state): action
        for (event, state), action in theirs.items()
        if event in events and state in states
    }
