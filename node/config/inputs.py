"""Named inputs of a rule: a series, a prior from a PACS, a row of a table, another result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field

from node.config.attributes import attribute, kind_of, wanted_bound
from node.config.base import CLOSED, Flag, Name, Seconds, Text
from node.config.condition_lines import Conditions
from node.config.conditions import Condition, IfMissing
from node.config.image import ImageGate
from node.config.problems import did_you_mean, one_of
from node.config.quantities import each, scalar, shape, whole, word

IfAmbiguous = Literal["hold", "best", "each"]
PickWord = Literal["nearest", "most_slices", "newest", "oldest"]
PICK_WORDS = ("most_slices", "newest", "oldest")
_KINDS = {
    "retrieve_from": frozenset({"retrieve_from", "like", "older_than", "newest"}),
    "table": frozenset({"table", "key", "newest_within"}),
    "result_of": frozenset({"result_of"}),
}
_COMMON = frozenset({"optional", "if_missing"})


@dataclass(frozen=True)
class Pick:
    """One way to choose between several series that fit.

    `key` and `value` are of ``nearest``: the attribute, and the number to be near to.
    """

    word: PickWord
    key: str = ""
    value: float = 0.0

    def __str__(self) -> str:
        return f"nearest {self.key} {self.value:g}" if self.key else self.word


def picks(value: object) -> tuple[Pick, ...]:
    """Read the list under ``pick``."""
    return each(value, _pick)


def _pick(item: object) -> Pick:
    if not isinstance(item, dict):
        written = scalar(item).lower()
        if written not in PICK_WORDS:
            near = did_you_mean(written, (*PICK_WORDS, "nearest"))
            words = one_of((*PICK_WORDS, "{ nearest: { SliceThickness: 5 } }"))
            raise ValueError(f"'{written[:64]}' is no way to pick. Write {words}.{near}")
        return Pick(cast(PickWord, written))
    if list(item) != ["nearest"]:
        raise ValueError(f"'{str(next(iter(item), ''))[:64]}' is no way to pick. Write nearest.")
    near_to = item["nearest"]
    if not isinstance(near_to, dict) or len(near_to) != 1:
        raise ValueError(f"nearest wants one attribute, such as {{ SliceThickness: 5 }}, not "
                         f"{shape(near_to)}.")  # fmt: skip
    ((written_key, number),) = near_to.items()
    key = attribute(str(written_key))
    if kind_of(key) != "number":
        raise ValueError(f"{key} holds no numbers, so nothing is nearest.")
    return Pick("nearest", key, float(wanted_bound(key, scalar(number)).value))


def _key(value: object) -> str:
    return attribute(scalar(value))


@dataclass(frozen=True)
class SeriesInput:
    """A series of the study, received.

    Parameters
    ----------
    name : str
        Of the model's argument.
    header : tuple of Condition
        All must hold, beside those of the rule.
    image : ImageGate or None
    pick : tuple of Pick
        Choose between several series that fit, in this order.
    if_ambiguous : str
        When several are left: ``hold``; ``best``, any one of them, always the same; ``each``.
    optional : bool
        Whether the model may run without it.
    """

    name: str
    header: tuple[Condition, ...] = ()
    image: ImageGate | None = None
    pick: tuple[Pick, ...] = ()
    if_ambiguous: IfAmbiguous = "hold"
    optional: bool = False


@dataclass(frozen=True)
class PriorInput:
    """Earlier series of the patient, retrieved from a peer.

    Parameters
    ----------
    name : str
    peer : str
    like : str
        Name of a `SeriesInput` whose header lines and image gate they must satisfy.
    older_than_seconds : float
        Before the study.
    newest : int
        At most so many studies, the newest first.
    optional : bool
    if_missing : str
    """

    name: str
    peer: str
    like: str
    older_than_seconds: float = 0.0
    newest: int = 1
    optional: bool = False
    if_missing: IfMissing = "hold"


@dataclass(frozen=True)
class TableInput:
    """A row of a table.

    Parameters
    ----------
    name : str
    table : str
        Name under ``tables``.
    key : str
        Attribute whose value names the row.
    newest_within_seconds : float or None
        The row must be at most so old (or so new) beside the study; None: of any age.
    optional : bool
    if_missing : str
    """

    name: str
    table: str
    key: str = "PatientID"
    newest_within_seconds: float | None = None
    optional: bool = False
    if_missing: IfMissing = "hold"


@dataclass(frozen=True)
class ResultInput:
    """What another rule found in the same study."""

    name: str
    rule: str
    optional: bool = False
    if_missing: IfMissing = "hold"


Input = SeriesInput | PriorInput | TableInput | ResultInput


@dataclass(frozen=True)
class InputLines:
    """One input as the file holds it; `named` gives what it means."""

    __pydantic_config__ = CLOSED

    header: Conditions | None = None
    image: ImageGate | None = None
    pick: Annotated[tuple[Pick, ...], BeforeValidator(picks)] = ()
    if_ambiguous: Annotated[IfAmbiguous, BeforeValidator(word("hold", "best", "each"))] = "hold"
    retrieve_from: Text | None = None
    like: Text | None = None
    older_than_seconds: Annotated[Seconds, Field(alias="older_than")] = 0.0
    newest: Annotated[int, BeforeValidator(whole(1, 100))] = 1
    table: Text | None = None
    key: Annotated[str, BeforeValidator(_key)] = "PatientID"
    newest_within_seconds: Annotated[Seconds | None, Field(alias="newest_within")] = None
    result_of: Name | None = None
    optional: Flag = False
    if_missing: Annotated[IfMissing, BeforeValidator(word("fail", "ignore", "hold"))] = "hold"

    def named(self, name: str) -> Input:
        """Give the value the rest of the node works with."""
        optional = self.optional or self.if_missing == "ignore"
        if self.retrieve_from is not None:
            return PriorInput(
                name, self.retrieve_from, self.like or "", self.older_than_seconds, self.newest,
                optional, self.if_missing,
            )  # fmt: skip
        if self.table is not None:
            within = self.newest_within_seconds
            return TableInput(name, self.table, self.key, within, optional, self.if_missing)
        if self.result_of is not None:
            return ResultInput(name, self.result_of, optional, self.if_missing)
        header = tuple(line.condition for line in (self.header or {}).values())
        return SeriesInput(name, header, self.image, self.pick, self.if_ambiguous, optional)


def _one_kind(spec: object) -> object:
    if not isinstance(spec, dict):
        return spec
    kinds = [kind for kind in _KINDS if kind in spec]
    if len(kinds) > 1:
        raise ValueError(f"An input is of one kind; this has {' and '.join(kinds)}.")
    known = _known_keys()
    if kinds:
        fitting = _KINDS[kinds[0]] | _COMMON
        if kinds[0] == "retrieve_from" and "like" not in spec:
            raise ValueError("retrieve_from needs like: the input that the prior is like.")
    else:
        fitting = known - frozenset().union(*_KINDS.values()) - {"if_missing"}
    strange = sorted(key for key in spec if key in known - fitting)
    if strange:
        what = f"an input with {kinds[0]}" if kinds else "a received series"
        raise ValueError(f"{', '.join(strange)} does not belong to {what}.")
    return spec


def _known_keys() -> frozenset[str]:
    return frozenset().union(*_KINDS.values()) | _COMMON | {
        "header", "image", "pick", "if_ambiguous",
    }  # fmt: skip


OneInput = Annotated[InputLines, BeforeValidator(_one_kind)]


def input_lines(value: object) -> object:
    """Check the names under ``inputs``."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"This wants names of inputs, not {shape(value) or 'nothing'}.")
    return value


Inputs = Annotated[Mapping[Name, OneInput], BeforeValidator(input_lines)]
