"""Bytes against their digest: a copy of a blob is read from the store and hashed."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Literal

from app.oci.digests import Digest, algorithm_of
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.hashing import StreamHash
from app.registry.keys import Copy
from app.upkeep.decay.looking import Withheld, asked
from storage import NotFound

State = Literal["whole", "garbled", "gone", "unreadable"]
"""`unreadable`: the store, which answers otherwise, does not give these bytes. That may pass, so it proves nothing."""

_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a copy; `why` is empty where it is whole."""

    state: State
    why: str = ""


class Throttle:
    """Keeps what several tasks read together below `rate` bytes a second; None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = time.monotonic()

    async def took(self, size: int) -> None:
        """Waits as long as these bytes should have taken."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now) + size / self._rate
        await asyncio.sleep(self._due - now)


class Hashing:
    """Hashes copies, a few at once. `read` counts bytes."""

    def __init__(self, bucket: Bucket, rate: float | None = None) -> None:
        """`rate` in bytes a second, of all copies together."""
        self.read = 0
        self._bucket = bucket
        self._throttle = Throttle(rate)
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def verdict(self, digest: Digest, copy: Copy) -> Verdict:
        """Whether the bytes of a copy are what its links say. What is not right is read a second time before that is said.

        Raises StorageError where the store as a whole fails.
        """
        async with self._places:
            found = await self._look(digest, copy)
            return found if found.state == "whole" else await self._look(digest, copy)

    async def _look(self, digest: Digest, copy: Copy) -> Verdict:
        key = keys.data(copy.uuid)
        try:
            weighed = await self.weighed(copy)
            if weighed.state != "whole":
                return weighed
            actual = await asked(self._bucket, lambda: self._digest(key, algorithm_of(digest)))
        except NotFound:
            return Verdict("gone", f"{key} is not there")
        except Withheld as exc:
            return Verdict("unreadable", f"the store does not give {key}: {exc}")
        return Verdict("whole") if actual == digest else Verdict("garbled", f"{key} hashes to {actual}")

    async def _digest(self, key: str, algorithm: str) -> Digest:
        running = StreamHash(algorithm)
        async with self._bucket.driver.open(key) as reader:
            async for chunk in reader:
                await running.update(chunk)
                self.read += len(chunk)
                await self._throttle.took(len(chunk))
        return await running.digest()

    async def weighed(self, copy: Copy) -> Verdict:
        """As `verdict`, by the size alone, for one request."""
        key = keys.data(copy.uuid)
        try:
            size = (await asked(self._bucket, lambda: self._bucket.driver.stat(key))).size
        except NotFound:
            return Verdict("gone", f"{key} is not there")
        except Withheld as exc:
            return Verdict("unreadable", f"the store does not give {key}: {exc}")
        return Verdict("whole") if size == copy.size else Verdict("garbled", f"{key} has {size} bytes, not {copy.size}")
