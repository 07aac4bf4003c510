"""What every repository of a registry shares: the driver, the rules, and memory of what never changes."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry.hashing import Hashes
from app.registry.lifetimes import Lifetimes, scaled
from app.registry.settings import RegistrySettings
from app.registry.signing import Signing
from storage import Capabilities, Driver

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE: Final = 24
"""Store requests that one request of a client makes side by side."""
_REMEMBERED_REPOSITORIES: Final = 10_000

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
        self.cancelled = ByteCache(1 << 16)  # uploads cancelled at this replica
        self.catalogued: OrderedDict[Name, None] = OrderedDict()
        self._background: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs what an answer need not wait for; `close` awaits it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Waits for what runs in the background."""
        await asyncio.gather(*self._background, return_exceptions=True)

    def remember_catalogued(self, name: Name) -> None:
        """The catalog has a key for this repository, and no request deletes one."""
        self.catalogued[name] = None
        if len(self.catalogued) > _REMEMBERED_REPOSITORIES:
            self.catalogued.popitem(last=False)


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


async def side_by_side(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Awaits `work` for every item, a bounded number at once, in order. The first failure cancels the rest."""
    everything = list(items)
    if len(everything) == 1:
        return [await work(everything[0])]
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with places:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in everything]
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
    return [task.result() for task in tasks]
