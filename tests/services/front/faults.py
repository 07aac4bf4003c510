"""Faults: what may go wrong with an answer, and rules that say for which requests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final, Literal

Stage = Literal["answer", "redirect", "body"]
NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong. Offsets count bytes of the body as it goes out; times are in seconds, rates in bytes a second.

    In place of the registry's answer:
      delay        wait so long first
      no_answer    `close` or `reset` the connection, or `silence`: say nothing for ever
      status       answer with this status, `headers` and `body` (without one: an error as registries write it)
    A redirect:
      elsewhere    `host`: to a signed URL on the second port, which refuses Authorization; `relative`: to a path of the
                   same host; else the base URL of another host, to which the path is added
      life         seconds for which the signed URL is good
    The registry's answer, changed:
      cut, reset   end the connection after so many bytes, with FIN, or with RST; every matching request anew
      stall        pause after so many bytes, for `stall_for` seconds, or for ever
      rate         most bytes a second of this answer
      short        a whole answer of this many bytes, Content-Length and all
      corrupt      flip the byte at this offset
      ignore_range answer the whole body, whatever was asked
      shift        answer a range that begins so many bytes later (or earlier, where it is negative)
      chunked      send no Content-Length
      headers, without   headers to set, and to leave out (lower case)
    """

    delay: float = 0.0
    no_answer: Literal["close", "reset", "silence"] | None = None
    status: int | None = None
    body: bytes | None = None
    elsewhere: str | None = None
    life: float = 60.0
    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    stall_for: float | None = None
    rate: int | None = None
    short: int | None = None
    corrupt: int | None = None
    ignore_range: bool = False
    shift: int = 0
    chunked: bool = False
    headers: Mapping[str, str] = field(default_factory=lambda: NONE)
    without: tuple[str, ...] = ()

    @property
    def stage(self) -> Stage:
        """When it acts. What stands in place of an answer acts before any question of who asks."""
        if self.delay or self.no_answer or self.status is not None:
            return "answer"
        return "redirect" if self.elsewhere else "body"

    @property
    def needs_body(self) -> bool:
        """Whether it makes no difference to a HEAD."""
        offsets = (self.cut, self.stall, self.rate, self.short, self.corrupt)
        return self.stage == "body" and (any(value is not None for value in offsets) or self.ignore_range)


def merged(faults: Iterable[Fault]) -> Fault:
    """All of them in one; where two say the same thing, the later one is heard."""
    plain = Fault()
    said = {
        part.name: value
        for fault in faults
        for part in fields(Fault)
        if (value := getattr(fault, part.name)) != getattr(plain, part.name)
    }
    return Fault(**said)


def portal() -> Fault:
    """The page of a captive portal in place of the answer."""
    page = b"<!DOCTYPE html><html><title>Welcome</title><body>Accept our terms to go online.</body></html>"
    return Fault(status=200, headers={"Content-Type": "text/html; charset=utf-8"}, body=page)


def redirect(location: str, status: int = 307) -> Fault:
    """A redirect to `location`, as it stands."""
    return Fault(status=status, headers={"Location": location}, body=b"")


def refusal(status: int, *, retry_after: int | None = None) -> Fault:
    """An error, as registries write it."""
    return Fault(status=status, headers=NONE if retry_after is None else {"Retry-After": str(retry_after)})


class Rule:
    """One fault for the requests that match; `taken` counts those that it met. Made by `Front.on`."""

    def __init__(self, path: str, fault: Fault, *, method: str | None, times: int | None) -> None:
        self.path, self.fault, self.method = path, fault, method
        self.taken = 0
        self._left = times

    def take(self, method: str, path: str) -> bool:
        """Whether it meets this request; counts it."""
        if self._left == 0 or not fnmatchcase(path, self.path):
            return False
        if self.method not in (None, method) or (method == "HEAD" and self.fault.needs_body):
            return False
        if self._left is not None:
            self._left -= 1
        self.taken += 1
        return True
