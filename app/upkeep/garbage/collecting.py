"""Collecting garbage as servers do it by themselves."""

from typing import Final

from app.registry.bucket import Bucket
from app.registry.collection import why_off
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.garbage import reports
from app.upkeep.garbage.garbage import Garbage, Order
from app.upkeep.garbage.reports import Report
from app.upkeep.schedule import Note
from app.upkeep.settings import UpkeepSettings

_FAILED: Final = "failed"
"""What is told to have stopped a collection where the store, or this machine, did."""


class Collecting:
    """A duty (upkeep/schedule.py). Where collection is off it is never done: that was said when the store was tried."""

    name = "garbage"

    def __init__(self, bucket: Bucket, settings: UpkeepSettings, metrics: UpkeepMetrics, note: Note) -> None:
        self.interval = 0.0 if why_off(bucket.capabilities) else settings.interval
        self._bucket = bucket
        self._max_share = settings.max_share
        self._metrics = metrics
        self._note = note
        self._garbage = Garbage(bucket, settings)
        metrics.expect_stops([*reports.CAUSES, _FAILED])

    async def last(self) -> float | None:
        """See Duty. A collection that was stopped counts: nobody hurries to be stopped again."""
        last, done = await reports.last_kept(self._bucket), await reports.last_done(self._bucket)
        if done is not None:
            self._metrics.last_collected(done.at)
        if last is None:
            return None
        state = last.document.get("state")
        self._metrics.last_ended(_FAILED if state == "failed" else str(last.document.get("cause") or ""))
        return last.at

    async def work(self) -> None:
        """See Duty."""
        self._tell(await self._garbage.collect(Order(self._max_share)))
        await self.last()

    async def close(self) -> None:
        """See Duty."""
        await self._garbage.close()

    def _tell(self, report: Report) -> None:
        gone = {kind: found.count for kind, found in report.gone.items() if found.count}
        self._metrics.collected(report.state, report.cause, report.seconds, report.freed, gone)
        fields = {"state": report.state, "freed": report.freed, "seconds": report.seconds, "objects": report.objects}
        trouble = {"error": report.reason} if report.state != "done" else {}
        self._note("garbage collected", fields | gone | trouble)
