"""When caches are looked at: every while, and as soon as much came since the last look."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from app.oci.errors import RegistryError
from app.proxy.eviction import Evictor
from app.proxy.transfers import Note
from app.registry import keys
from app.registry.leases import Leases, Other
from storage import StorageError

_EVICTION: Final = f"{keys.LEASES}eviction"
_MUCH: Final = 0.05
"""The part of a cache's limit whose coming is reason to look."""
_AGAIN: Final = 1.0
"""Seconds after which a replica looks again that found another one looking."""
_SOON: Final = 5.0
"""Seconds after which a look is repeated that found blobs on their way, or about to be needed, or failed; then doubled."""
_DOUBLED: Final = 10
"""How often that is doubled at most: what fails for good costs a listing every hour and a half, or interval."""


class Pressure:
    """The caches of one replica, by the upstream's name; those without a limit are not among them."""

    def __init__(self, evictors: Mapping[str, Evictor], interval: float, leases: Leases, note: Note) -> None:
        """`interval` in seconds."""
        self._evictors = evictors
        self._interval = interval
        self._leases = leases
        self._note = note
        self._come: dict[str, int] = dict.fromkeys(evictors, 0)
        self._much = asyncio.Event()
        self._failures = 0

    def arrived(self, upstream: str, size: int) -> None:
        """A blob of so many bytes was stored here."""
        if upstream in self._come:
            self._come[upstream] += size
            if self._come[upstream] > self._evictors[upstream].max_bytes * _MUCH:
                self._much.set()

    async def run(self) -> None:
        """Looks for ever, at one replica at a time. Cancel it."""
        while self._evictors:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._much.wait()
            hurry = self._much.is_set()
            self._much.clear()
            if not await self._look() and hurry:
                await asyncio.sleep(_AGAIN)  # the other replica listed before this much came
                self._much.set()

    async def _look(self) -> bool:
        """Whether this replica looked."""
        try:
            lease = await self._leases.take(_EVICTION, {})
            if isinstance(lease, Other):
                return False
            async with lease:
                for upstream, evictor in self._evictors.items():
                    self._come[upstream] = 0
                    await self._evict(evictor)
            self._failures = 0
        except (RegistryError, StorageError) as exc:
            self._note("eviction failed", {"error": str(exc)})
            self._look_soon(2**self._failures)
            self._failures = min(self._failures + 1, _DOUBLED)
        return True

    def _look_soon(self, times: int = 1) -> None:
        asyncio.get_running_loop().call_later(min(_SOON * times, self._interval), self._much.set)

    async def _evict(self, evictor: Evictor) -> None:
        found = await evictor.run()
        if found.after > evictor.max_bytes and (found.kept["in flight"] or found.kept["needed"]):
            self._look_soon()
        if found.manifests or found.links or found.offline:
            fields = {"upstream": found.upstream, "before": found.before, "after": found.after}
            self._note("evicted", fields | {"manifests": found.manifests, "offline": found.offline})
