"""A registry whose garbage is collected, with time moved by the test, on any store."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.listing import every
from app.registry.registry import Registry, Repository
from app.registry.settings import RegistrySettings
from app.upkeep.garbage.garbage import Garbage, Order
from app.upkeep.garbage.reports import Report
from app.upkeep.settings import UpkeepSettings
from storage import PAGE, Capabilities, Condition, Driver, Entry, Fence, Object, Page, Reader
from tests.registry.conftest import manifest_of, stream

HERE, THERE, AWAY = Name("here/app"), Name("there"), Name("far/away")
HOUR = 3600.0
DAY = 24 * HOUR


class Later:
    """A real store whose clock the test sets forward: what is written afterwards is dated so much later."""

    def __init__(self, driver: Driver) -> None:
        self.name = driver.name
        self._driver = driver
        self._jumps: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def pass_(self, seconds: float) -> None:
        """Lets time pass. Stores date in whole seconds, so a real one or two go by."""
        await asyncio.sleep(1.05)
        self._jumps.append((float(int(time.time())), seconds))
        await asyncio.sleep(1.05 - time.time() % 1)

    async def get(self, key: str) -> Object:
        found = await self._driver.get(key)
        return replace(found, modified=self._dated(found.modified))

    async def stat(self, key: str) -> Entry:
        return self._shown(await self._driver.stat(key))

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        page = await self._driver.list(prefix, after=after, limit=limit)
        return Page([self._shown(entry) for entry in page.entries], page.more)

    def _shown(self, entry: Entry) -> Entry:
        return replace(entry, modified=self._dated(entry.modified))

    def _dated(self, modified: float) -> float:
        return modified + sum(seconds for at, seconds in self._jumps if modified > at)


class Yard:
    """One replica and its collector. `pass_` lets time pass in the store."""

    def __init__(
        self,
        driver: Driver,
        pass_: Callable[[float], Awaitable[None]],
        settings: UpkeepSettings | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.driver = driver
        self.pass_ = pass_
        self.alarms: list[str] = []
        self.bucket = Bucket(
            driver, RegistrySettings(), capabilities or Capabilities(), lambda event, _: self.alarms.append(event)
        )
        self.registry = Registry(self.bucket)
        self.garbage = Garbage(self.bucket, settings or UpkeepSettings())

    async def close(self) -> None:
        await self.bucket.close()
        await self.garbage.close()

    def repository(self, name: Name = HERE) -> Repository:
        return self.registry.repository(name)

    async def push(self, data: bytes, name: Name = HERE) -> Digest:
        """Pushes a blob in one request."""
        digest = digest_of(data)
        await self.repository(name).uploads.put(digest, stream(data))
        return digest

    async def publish(self, *digests: Digest, name: Name = HERE, tag: str = "", **more: Any) -> Digest:
        """Pushes a manifest of these blobs."""
        put = self.repository(name).manifests.put
        tags = [Tag(tag)] if tag else []
        data = manifest_of(*digests, **more)
        found = await put(data, OCI_MANIFEST, digest=None, tagged=tags, by=None)
        await self.bucket.close()  # its intent is released
        return found.digest

    async def mount(self, digest: Digest, source: Name, name: Name) -> None:
        """Links the copy that another repository holds."""
        assert await self.repository(name).blobs.mount(digest, source, lambda _: True)
        await self.bucket.close()

    async def image(self, *layers: bytes, name: Name = HERE, tag: str = "v1") -> Digest:
        """Pushes an image of these layers."""
        return await self.publish(*[await self.push(layer, name) for layer in layers], name=name, tag=tag)

    async def read(self, digest: Digest, name: Name = HERE) -> bytes:
        """Pulls a blob."""
        blobs = self.repository(name).blobs
        async with blobs.open(await blobs.stat(digest)) as reader:
            return b"".join([chunk async for chunk in reader])

    async def collect(self, max_share: float = 1.0, *, dry_run: bool = False) -> Report:
        """One collection."""
        return await self.garbage.collect(Order(max_share, dry_run))

    async def keys(self, prefix: str = "") -> list[str]:
        """What the store holds."""
        return [entry.key async for entry in every(self.driver, prefix)]

    async def content(self) -> dict[str, int]:
        """What the store holds, without what upkeep leaves of itself."""
        found = {entry.key: entry.size async for entry in every(self.driver, "")}
        return {key: size for key, size in found.items() if not key.startswith(("upkeep/reports/", "upkeep/keys/"))}

    async def bytes_without_a_link(self, data: bytes) -> str:
        """What an upload leaves that nobody finished."""
        uuid = keys.fresh()
        await self.driver.put(keys.data(uuid), data)
        return uuid

    async def dead_intent(self, *uuids: str) -> str:
        """What a push leaves that was killed."""
        key = f"{keys.INTENTS}{keys.fresh()}"
        await self.driver.put(key, json.dumps({"copies": list(uuids)}).encode())
        return key


class Mortal:
    """A driver whose process is killed before its n-th write."""

    def __init__(self, driver: Driver, writes: float) -> None:
        self.name = driver.name
        self._driver = driver
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def _spend(self) -> None:
        if self._left <= 0:
            raise Killed
        self._left -= 1

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        self._spend()
        await self._driver.put(key, data, condition=condition, fence=fence)

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        self._spend()
        await self._driver.delete(key, fence=fence)

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        for key in keys:
            await self.delete(key, fence=fence)

    async def discard(self, scratch: str) -> None:
        self._spend()
        await self._driver.discard(scratch)


class Killed(BaseException):
    """The process ends here: nobody catches it."""


class Rotten:
    """A driver that reads some keys as somebody else's bytes."""

    def __init__(self, driver: Driver) -> None:
        self.name = driver.name
        self.instead: dict[str, bytes] = {}
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def get(self, key: str) -> Object:
        found = await self._driver.get(key)
        return replace(found, data=self.instead.get(key, found.data))

    def open(self, key: str, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[Reader]:
        return self._driver.open(key, start, end)


@asynccontextmanager
async def yard(driver: Driver, pass_: Callable[[float], Awaitable[None]], **given: Any) -> AsyncIterator[Yard]:
    """Entered while it is used."""
    found = Yard(driver, pass_, **given)
    await found.bucket.signing.start()
    try:
        yield found
    finally:
        await found.close()
