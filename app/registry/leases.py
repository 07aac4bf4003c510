"""Leases: small objects in the bucket that say which replica does something, such as fetching a blob.

A lease is a courtesy, never a lock: where it fails (a store without conditions, an owner that slept, the delete below),
two replicas do the same work once, and what they store is the same bytes under the same digest.

No two clocks are compared. An owner writes its lease anew every third of its life, so its version changes; a waiter that
saw one version for a whole life by its own monotonic clock takes the lease over, on the condition that it still is that
version. MinIO ignores conditions on DELETE, so an owner that ends reads, compares and then deletes: had it slept so long
that a waiter takes over between these two requests, it deletes the new owner's lease, who writes it again at its next
renewal. In between a third replica may take it.
"""

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from storage import Absent, Condition, ConditionFailed, Driver, NotFound, StorageError, Unavailable, Version

_REMEMBERED: Final = 10_000
_ROUNDS: Final = 5
"""Each round but the last was lost to somebody who took, renewed or ended the lease in between."""


@dataclass(frozen=True, slots=True)
class Other:
    """Somebody else's lease: what they wrote, and its version. Empty where it cannot be read."""

    about: Mapping[str, str]
    version: str


class Leases:
    """The leases of one replica."""

    def __init__(
        self, driver: Driver, *, supported: bool, life: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`supported`: the store keeps conditions (Capabilities.conditional_put). `life` in seconds, the same everywhere."""
        self._driver, self._supported, self._life, self._clock = driver, supported, life, clock
        self._seen: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def take(
        self, key: str, about: Mapping[str, str], *, ended: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> "Held | Other":
        """Ours (`async with` it soon: its life has begun), or whose it is. Call again to wait, and to take over the dead.

        `ended` is asked whether one who wrote this is known to have ended, and need not be waited for. Where leases
        are not supported it is always ours and nothing is written. Raises StorageError.
        """
        held = Held(self._driver if self._supported else None, key, about, self._life)
        if not self._supported or await _put(self._driver, key, held.body(), Absent()):
            return held
        for _ in range(_ROUNDS):
            asked = self._clock()
            try:
                found = await self._driver.get(key)
            except NotFound:
                if await _put(self._driver, key, held.body(), Absent()):
                    return held
                continue
            written = _read(found.data)[1]
            if not (self._dead(key, found.version, asked) or ended(written)):
                return Other(written, found.version)
            if await _put(self._driver, key, held.body(), Version(found.version)):
                self._seen.pop(key, None)
                return held
        raise Unavailable(f"the lease {key} changes hands all the time")

    def _dead(self, key: str, version: str, asked: float) -> bool:
        """Whether `version` was there for a whole life: from after an earlier answer until before this question."""
        seen = self._seen.pop(key, None)
        if seen is None or seen[0] != version:
            seen = (version, self._clock())
        self._seen[key] = seen
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return asked - seen[1] >= self._life


class Held:
    """A lease of ours. While entered it is renewed; `lost` is set when it turns out to be somebody else's."""

    def __init__(self, driver: Driver | None, key: str, about: Mapping[str, str], life: float) -> None:
        """Without a driver it is ours in name only. Leases.take makes these."""
        self.lost = asyncio.Event()
        self._driver, self._key, self._about, self._life = driver, key, dict(about), life
        self._mark = uuid.uuid4().hex
        self._beats = 0
        self._ending = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None

    def body(self) -> bytes:
        """What is written next: never the same twice, because S3's versions are hashes of the content."""
        self._beats += 1
        return json.dumps({"about": self._about, "mark": self._mark, "beat": self._beats}).encode()

    async def __aenter__(self) -> Self:
        if self._driver is not None:
            self._renewal = asyncio.create_task(self._renew_for_ever(self._driver))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deletes the lease where it is still ours. A store that fails is left alone: the lease dies by itself."""
        if self._driver is None or self._renewal is None:
            return
        self._ending.set()
        try:
            async with asyncio.timeout(self._life):
                await self._renewal
                if await self._mine(self._driver):
                    await self._driver.delete(self._key)
        except (StorageError, TimeoutError):
            return

    async def _renew_for_ever(self, driver: Driver) -> None:
        while not self.lost.is_set():
            try:
                async with asyncio.timeout(self._life / 3):
                    await self._ending.wait()
                return
            except TimeoutError:
                await self._renew(driver)

    async def _renew(self, driver: Driver) -> None:
        try:
            if not (await self._rewritten(driver) or await self._mine(driver)):
                self.lost.set()
        except StorageError:
            return  # again next time: nobody else is known to have it

    async def _rewritten(self, driver: Driver) -> bool:
        """Whether it was written anew: over our own version, or where nothing is. Raises StorageError."""
        try:
            found = await driver.get(self._key)
        except NotFound:
            return await _put(driver, self._key, self.body(), Absent())
        return _read(found.data)[0] == self._mark and await _put(driver, self._key, self.body(), Version(found.version))

    async def _mine(self, driver: Driver) -> bool:
        """Whether what is there is ours, be it by an earlier write whose answer never came. Raises StorageError."""
        try:
            return _read((await driver.get(self._key)).data)[0] == self._mark
        except NotFound:
            return False


async def _put(driver: Driver, key: str, body: bytes, condition: Condition) -> bool:
    """Whether the condition held. Raises StorageError for everything else."""
    try:
        await driver.put(key, body, condition=condition)
    except ConditionFailed:
        return False
    return True


def _read(data: bytes) -> tuple[str, dict[str, str]]:
    """The owner's mark and what it wrote; both empty where this is no lease, which then dies like any other."""
    try:
        body = json.loads(data)
        mark, about = body["mark"], body["about"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", {}
    if not isinstance(mark, str) or not isinstance(about, dict):
        return "", {}
    return mark, {name: text for name, text in about.items() if isinstance(text, str)}
