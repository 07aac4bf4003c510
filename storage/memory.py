"""The memory driver: a store that ends with its process, for tests."""

import asyncio
import time
import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from storage.driver import PAGE, Absent, Capabilities, Condition, Entry, Fence, Finding, Object, Page, Version
from storage.errors import ConditionFailed, FenceExpired, NotFound, Unsupported
from storage.keys import check_key, check_prefix, check_scratch

CHUNK: Final = 256 << 10
"""Bytes a reader gives at once."""


@dataclass(slots=True)
class _Shelf:
    """What the replicas of one memory store share. Nothing here waits, so every change is atomic to other tasks."""

    objects: dict[str, Object] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    versions: "count[int]" = field(default_factory=lambda: count(1))

    def put(self, key: str, data: bytes, modified: float) -> None:
        if key not in self.objects:
            self._refuse_folders(key)
            insort(self.order, key)
        self.objects[key] = Object(data, modified, str(next(self.versions)))

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self.order[bisect_left(self.order, key)]

    def _refuse_folders(self, key: str) -> None:
        # A folder cannot hold `a` and `a/b`, and MinIO hides one of them; here the mistake shows in the first test.
        inside = bisect_left(self.order, key + "/")
        folders = (key[:at] for at, letter in enumerate(key) if letter == "/")
        if self.order[inside : inside + 1] and self.order[inside].startswith(key + "/"):
            raise Unsupported(f"{key} is a folder of another key")
        if any(folder in self.objects for folder in folders):
            raise Unsupported(f"{key} lies inside another key")


class MemoryDriver:
    """A store in memory. `clock` gives seconds since 1970; fences and `modified` follow it."""

    name = "memory"

    def __init__(self, clock: Callable[[], float] = time.time, *, fence_lifetime: float = 900) -> None:
        self._clock = clock
        self._fence_lifetime = fence_lifetime
        self._shelf = _Shelf()

    def replica(self) -> "MemoryDriver":
        """Another driver on the same objects, as another process has it with a real store."""
        twin = MemoryDriver(self._clock, fence_lifetime=self._fence_lifetime)
        twin._shelf = self._shelf
        return twin

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close; the objects stay until the driver and its replicas are gone."""

    async def probe(self) -> Capabilities:
        """Always whole."""
        return Capabilities(findings=(Finding("memory", True, "objects live in memory and end with this process"),))

    async def ready(self) -> None:
        """Always."""

    async def get(self, key: str) -> Object:
        """The whole object. Raises NotFound."""
        await asyncio.sleep(0)
        found = self._shelf.objects.get(check_key(key))
        if found is None:
            raise NotFound(key)
        return found

    async def stat(self, key: str) -> Entry:
        """Size and version of one key. Raises NotFound."""
        found = await self.get(key)
        return Entry(key, len(found.data), found.modified, found.version)

    @asynccontextmanager
    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator["MemoryReader"]:
        """The bytes from `start` up to, not including, `end`. Raises NotFound."""
        found = await self.get(key)
        yield MemoryReader(found.data, start, end)

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        """Writes one object whole. Raises ConditionFailed, FenceExpired."""
        check_key(key)
        await asyncio.sleep(0)
        self._refuse_expired(fence)
        self._refuse_unmet(key, condition)
        self._shelf.put(key, bytes(data), self._clock())

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        """Removes a key that may not be there. Raises FenceExpired."""
        check_key(key)
        await asyncio.sleep(0)
        self._refuse_expired(fence)
        self._shelf.delete(key)

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        """Removes the keys. Raises FenceExpired."""
        for key in keys:
            await self.delete(key, fence=fence)

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        """Up to `limit` keys that begin with `prefix` and sort after `after`."""
        check_prefix(prefix)
        await asyncio.sleep(0)
        order, limit = self._shelf.order, min(limit, PAGE)
        begin = max(bisect_left(order, prefix), bisect_right(order, after))
        keys = [key for key in order[begin : begin + limit + 1] if key.startswith(prefix)]
        objects = ((key, self._shelf.objects[key]) for key in keys[:limit])
        entries = [Entry(key, len(found.data), found.modified, found.version) for key, found in objects]
        return Page(entries, more=len(keys) > limit)

    async def copy(self, source: str, target: str) -> None:
        """Copies an object. Raises NotFound."""
        await self.put(target, (await self.get(source)).data)

    def fence(self) -> Fence:
        """A deadline that begins now."""
        return Fence(self._clock(), self._fence_lifetime)

    def create(self, key: str, scratch: str) -> "MemoryWriter":
        """A new object."""
        return MemoryWriter(self._shelf, self._clock, check_key(key), check_scratch(scratch))

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> "MemoryWriter":
        """Continues a suspended writer."""
        del turn  # every writer has a buffer of its own
        return MemoryWriter(self._shelf, self._clock, check_key(key), check_scratch(scratch), state)

    async def discard(self, scratch: str) -> None:
        """Removes everything below `scratch`."""
        check_scratch(scratch)
        await self.delete_many([key for key in self._shelf.order if key.startswith(scratch)])

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        """None: memory has no URLs."""
        return None

    def _refuse_expired(self, fence: Fence | None) -> None:
        if fence is not None and not fence.signed_at <= self._clock() < fence.signed_at + fence.lifetime:
            raise FenceExpired("the deadline of this write has passed")

    def _refuse_unmet(self, key: str, condition: Condition | None) -> None:
        found = self._shelf.objects.get(key)
        if isinstance(condition, Absent) and found is not None:
            raise ConditionFailed(f"{key} is there already")
        if isinstance(condition, Version) and (found is None or found.version != condition.version):
            raise ConditionFailed(f"{key} is not the version that was named")


class MemoryReader:
    """A range of an object as it was when it was opened."""

    def __init__(self, data: bytes, start: int, end: int | None) -> None:
        self.size = len(data)
        self._range = memoryview(data)[start:end]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of up to 256 KiB."""
        for at in range(0, len(self._range), CHUNK):
            await asyncio.sleep(0)
            yield bytes(self._range[at : at + CHUNK])


