"""WWW-Authenticate: what a registry wants to see before it answers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LEXEME: Final = re.compile(
    rf"""(?P<pair>{_NAME})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s",]*))
       | (?P<word>[^\s,"]+)
       | (?P<rest>[\s,]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST: Final = 8 << 10
"""Characters of a header that are looked at."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: `scheme` and the names of `parameters` in lower case, values without their quotes."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers of an answer, in order (RFC 9110, 11.6.1).

    Several may stand in one header. What is no challenge is skipped: a header never makes this fail.
    """
    return [challenge for header in headers for challenge in _challenges(header[:_LONGEST])]


def _challenges(header: str) -> Iterator[Challenge]:
    scheme: str | None = None
    parameters: dict[str, str] = {}
    for name, value in _lexemes(header):
        if value is None:  # a word of its own: the next scheme, or what Negotiate calls a token68
            if scheme is not None:
                yield Challenge(scheme, MappingProxyType(parameters))
            scheme, parameters = name.lower(), {}
        elif scheme is not None:
            parameters.setdefault(name.lower(), value)
    if scheme is not None:
        yield Challenge(scheme, MappingProxyType(parameters))


class _Lexeme(NamedTuple):
    name: str
    value: str | None


def _lexemes(header: str) -> Iterator[_Lexeme]:
    for found in _LEXEME.finditer(header):
        if found["pair"] is not None:
            quoted = found["quoted"]
            value = found["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            yield _Lexeme(found["pair"], value)
        elif found["word"] is not None:
            yield _Lexeme(found["word"], None)
