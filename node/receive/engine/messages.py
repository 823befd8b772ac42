"""Puts PDVs together again: which of them are a command, which belong to its data set.

References
----------
DICOM PS3.7 section 6.3.1 and annex E; PS3.8 annex E (fragments and message control header).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum

from node.receive.engine.commands import LARGEST_COMMAND, Command, InvalidCommand, decode
from node.receive.engine.pdu import COMMAND, LAST, AbortReason, AbortSource


class MessageError(ValueError):
    """Raised when PDVs are no sequence of messages; the association is to be aborted.

    Parameters
    ----------
    sentence : str
        What is wrong.
    source : AbortSource
    reason : AbortReason
        What the peer is told.
    """

    def __init__(
        self,
        sentence: str,
        source: AbortSource = AbortSource.SERVICE_USER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        super().__init__(sentence)
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """A command that is complete; its data set follows where `command.has_data_set`."""

    context_id: int
    command: Command


class Part(Enum):
    """What a fragment of a data set is."""

    MORE = "more fragments follow"
    LAST = "the last one"


class MessageReader:
    """Tells commands from data sets, in the order the Standard demands.

    Parameters
    ----------
    contexts : container of int
        Ids of accepted presentation contexts.
    """

    def __init__(self, contexts: Container[int]) -> None:
        self._contexts = contexts
        self._command = bytearray()
        self._context_id = 0
        self._awaits_data = False

    @property
    def is_between_messages(self) -> bool:
        """Whether no message has begun."""
        return not self._awaits_data and not self._command

    def take(self, context_id: int, control: int, data: memoryview) -> Request | Part | None:
        """Take one PDV.

        Returns
        -------
        Request, Part or None
            A command that is complete now; what the fragment of a data set is; None: part of a
            command.

        Raises
        ------
        MessageError
            The PDV cannot come here.
        """
        if self._awaits_data:
            return self._data(context_id, control)
        if context_id not in self._contexts:
            raise MessageError(
                f"presentation context {context_id} was not accepted",
                AbortSource.SERVICE_PROVIDER,
                AbortReason.INVALID_PARAMETER,
            )
        if not control & COMMAND:
            raise MessageError("a data set came without a command")
        return self._command_part(context_id, control, data)

    def _data(self, context_id: int, control: int) -> Part:
        if control & COMMAND:
            raise MessageError("a command came in the midst of a data set")
        if context_id != self._context_id:
            raise MessageError("a data set came by another presentation context than its command")
        if not control & LAST:
            return Part.MORE
        self._awaits_data = False
        return Part.LAST

    def _command_part(self, context_id: int, control: int, data: memoryview) -> Request | None:
        if not self._command:
            self._context_id = context_id
        elif context_id != self._context_id:
            raise MessageError("a command came by two presentation contexts")
        self._command += data
        if len(self._command) > LARGEST_COMMAND:
            raise MessageError(f"a command set is longer than {LARGEST_COMMAND} bytes")
        if not control & LAST:
            return None
        try:
            command = decode(self._command)
        except InvalidCommand as error:
            raise MessageError(str(error)) from error
        self._command = bytearray()
        self._awaits_data = command.has_data_set
        return Request(context_id, command)
