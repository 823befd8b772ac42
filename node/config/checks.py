"""Checks between the parts of a configuration: names that must exist, lines that contradict."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations, pairwise

from node.config.attributes import Wanted, has_several_values, kind_of
from node.config.completion import Completion
from node.config.conditions import Condition
from node.config.inputs import SeriesInput
from node.config.parts import Found, Parts
from node.config.peers import ANY_AE_TITLE, Network, Peer
from node.config.problems import did_you_mean
from node.config.rules import Rule
from node.config.yaml_lines import Path as Place


def consistent(parts: Parts) -> Iterator[Found]:
    """Find what contradicts within the file itself."""
    yield from _accepted(parts)
    yield from _ports(parts)
    for name, peer in parts.peers.items():
        yield from _peer(peer, ("peers", name))
    yield from _shared_titles(parts.peers.values())
    yield from _waits(parts)
    yield from _twice_named(parts)
    for number, rule in parts.rules.items():
        yield from _conditions(rule, ("rules", number))
        yield from _deliveries(parts, rule, ("rules", number))
    yield from _hidden(parts.rules)
    yield from _same_series_numbers(parts.rules)


def installed(parts: Parts, pipelines: Collection[str], models: Collection[str]) -> Iterator[Found]:
    """Find pipelines and models that rules name and that are not there."""
    for number, rule in parts.rules.items():
        for kind, name, known in (
            ("pipeline", rule.run.pipeline, pipelines),
            ("model", rule.run.model, models),
        ):
            if name not in known:
                near = did_you_mean(name, known)
                sentence = f"The {kind} {name} is not installed.{near}"
                yield ("rules", number, "run", kind), sentence


def _ports(parts: Parts) -> Iterator[Found]:
    node = parts.sections.get("node")
    if node is None:
        return
    if node.listen is None and node.tls is None:
        yield ("node", "listen"), "Without listen and without tls nobody can reach this node."
    if node.listen is not None and node.tls is not None and node.listen.port == node.tls.port != 0:
        yield ("node", "tls", "port"), f"Port {node.tls.port} is that of listen, too."
    for name, peer in parts.peers.items():
        if peer.user is not None and peer.tls.receive != "required":
            sentence = "A passcode comes over TLS only. Write tls: required."
            yield ("peers", name, "user"), sentence
        proves = peer.tls.receive == "required" or peer.certificate_names or peer.fingerprints
        if node.tls is None and proves and peer.sends_as:
            yield ("peers", name), "This peer must come over TLS, and the node has no tls section."


def _accepted(parts: Parts) -> Iterator[Found]:
    node = parts.sections.get("node")
    for number, name in enumerate((node.accept_from or ()) if node else ()):
        place = ("node", "accept_from", number)
        if name not in parts.peer_names:
            yield place, f"The peer {name} is not defined.{did_you_mean(name, parts.peer_names)}"
        elif name in parts.peers and _only_receives(parts.peers[name]):
            yield place, f"The peer {name} has no sends_as, so it cannot be recognised."


def _only_receives(peer: Peer) -> bool:
    return not peer.sends_as and peer.takes_results


def _peer(peer: Peer, place: Place) -> Iterator[Found]:
    if not peer.takes_results and not peer.sends_as:
        yield place, "This peer has neither an address nor sends_as: it can do nothing."
    if sum(way is not None for way in (peer.address, peer.dicomweb, peer.folder)) > 1:
        yield place, "Results go one way to a peer: give address, dicomweb or folder."
    if not peer.sends_as:
        return
    wildcard = ANY_AE_TITLE in peer.sends_as
    if wildcard and not (peer.from_networks and all(map(_is_inside, peer.from_networks))):
        yield (
            (*place, "sends_as"),
            "Any AE title ('*') is allowed only where all from_networks are loopback or private.",
        )
    elif wildcard:
        sentence = "Whoever is in these networks may send, under any AE title."
        yield (*place, "sends_as"), sentence, "warning"
    elif not peer.from_networks:
        sentence = (
            "No from_networks: whoever uses this AE title may send, and an AE title is a label, "
            "not a proof."
        )
        yield place, sentence, "warning"


def _is_inside(network: Network) -> bool:
    return network.is_loopback or (network.is_private and network.prefixlen > 0)


def _shared_titles(peers: Iterable[Peer]) -> Iterator[Found]:
    for first, second in combinations(peers, 2):
        shared = set(first.sends_as) & set(second.sends_as)
        if shared and not _apart(first, second):
            yield (
                ("peers", second.name, "sends_as"),
                f"The peer {first.name} also sends as {min(shared)}, and their networks do not "
                "tell them apart.",
            )


def _apart(first: Peer, second: Peer) -> bool:
    if not (first.from_networks and second.from_networks):
        return False
    return not any(
        a.version == b.version and a.overlaps(b)
        for a in first.from_networks
        for b in second.from_networks
    )


def _waits(parts: Parts) -> Iterator[Found]:
    completion, retention = parts.sections.get("completion"), parts.sections.get("retention")
    if completion:
        yield from _patience(completion, ("completion",))
        for name, peer in parts.peers.items():
            if peer.completion:
                own: Place = ("peers", name, "completion")
                yield from _patience(peer.completion.over(completion), own)
                yield from _counting(peer.completion.evidence or (), [peer], own)
        yield from _counting(completion.evidence, parts.peers.values(), ("completion",))
    for number, rule in parts.rules.items() if retention else ():
        for index, destination in enumerate(rule.deliver):
            place = ("rules", number, "deliver", index, "retry")
            give_up = destination.retry.give_up_seconds
            for what in ("inputs", "results"):
                if getattr(retention, f"{what}_seconds") < give_up:
                    sentence = f"Delivery is tried for longer than {what} are kept (retention)."
                    yield place, sentence, "warning"


def _patience(completion: Completion, place: Place) -> Iterator[Found]:
    if completion.quiet_seconds >= completion.max_wait_seconds:
        yield (
            (*place, "quiet"),
            f"quiet ({completion.quiet_seconds:g}s) must be shorter than max_wait "
            f"({completion.max_wait_seconds:g}s).",
        )


def _counting(evidence: Collection[str], peers: Iterable[Peer], place: Place) -> Iterator[Found]:
    if "pacs_count" in evidence and not any(peer.counts for peer in peers):
        yield (
            (*place, "evidence"),
            "pacs_count asks the peer that sent a series, and none can be asked: it needs an "
            "address, and supports: { find: yes }.",
            "warning",
        )


def _twice_named(parts: Parts) -> Iterator[Found]:
    rules = parts.root.get("rules")
    seen: dict[str, int] = {}
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        name = rule.get("name") if isinstance(rule, dict) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            yield ("rules", number, "name"), f"Rule {seen[name] + 1} has this name too."
        seen.setdefault(name, number)


def _conditions(rule: Rule, place: Place) -> Iterator[Found]:
    yield from _lines(rule.conditions, (*place, "when"))
    for one in rule.inputs:
        if isinstance(one, SeriesInput):
            yield from _lines(one.header, (*place, "inputs", one.name, "header"))


def _lines(conditions: Iterable[Condition], place: Place) -> Iterator[Found]:
    keys: set[str] = set()
    for condition in conditions:
        here = (*place, condition.key)
        if condition.key in keys:
            yield here, f"{condition.key} is here twice. Put its operators in one line."
        keys.add(condition.key)
        if sentence := _contradiction(condition):
            yield here, sentence


def _contradiction(condition: Condition) -> str:
    key, others = condition.key, _operators(condition)
    if condition.present is not None:
        if others or condition.if_missing != "fail":
            return "present stands alone: the other operators say with if_missing what they want."
        return ""
    if not others:
        return "This line wants nothing. Write an operator, such as any_of."
    if has_several_values(key) and condition.equals and "\\" not in condition.equals.text:
        return f"{key} has several values, so it never equals one. Write {{ includes: [...] }}."
    listed = (condition.equals,) if condition.equals else condition.any_of
    if listed and not any(_possible(condition, one) for one in listed if one):
        return "This can never match: its operators contradict each other."
    if condition.includes and set(condition.includes) & set(condition.excludes or ()):
        return "This can never match: a value is both included and excluded."
    return ""


def _operators(condition: Condition) -> bool:
    return any(
        operator is not None
        for operator in (
            condition.equals, condition.any_of, condition.differs, condition.matches,
            condition.not_matches, condition.includes, condition.excludes,
            condition.minimum, condition.maximum,
        )
    )  # fmt: skip


def _possible(condition: Condition, one: Wanted) -> bool:
    """Whether a series with that very value could satisfy the other operators."""
    values = {w.value for w in condition.any_of} if condition.any_of else {one.value}
    banned = {w.value for w in (*(condition.differs or ()), *(condition.excludes or ()))}
    within = all(
        low is None or high is None or not _above(low, high)
        for low, high in ((condition.minimum, one), (one, condition.maximum))
    )
    return one.value in values - banned and within and _pattern_possible(condition, one)


def _above(low: Wanted, high: Wanted) -> bool:
    if isinstance(low.value, str) or isinstance(high.value, str):
        return str(low.value) > str(high.value)
    return low.value > high.value


def _pattern_possible(condition: Condition, one: Wanted) -> bool:
    if condition.matches is None or kind_of(condition.key) != "text":
        return True
    return re.search(condition.matches, one.text, re.IGNORECASE) is not None


def _deliveries(parts: Parts, rule: Rule, place: Place) -> Iterator[Found]:
    for number, destination in enumerate(rule.deliver):
        here = (*place, "deliver", number, "to")
        name = destination.peer
        if name not in parts.peer_names:
            yield here, f"The peer {name} is not defined.{did_you_mean(name, parts.peer_names)}"
        elif name in parts.peers and not parts.peers[name].takes_results:
            yield here, f"The peer {name} has no address, so nothing can be sent to it."
    for first, second in pairwise([d.peer for d in rule.deliver]):
        if first == second:
            yield (*place, "deliver"), f"The peer {first} is a destination twice."
    if len({d.series for d in rule.deliver if d.series}) > 1:
        sentence = "Results are made once for all destinations: give series at one of them only."
        yield (*place, "deliver"), sentence
    if rule.mode == "live" and not rule.deliver:
        yield place, "This live rule has no deliver: nobody gets its results.", "warning"
    if rule.mode == "shadow" and rule.stop:
        yield (*place, "stop"), "A shadow rule stops no other rule.", "warning"


def _hidden(rules: Mapping[int, Rule]) -> Iterator[Found]:
    for number, first in sorted(rules.items()):
        wanted = {*first.conditions, *first.received[0].header}
        stops = first.stop and first.mode == "live" and first.level == "series"
        if not stops or first.received[0].image or first.canary_percent is not None:
            continue
        for later, second in sorted(rules.items()):
            lines = {*second.conditions, *second.received[0].header}
            if later > number and second.level == "series" and wanted <= lines:
                yield (
                    ("rules", later),
                    f"This rule is never used: wherever it matches, the rule {first.name} matches "
                    "before it and stops.",
                )


def _same_series_numbers(rules: Mapping[int, Rule]) -> Iterator[Found]:
    used: dict[str, set[int]] = {}
    for number, rule in rules.items():
        if rule.mode == "off" or not rule.deliver:
            continue
        mine = {label.number for label in rule.labels().values()}
        other = next((name for name, numbers in used.items() if numbers & mine), None)
        if other is not None:
            sentence = (
                f"The rule {other} uses the same Series Numbers. Give series.number; this rule "
                f"takes {', '.join(map(str, sorted(mine)))}."
            )
            yield ("rules", number, "deliver"), sentence, "warning"
        used[rule.name] = mine
