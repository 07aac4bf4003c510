"""A store inside a store: every key below one prefix, so that a registry of its own leaves nothing in the real one."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from storage import PAGE, Capabilities, Condition, Driver, Entry, Fence, Object, Page, Reader, Writer


class Below:
    """See storage.driver.Driver for the contract. `prefix` ends with `/`; the store under it is open already."""

    def __init__(self, driver: Driver, prefix: str) -> None:
        self.name = driver.name
        self._driver = driver
        self._prefix = prefix

    async def start(self) -> None:
        """Nothing: the store is open."""

    async def close(self) -> None:
        """Nothing: who opened the store closes it."""

    async def probe(self) -> Capabilities:
        return await self._driver.probe()

    async def ready(self) -> None:
        await self._driver.ready()

    async def get(self, key: str) -> Object:
        return await self._driver.get(self._prefix + key)

    async def stat(self, key: str) -> Entry:
        return self._shown(await self._driver.stat(self._prefix + key))

    def open(self, key: str, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[Reader]:
        return self._driver.open(self._prefix + key, start, end)

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        await self._driver.put(self._prefix + key, data, condition=condition, fence=fence)

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        await self._driver.delete(self._prefix + key, fence=fence)

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        await self._driver.delete_many([self._prefix + key for key in keys], fence=fence)

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        start = self._prefix + after if after else ""
        page = await self._driver.list(self._prefix + prefix, after=start, limit=limit)
        return Page([self._shown(entry) for entry in page.entries], page.more)

    async def copy(self, source: str, target: str) -> None:
        await self._driver.copy(self._prefix + source, self._prefix + target)

    def fence(self) -> Fence:
        return self._driver.fence()

    def create(self, key: str, scratch: str) -> Writer:
        return self._driver.create(self._prefix + key, self._prefix + scratch)

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> Writer:
        return self._driver.resume(self._prefix + key, self._prefix + scratch, state, turn=turn)

    async def discard(self, scratch: str) -> None:
        await self._driver.discard(self._prefix + scratch)

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        return await self._driver.presign(self._prefix + key, lifetime=lifetime, filename=filename)

    async def clear(self) -> None:
        """Removes everything below the prefix."""
        await clear(self._driver, self._prefix)

    def _shown(self, entry: Entry) -> Entry:
        return replace(entry, key=entry.key.removeprefix(self._prefix))


async def clear(driver: Driver, prefix: str) -> int:
    """Removes every key below a prefix, and says how many there were. Raises StorageError."""
    count, more = 0, True
    while more:
        page = await driver.list(prefix)
        await driver.delete_many([entry.key for entry in page.entries])
        count, more = count + len(page.entries), page.more
    return count
