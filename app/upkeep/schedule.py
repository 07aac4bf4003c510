"""When servers look after their store: once an interval, whichever replica comes first."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.clock import store_now
from app.registry.leases import Leases, Other

_LONGEST_PAUSE: Final = 600.0
"""Seconds between two looks at whether it is time."""

Note = Callable[[str, Mapping[str, Any]], None]
"""Writes one log line: the event and its fields."""


class Duty(Protocol):
    """What is done once an interval; `interval` in seconds, 0 for never. Its lease has its `name`."""

    name: str
    interval: float

    async def last(self) -> float | None:
        """When it was last done by anybody, by the store's clock; None where never. Raises StorageError."""

    async def work(self) -> None:
        """Does it, and says what came of it. Raises StorageError and others where it could not be done."""

    async def close(self) -> None:
        """Called once, at the end."""


class Schedule:
    """One replica's, of one duty. What is due is told by the bucket, so that restarts neither hurry nor delay it."""

    def __init__(self, bucket: Bucket, leases: Leases, note: Note, duty: Duty) -> None:
        self._bucket = bucket
        self._leases = leases
        self._note = note
        self._duty = duty
        self._rests_until = 0.0
        """By the monotonic clock: where work failed and the bucket does not say so, nobody hurries to fail again."""

    async def run(self) -> None:
        """Does it for ever. Cancel it."""
        if not self._duty.interval:
            return
        try:
            while True:
                interval = self._duty.interval * random.uniform(0.95, 1.05)  # noqa: S311  (jitter)
                await asyncio.sleep(min(interval / 8, _LONGEST_PAUSE) * random.uniform(0.5, 1.5))  # noqa: S311
                try:
                    await self.turn(interval)
                except Exception as exc:  # noqa: BLE001  (a main loop: one failure must not end it)
                    self._note("upkeep failed", {"duty": self._duty.name, "error": str(exc) or repr(exc)})
        finally:
            await asyncio.shield(self._duty.close())

    async def turn(self, interval: float) -> None:
        """Does it where it is time and nobody else does. The lease is a courtesy: two may do it at once. After it failed here,
        it is left alone here for an interval.

        Raises StorageError, and what the duty raises.
        """
        if not await self._is_due(interval) or time.monotonic() < self._rests_until:
            return
        lease = await self._leases.take(f"{keys.LEASES}{self._duty.name}", {})
        if isinstance(lease, Other):
            return
        async with lease:
            if await self._is_due(interval):
                self._rests_until = time.monotonic() + interval
                await self._duty.work()
                self._rests_until = 0.0

    async def _is_due(self, interval: float) -> bool:
        last = await self._duty.last()
        return last is None or await store_now(self._bucket.driver) - last >= interval
