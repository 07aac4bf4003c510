"""What every repository of a registry shares: the driver, the rules, and memory of what never changes."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Generic, TypeVar

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry.hashing import Hashes
from app.registry.keys import Copy, Entry
from app.registry.lifetimes import Lifetimes, scaled
from app.registry.settings import RegistrySettings
from app.registry.signing import Signing
from storage import Capabilities, Driver

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE: Final = 24
"""Store requests that one request of a client makes side by side."""
_REMEMBERED_REPOSITORIES: Final = 10_000
_REMEMBERED_PLACES: Final = 50_000

Alarm = Callable[[str, dict[str, str]], None]
"""Called with an event's name and its fields when the store lost or garbled something."""


class Bucket:
    """One per process. Caches hold immutable bytes only; whether something exists is always asked of the store."""

    def __init__(
        self,
        driver: Driver,
        settings: RegistrySettings,
        capabilities: Capabilities,
        alarm: Alarm,
        redirect_lifetime: float | None = None,
    ) -> None:
        self.driver = driver
        self.redirect_lifetime = redirect_lifetime
        self.settings = settings
        self.capabilities = capabilities
        self.alarm = alarm
        self.lifetimes: Lifetimes = scaled(settings.time_scale)
        self.signing = Signing(driver)
        self.hashes = Hashes()
        self.manifests = ByteCache(settings.manifest_cache_bytes)
        self.referrers = ByteCache(settings.manifest_cache_bytes // 4)
        self.cancelled: Recent[str, bool] = Recent(_REMEMBERED_REPOSITORIES)  # uploads, at this replica
        self.places: Recent[tuple[Name, Digest], Copy] = Recent(_REMEMBERED_PLACES)
        self.entries: Recent[tuple[Name, Digest], Entry] = Recent(_REMEMBERED_PLACES)
        self.catalogued: Recent[Name, bool] = Recent(_REMEMBERED_REPOSITORIES)
        self._background: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs what an answer need not wait for; `close` awaits it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Waits for what runs in the background."""
        await asyncio.gather(*self._background, return_exceptions=True)


class Recent(Generic[K, V]):
    """What was seen lately, the least recently used dropped first. Where a key was is a hint: it is asked for again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """What was seen, or None."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Remembers the latest."""
        self._known[key] = value
        self._known.move_to_end(key)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forgets it."""
        self._known.pop(key, None)


class ByteCache:
    """Immutable bytes by name, the least recently used dropped first; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._known: OrderedDict[Digest | str, bytes] = OrderedDict()

    def get(self, key: Digest | str) -> bytes | None:
        """The bytes, or None."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, key: Digest | str, data: bytes) -> None:
        """Remembers bytes, unless they alone would take an eighth of the room."""
        if key in self._known or len(data) > self._limit // 8:
            return
        self._known[key] = data
        self._size += len(data)
        while self._size > self._limit:
            self._size -= len(self._known.popitem(last=False)[1])


async def side_by_side(work: Callable[[T], Awaitable[R]], items: Iterable[T], *, most: int = _AT_ONCE) -> list[R]:
    """Awaits `work` for every item, `most` at once, in order. The first failure cancels the rest.

    A task for each of very many items would hold up the event loop, so there are `most`, which share them.
    """
    everything = list(items)
    if len(everything) == 1:
        return [await work(everything[0])]
    found: dict[int, R] = {}
    rest = iter(enumerate(everything))

    async def some() -> None:
        for place, item in rest:
            found[place] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(most, len(everything))):
                group.create_task(some())
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
    if len(found) < len(everything):  # a group ends quietly when what it waits for was cancelled by somebody else
        raise asyncio.CancelledError
    return [found[place] for place in range(len(everything))]
