"""The contract of a store: keys and bytes, and nothing of what they mean.

A key is a relative path of `/`-separated segments of 1-255 printable ASCII characters, at most 1,024 in all; no segment is
`.` or `..` or begins with a dot, and no key is a folder of another key. Integrity rests on three properties that every
driver has: each key's put, get and delete are linearizable; a listing sees what was there before it began; a write whose
fence has ended is refused by the store itself, however long the writer slept.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

PAGE: Final = 1000
"""The most keys one listing returns, in every driver."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a listing. `size` in bytes, `modified` in seconds since 1970 by the store's clock, `version` opaque."""

    key: str
    size: int
    modified: float
    version: str


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in byte order; `more` says that others follow the last one."""

    entries: Sequence[Entry]
    more: bool


@dataclass(frozen=True, slots=True)
class Object:
    """A small object read whole; `version` changes with every put."""

    data: bytes
    modified: float
    version: str


@dataclass(frozen=True, slots=True)
class Fence:
    """The moment after which the store itself refuses a write: `signed_at` + `lifetime`, in seconds by this machine's clock."""

    signed_at: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class Absent:
    """A put succeeds only when the key is not there."""


@dataclass(frozen=True, slots=True)
class Version:
    """A put succeeds only over exactly this version."""

    version: str


Condition = Absent | Version


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the probe: what was tried, whether it held, and what is switched off where it did not."""

    name: str
    ok: bool
    line: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the store was seen to do."""

    conditional_put: bool = True
    fences: bool = True
    list_after_write: bool = True
    clock_skew: float = 0.0
    findings: Sequence[Finding] = field(default_factory=tuple)


class Reader(Protocol):
    """The bytes of an object, or of a range of it, as they come."""

    size: int
    """Bytes of the whole object, not of the range."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks; raises Corrupt when fewer bytes come than were announced, Unavailable when the store goes away for good."""
        ...


class Writer(Protocol):
    """One object being written: invisible until `commit`, then there as a whole. One task uses it at a time."""

    size: int
    """Bytes taken so far."""

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes; waits when too many are on their way. Raises StoreFull, Unavailable."""
        ...

    async def suspend(self) -> dict[str, Any]:
        """Makes every byte durable and returns a JSON-able state from which any process can `resume`; ends this writer."""
        ...

    async def commit(self) -> None:
        """Publishes the object, durably. Idempotent in effect: repeating a commit whose answer was lost succeeds."""
        ...

    async def abort(self) -> None:
        """Drops what was taken since `create` or `resume`; what a suspend made durable stays. Never raises StorageError."""
        ...


class Driver(Protocol):
    """A store."""

    name: str
    """`s3`, `filesystem`, `memory`: the label of metrics."""

    async def start(self) -> None:
        """Opens connections. Raises AccessDenied, NotFound (no such bucket), Unavailable."""
        ...

    async def close(self) -> None:
        """Closes connections; waits for nothing."""
        ...

    async def probe(self) -> Capabilities:
        """Tries what the registry relies on with throw-away keys below `upkeep/probe/`; seconds at most."""
        ...

    async def ready(self) -> None:
        """One cheap request. Raises what a read would raise."""
        ...

    async def get(self, key: str) -> Object:
        """The whole object, meant for small ones. Raises NotFound."""
        ...

    async def stat(self, key: str) -> Entry:
        """Size and version of one key. Raises NotFound."""
        ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[Reader]:
        """The bytes from `start` up to, not including, `end`. Entering raises NotFound."""
        ...

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        """Writes one small object whole and durably. Raises ConditionFailed, FenceExpired, StoreFull, OutcomeUnknown."""
        ...

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        """Removes a key; a key that is not there is no error. Raises FenceExpired, OutcomeUnknown."""
        ...

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        """Removes up to any number of keys, in bulk where the store can.

        Raises FenceExpired when the fence ended before all were gone, Unavailable when any of them may remain.
        """
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        """Up to `limit` (at most PAGE) keys that begin with `prefix` and sort after the key `after`, in byte order."""
        ...

    async def copy(self, source: str, target: str) -> None:
        """Copies an object of any size inside the store; `target` appears whole. Raises NotFound, StoreFull."""
        ...

    def fence(self) -> Fence:
        """A deadline that begins now; a write given this fence is refused by the store once it has passed."""
        ...

    def create(self, key: str, scratch: str) -> Writer:
        """A new object. What it needs to keep in the store before commit lies below the prefix `scratch` (ends with `/`)."""
        ...

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> Writer:
        """Continues a suspended writer, in any process. Bytes written after that `suspend` by others are dropped.

        `turn` rises with each resume of an upload, so that a writer which was given up and still runs is in nobody's way.
        """
        ...

    async def discard(self, scratch: str) -> None:
        """Removes all that unfinished writers left below `scratch`, unfinished multipart uploads included."""
        ...

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        """A URL from which anybody may GET the key for `lifetime` seconds; None where the store has no such thing."""
        ...
