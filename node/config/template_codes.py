"""Whether the codes of a report template are codes, and mean what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from models.base import Code
from sr_templates.code_tables import (
    RETIRED_SCHEMES,
    LocalCode,
    advice,
    is_meaning,
    is_private,
    meanings_of,
    schemes,
)
from sr_templates.described import PrivateScheme


class CodeBook:
    """The tables of PS3.16, a site's private codes, and those it had reviewed.

    Parameters
    ----------
    private : PrivateScheme or None
    local : iterable of LocalCode
    """

    def __init__(self, private: PrivateScheme | None, local: Iterable[LocalCode]) -> None:
        self.private = private
        self.local = {(code.scheme, code.value): code.meaning for code in local}

    def mistakes(self, code: Code) -> Iterator[str]:
        """Say what is wrong with a code; nothing when it is one."""
        scheme, value, meaning = code
        if len(value) > 16 or len(meaning) > 64:
            yield "A code's value has at most 16 characters, its meaning at most 64."
        elif is_private(scheme):
            yield from self._private(code)
        elif scheme in RETIRED_SCHEMES:
            yield f"{scheme} is a retired scheme. Use SCT."
        elif (scheme, value) in self.local and not meanings_of(scheme, value):
            if self.local[scheme, value] != meaning:
                yield f'local_codes says {scheme} {value} is "{self.local[scheme, value]}".'
        elif scheme not in schemes():
            yield f"There is no table of the scheme {scheme} here. {_UNVERIFIED}"
        else:
            yield from _looked_up(code)

    def _private(self, code: Code) -> Iterator[str]:
        scheme, value, meaning = code
        if self.private is None or scheme != self.private.designator:
            yield f"The private scheme {scheme} is not described under private."
        elif self.private.codes.get(value) != meaning:
            yield f"private.codes does not say {value}: {meaning}."

    @staticmethod
    def contradictions(code: Code) -> Iterator[str]:
        """Say where a local code says other than the tables do."""
        scheme, value, meaning = code
        known = meanings_of(scheme, value)
        if known and not is_meaning(meaning, known):
            yield f'PS3.16 says {scheme} {value} is {_quoted(known)}, not "{meaning}".'
        elif scheme in RETIRED_SCHEMES:
            yield f"{scheme} is a retired scheme. Use SCT."


_UNVERIFIED = "If it is right, list it under local_codes with its source."


def _looked_up(code: Code) -> Iterator[str]:
    scheme, value, meaning = code
    known = meanings_of(scheme, value)
    near = advice(scheme, value, meaning)
    if not known:
        hint = f"{near}." if near else _UNVERIFIED
        yield f"{scheme} {value} is in no table of PS3.16. {hint}"
    elif not is_meaning(meaning, known):
        hint = f" {near}." if near else ""
        yield f'{scheme} {value} means {_quoted(known)}, not "{meaning}".{hint}'


def _quoted(meanings: Iterable[str]) -> str:
    return " or ".join(f'"{text}"' for text in sorted(meanings)[:2])
