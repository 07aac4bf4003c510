"""One collection of garbage, online: survey, collect, sweep, report. Any replica, any time, several at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from app.oci.errors import RegistryError
from app.quantities import size_text
from app.registry.bucket import Bucket
from app.registry.clock import store_now
from app.registry.collection import Candidate, CollectionOff, Collector, Terms, why_off
from app.registry.intents import Intents
from app.registry.needs import Unreadable
from app.upkeep.errors import NoScratch
from app.upkeep.garbage import reports
from app.upkeep.garbage.join import Sums
from app.upkeep.garbage.named import NamedDigests
from app.upkeep.garbage.orphans import Orphans
from app.upkeep.garbage.packing import uuid_in
from app.upkeep.garbage.reports import Report
from app.upkeep.garbage.survey import Survey, SurveyedNeeds, Watch
from app.upkeep.garbage.sweep import Sweep
from app.upkeep.garbage.unlisted import Unlisted
from app.upkeep.settings import UpkeepSettings
from storage import FenceExpired, StorageError

FLOOR: Final = 256 << 20
"""Bytes that may always go: a small store is not stopped for its share."""
_FIRST_BATCH: Final = 32
_BATCH: Final = 500
_LATE: Final = 5
"""Batches in a row that may be too slow for their fence."""
_EXPIRING: Final = ("intents", "tombstones", "leases", "probes")
"""Kinds that go by their age alone, whatever else is found."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. `max_share` of all bytes may go; a dry run changes nothing."""

    max_share: float
    dry_run: bool = False
    watch: Watch = lambda _title, _done, _total: None


