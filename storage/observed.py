"""Timings of any driver, reported to a callback; everything else is the driver's."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from storage.driver import PAGE, Capabilities, Condition, Driver, Entry, Fence, Object, Page, Reader, Writer

Observe = Callable[[str, float], None]
"""Takes an action (`get`, `open`, `commit`, ...) and how long it took in seconds, whether it succeeded or not."""


class Observed:
    """A driver whose actions are timed. `open` is the time to the reader; the time of the bytes is their reader's."""

    def __init__(self, driver: Driver, observe: Observe) -> None:
        self.name = driver.name
        self._driver, self._observe = driver, observe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def start(self) -> None:
        """As the driver's."""
        await self._driver.start()

    async def close(self) -> None:
        """As the driver's."""
        await self._driver.close()

    async def probe(self) -> Capabilities:
        """As the driver's."""
        return await self._driver.probe()

    async def ready(self) -> None:
        """As the driver's, timed."""
        with _timed("ready", self._observe):
            await self._driver.ready()

    async def get(self, key: str) -> Object:
        """As the driver's, timed."""
        with _timed("get", self._observe):
            return await self._driver.get(key)

    async def stat(self, key: str) -> Entry:
        """As the driver's, timed."""
        with _timed("stat", self._observe):
            return await self._driver.stat(key)

    @asynccontextmanager
    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[Reader]:
        """As the driver's; timed until the reader is there."""
        begun = time.perf_counter()
        seconds: float | None = None
        try:
            async with self._driver.open(key, start, end) as reader:
                seconds = time.perf_counter() - begun
                yield reader
        finally:
            self._observe("open", time.perf_counter() - begun if seconds is None else seconds)

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        """As the driver's, timed."""
        with _timed("put", self._observe):
            await self._driver.put(key, data, condition=condition, fence=fence)

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        """As the driver's, timed."""
        with _timed("delete", self._observe):
            await self._driver.delete(key, fence=fence)

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        """As the driver's, timed."""
        with _timed("delete_many", self._observe):
            await self._driver.delete_many(keys, fence=fence)

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        """As the driver's, timed."""
        with _timed("list", self._observe):
            return await self._driver.list(prefix, after=after, limit=limit)

    async def copy(self, source: str, target: str) -> None:
        """As the driver's, timed."""
        with _timed("copy", self._observe):
            await self._driver.copy(source, target)

    def fence(self) -> Fence:
        """As the driver's."""
        return self._driver.fence()

    def create(self, key: str, scratch: str) -> Writer:
        """As the driver's; its writer is timed."""
        return ObservedWriter(self._driver.create(key, scratch), self._observe)

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> Writer:
        """As the driver's; its writer is timed."""
        return ObservedWriter(self._driver.resume(key, scratch, state, turn=turn), self._observe)

    async def discard(self, scratch: str) -> None:
        """As the driver's, timed."""
        with _timed("discard", self._observe):
            await self._driver.discard(scratch)

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        """As the driver's."""
        return await self._driver.presign(key, lifetime=lifetime, filename=filename)


class ObservedWriter:
    """A writer whose endings are timed; single writes mostly fill a buffer and are not."""

    def __init__(self, writer: Writer, observe: Observe) -> None:
        self.size = writer.size
        self._writer, self._observe = writer, observe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def write(self, chunk: bytes) -> None:
        """As the writer's."""
        try:
            await self._writer.write(chunk)
        finally:
            self.size = self._writer.size

    async def suspend(self) -> dict[str, Any]:
        """As the writer's, timed."""
        with _timed("suspend", self._observe):
            return await self._writer.suspend()

    async def commit(self) -> None:
        """As the writer's, timed."""
        with _timed("commit", self._observe):
            await self._writer.commit()

    async def abort(self) -> None:
        """As the writer's, timed."""
        with _timed("abort", self._observe):
            await self._writer.abort()


@contextmanager
def _timed(action: str, observe: Observe) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        observe(action, time.perf_counter() - begun)