class MemoryWriter:
    """An object being written. Each suspend keeps its bytes below the scratch prefix, under a name used once."""

    def __init__(
        self, shelf: _Shelf, clock: Callable[[], float], key: str, scratch: str, state: Mapping[str, Any] | None = None
    ) -> None:
        self.size = int(state["size"]) if state else 0
        self._shelf, self._clock, self._key = shelf, clock, key
        self._kept: str | None = check_key(scratch + str(state["file"])) if state else None
        self._lineage = self._kept.rpartition(".")[0] if self._kept else f"{scratch}{uuid.uuid4().hex}"
        self._acknowledged = self.size
        self._fresh = bytearray()
        self._open, self._committed = True, False

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises NotFound when the suspended ones are gone."""
        await asyncio.sleep(0)
        self._refuse_ended()
        self._suspended()
        self._fresh += chunk
        self.size += len(chunk)

    async def suspend(self) -> dict[str, Any]:
        """Keeps the bytes below the scratch prefix; ends this writer."""
        await asyncio.sleep(0)
        self._refuse_ended()
        data = self._suspended() + bytes(self._fresh)
        key = f"{self._lineage}.{uuid.uuid4().hex}"
        self._shelf.put(key, data, self._clock())
        self._open = False
        return {"file": key.rpartition("/")[2], "size": len(data)}

    async def commit(self) -> None:
        """Publishes the object; once more does nothing."""
        await asyncio.sleep(0)
        if self._committed:
            return
        self._refuse_ended()
        if not self._published_before():
            self._shelf.put(self._key, self._suspended() + bytes(self._fresh), self._clock())
        self._drop()
        self._committed = True

    async def abort(self) -> None:
        """Drops what was taken since `create` or `resume`; what was suspended stays."""
        await asyncio.sleep(0)
        self._fresh.clear()
        self._open = False

    def _refuse_ended(self) -> None:
        if not self._open:
            raise RuntimeError("this writer has ended")

    def _suspended(self) -> bytes:
        if self._kept is None:
            return b""
        if self._kept not in self._shelf.objects:
            raise NotFound(f"what was written to {self._key} is gone")
        return self._shelf.objects[self._kept].data[: self._acknowledged]

    def _published_before(self) -> bool:
        published = self._shelf.objects.get(self._key)
        gone = self._kept is not None and self._kept not in self._shelf.objects
        return gone and published is not None and len(published.data) == self.size

    def _drop(self) -> None:
        for key in [key for key in self._shelf.order if key.startswith(self._lineage + ".")]:
            self._shelf.delete(key)
        self._fresh.clear()
        self._open = False