class Garbage:
    """Collections of one bucket; what manifests name is remembered between them. Close it."""

    def __init__(self, bucket: Bucket, settings: UpkeepSettings) -> None:
        self._bucket = bucket
        self._named = NamedDigests(settings.cache)
        # One for all collections: each new one would take memory of its own from the system, and keep it.
        self._thread = ThreadPoolExecutor(1, "garbage")

    async def close(self) -> None:
        """Forgets what was remembered, unless it has a folder."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._named.close)
        self._thread.shutdown(wait=False)

    async def collect(self, order: Order) -> Report:
        """One collection; its report lies in the bucket, unless it was a dry run. Raises StorageError where even that fails.

        It can be cancelled, killed and repeated at any time.
        """
        began = time.monotonic()
        report = Report(await store_now(self._bucket.driver), order.dry_run)
        try:
            survey = Survey(self._bucket, self._named, self._thread, report.began, order.watch)
            await _Cycle(self._bucket, survey, order, report).run()
        except CollectionOff as exc:
            report.stop("off", exc.message)
        except Unreadable as exc:
            report.unreadable.append(f"{exc.name}@{exc.digest}")
            report.stop("unreadable", exc.message)
        except RegistryError as exc:
            report.stop("refused", exc.message)
        except StorageError as exc:
            report.fail(f"the store failed: {exc}")
        except NoScratch as exc:
            report.fail(str(exc))
        report.seconds = round(time.monotonic() - began, 3)
        if not order.dry_run:
            await reports.keep(self._bucket, report)
        return report


class _Cycle:
    def __init__(self, bucket: Bucket, survey: Survey, order: Order, report: Report) -> None:
        self._bucket = bucket
        self._order = order
        self._report = report
        self._intents = Intents(bucket)
        self._orphans = Orphans(bucket, self._intents)
        self._sweep = Sweep(bucket, self._intents)
        self._survey = survey

    async def run(self) -> None:
        """Raises RegistryError, StorageError; what went until then stays noted."""
        if why := why_off(self._bucket.capabilities):
            raise CollectionOff(why)
        async with self._survey as survey:
            await self._sweep.find(survey)
            for kind in _EXPIRING:  # also where the rest is stopped: what stopped collections leave must not pile up
                await self._sweep_away(kind)
            await self._orphans.doom(survey, dry_run=self._order.dry_run)
            await survey.run()
            wanted = await self._sums()
            await Unlisted(self._bucket, survey).learn()
            if survey.unreadable:
                self._report.unreadable = [f"{one.name}@{one.digest}" for one in survey.unreadable]
                self._report.stop("unreadable", survey.unreadable[0].message)
            elif self._is_too_much(wanted):
                most = f"{self._order.max_share:.0%} of {size_text(self._report.bytes)}"
                reason = f"{size_text(wanted)} would go, more than {most}: nothing is deleted unless that is allowed"
                self._report.stop("max_share", reason)
            else:
                await self._delete()
                await self._note_suspects()

    async def _sums(self) -> int:
        """What there is and what would go, in the report; returns the latter's bytes."""
        join, report, survey = self._survey.join, self._report, self._survey
        lives = self._bucket.lifetimes
        self._copies: Sums = await survey.off_loop(join.choose, report.began - lives.grace - 2 * lives.fence)
        orphans: Sums = await survey.off_loop(join.orphans)
        report.loose_links = await survey.off_loop(join.loose_links)
        report.objects, report.blobs, report.bytes = survey.listed, join.bytes.count, join.bytes.size
        report.wanted = self._copies.size + orphans.size
        return report.wanted

    def _is_too_much(self, wanted: int) -> bool:
        return wanted > FLOOR and wanted > self._order.max_share * self._report.bytes

    async def _delete(self) -> None:
        await self._collect_copies()
        await self._collect_orphans()
        await self._collect_holders()
        await self._sweep_away("referrers")
        async for things in self._garbage("uploads"):
            if not self._order.dry_run:
                await self._sweep.uploads(things)
            self._report.lose("uploads", things)

    async def _sweep_away(self, kind: str) -> None:
        async for things in self._garbage(kind):
            if not self._order.dry_run:
                await self._sweep.expired(things)
            self._report.lose(kind, things)

    async def _collect_copies(self) -> None:
        """By the collector's protocol, in batches that end well within their fence."""
        terms = Terms(settled=self._report.began - self._bucket.lifetimes.grace)
        collector = Collector(self._bucket, self._intents, SurveyedNeeds(self._bucket, self._survey), terms)
        pace, after, done = _Pace(self._bucket.lifetimes.fence), -1, 0
        while True:
            batch, following = await self._survey.off_loop(self._survey.join.candidates, pace.size, after)
            if following == -1:
                return
            try:
                with pace:
                    await self._collect_batch(collector, batch)
            except FenceExpired:
                continue  # a smaller one, from the same place
            after, done = following, done + len(batch)
            self._order.watch("collecting", done, self._copies.count)

    async def _collect_batch(self, collector: Collector, batch: Sequence[Candidate]) -> None:
        gone = [candidate.copy for candidate in batch]
        if not self._order.dry_run:
            verdicts = await collector.collect(batch)
            gone = [copy for copy in gone if verdicts[copy] == "collected"]
            for verdict in verdicts.values():
                if verdict != "collected":
                    self._report.keep(verdict)
        names = {candidate.copy: candidate.digest for candidate in batch}
        sizes = [(names[copy], 0 if copy.adopted else copy.size) for copy in gone]
        self._report.lose("copies", sizes)

    async def _collect_orphans(self) -> None:
        question = "SELECT uuid, size FROM unlinked JOIN doomed USING (uuid)"
        async for page in self._survey.rows(question):
            found = [(uuid_in(uuid), size) for uuid, size in page]
            try:
                if not self._order.dry_run:
                    await self._orphans.delete([uuid for uuid, _ in found])
            except FenceExpired:
                self._report.keep("too late to be safe")  # they stay suspect
                return
            self._report.lose("orphans", found)
        if not self._order.dry_run:
            await self._survey.off_loop(self._survey.join.forget_orphans)

    async def _collect_holders(self) -> None:
        async for rows in self._survey.rows("SELECT uuid, size, digest, name FROM loose_holder"):
            if self._order.dry_run:
                self._report.lose("holders", [(str(row[3]), 0) for row in rows])
                continue
            for at in range(0, len(rows), _FIRST_BATCH):
                with suppress(FenceExpired):  # they are found again
                    self._report.lose("holders", await self._sweep.holders(rows[at : at + _FIRST_BATCH]))

    async def _garbage(self, kind: str) -> AsyncIterator[list[tuple[Any, ...]]]:
        async for page in self._survey.rows("SELECT key, size FROM garbage WHERE kind = ?", kind):
            yield page

    async def _note_suspects(self) -> None:
        suspects: Sums = await self._survey.off_loop(self._survey.join.suspects)
        self._report.suspects = reports.Gone(suspects.count, suspects.size)
        if not self._order.dry_run:
            await self._orphans.suspect(self._survey)


class _Pace:
    """How many copies a batch has, so that it takes a small part of its fence. Entered for each batch."""

    def __init__(self, fence: float) -> None:
        """`fence` in seconds."""
        self.size = _FIRST_BATCH
        self._fence = fence
        self._late = 0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        """Raises what the batch raised once too many in a row were late."""
        took = time.monotonic() - self._began
        self._late = self._late + 1 if isinstance(exc, FenceExpired) else 0
        if took > self._fence / 4 or self._late:
            self.size = max(1, self.size // 4)
        elif took < self._fence / 10:
            self.size = min(_BATCH, self.size * 2)
        if self._late > _LATE:
            raise StorageError("the store is too slow to delete anything safely") from exc
