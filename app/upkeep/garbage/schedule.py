"""When servers collect garbage: once an interval, whichever replica comes first."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.clock import store_now
from app.registry.collection import why_off
from app.registry.leases import Leases, Other
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.garbage import reports
from app.upkeep.garbage.garbage import Garbage, Order
from app.upkeep.garbage.reports import Report
from app.upkeep.settings import UpkeepSettings
from storage import StorageError

_LEASE: Final = f"{keys.LEASES}garbage"
_LONGEST_PAUSE: Final = 600.0
"""Seconds between two looks at whether it is time."""

Note = Callable[[str, Mapping[str, Any]], None]
"""Writes one log line: the event and its fields."""


class Schedule:
    """One replica's. What is due is told by the last report in the bucket, so that restarts neither hurry nor delay it."""

    def __init__(
        self, bucket: Bucket, settings: UpkeepSettings, leases: Leases, metrics: UpkeepMetrics, note: Note
    ) -> None:
        self._bucket = bucket
        self._settings = settings
        self._leases = leases
        self._metrics = metrics
        self._note = note
        self._garbage = Garbage(bucket, settings)

    async def run(self) -> None:
        """Collects for ever. Cancel it."""
        if not self._settings.interval or why_off(self._bucket.capabilities):
            return  # that collection is off was said when the store was tried
        try:
            while True:
                interval = self._settings.interval * random.uniform(0.95, 1.05)  # noqa: S311  (jitter)
                await asyncio.sleep(min(interval / 8, _LONGEST_PAUSE) * random.uniform(0.5, 1.5))  # noqa: S311
                try:
                    await self._turn(interval)
                except StorageError as exc:
                    self._note("collection of garbage failed", {"error": str(exc)})
        finally:
            await asyncio.shield(self._garbage.close())

    async def _turn(self, interval: float) -> None:
        """Collects where it is time and nobody else does. The lease is a courtesy: two may collect at once."""
        if not await self._is_due(interval):
            return
        lease = await self._leases.take(_LEASE, {})
        if isinstance(lease, Other):
            return
        async with lease:
            if await self._is_due(interval):
                self._tell(await self._garbage.collect(Order(self._settings.max_share)))

    async def _is_due(self, interval: float) -> bool:
        last = await reports.last_time(self._bucket)
        return last is None or await store_now(self._bucket.driver) - last >= interval

    def _tell(self, report: Report) -> None:
        gone = {kind: found.count for kind, found in report.gone.items() if found.count}
        self._metrics.collected(report.state, report.seconds, report.freed, gone)
        fields = {"state": report.state, "freed": report.freed, "seconds": report.seconds, "objects": report.objects}
        trouble = {"error": report.reason} if report.state != "done" else {}
        self._note("garbage collected", fields | gone | trouble)
