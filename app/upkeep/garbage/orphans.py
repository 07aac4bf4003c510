"""Bytes that nothing links: suspected in one cycle, and deleted a grace period later where nothing links them still.

How old such bytes look says nothing, because some stores date an object by the start of its upload. So each cycle writes
down which it found, and only what an earlier cycle wrote down, at least a grace period ago, may go: by then no upload can
link it any more. A mount still could, from a link that a listing has missed while links came and went; so those that may
go get a tombstone first, and then every repository is listed: once it is there, links to them can only vanish.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.clock import store_now
from app.registry.collection import AT_ONCE
from app.registry.intents import Intents
from app.registry.keys import Copy
from app.registry.listing import every
from app.upkeep.garbage.packing import uuid_in
from app.upkeep.garbage.survey import Survey
from storage import Entry as Listed, FenceExpired, NotFound

KIND: Final = "unlinked"
"""Where the lists lie, among the reports."""
_BATCH: Final = 500
_LISTS: Final = 10
"""Lists within a grace period, at most."""


class Orphans:
    """Bytes without a link, in one cycle."""

    def __init__(self, bucket: Bucket, intents: Intents) -> None:
        self._bucket = bucket
        self._intents = intents
        self._doomed_at: float | None = None

    async def doom(self, survey: Survey, *, dry_run: bool) -> None:
        """Before the survey runs: marks what was suspected a grace period ago, and is suspected still.

        Costs two requests for each, beside two lists. Raises StorageError.
        """
        lists = await self._lists()
        old = [found for found in lists if found.modified <= survey.now - self._bucket.lifetimes.grace]
        if not old:
            return
        self._doomed_at = survey.now
        latest = self._uuids(lists[-1].key)
        async for uuids in _common(self._uuids(old[-1].key), latest):
            copies = [Copy(uuid, 0) for uuid in uuids]
            if not dry_run:
                self._doomed_at = min(self._doomed_at, await self._bury(copies, survey.now))
            intended = await self._intents.naming(copies)
            await survey.off_loop(survey.join.doom, [copy.uuid for copy in copies if copy not in intended])

    async def delete(self, uuids: Sequence[str]) -> None:
        """Deletes bytes that the survey saw no link to.

        Raises FenceExpired, also where their tombstones may end before that is done, and StorageError.
        """
        fence = self._bucket.driver.fence()
        lives = self._bucket.lifetimes
        now = await store_now(self._bucket.driver)
        if self._doomed_at is None or now + 2 * lives.fence >= self._doomed_at + lives.tombstone:
            raise FenceExpired("tombstones may end before the deletes do")
        await self._bucket.driver.delete_many([keys.data(uuid) for uuid in uuids], fence=fence)

    async def suspect(self, survey: Survey) -> None:
        """Writes down what nothing links now, unless that was done a moment ago, and drops lists that are of no use.

        Raises StorageError.
        """
        lists, grace = await self._lists(), self._bucket.lifetimes.grace
        now = await store_now(self._bucket.driver)
        old = [found.key for found in lists if found.modified <= survey.now - grace]
        await self._bucket.driver.delete_many(old[:-1])
        if lists and lists[-1].modified > now - grace / _LISTS:
            return
        writer = self._bucket.driver.create(keys.report(KIND, now), keys.upload(keys.fresh()))
        try:
            async for page in survey.rows("SELECT uuid FROM unlinked ORDER BY uuid"):
                await writer.write("".join(f"{uuid_in(row[0])}\n" for row in page).encode())
            await writer.commit()
        except BaseException:
            await writer.abort()
            raise

    async def _bury(self, copies: Sequence[Copy], now: float) -> float:
        """Writes a tombstone where none is that has half its life before it; returns when the oldest was written, or `now`."""
        fence = self._bucket.driver.fence()
        oldest = now - self._bucket.lifetimes.tombstone / 2

        async def bury(copy: Copy) -> float:
            listed = [entry async for entry in every(self._bucket.driver, keys.tombstones(copy))]
            times = [entry.modified for entry in listed if keys.buried(entry.key)[1] == keys.EVERYWHERE]
            if max(times, default=oldest) > oldest:
                return max(times)
            await self._bucket.driver.put(keys.tombstone(copy, keys.EVERYWHERE), b"", fence=fence)
            return now

        return min(now, *await side_by_side(bury, copies, most=AT_ONCE))

    async def _lists(self) -> list[Listed]:
        """Every list, the oldest first."""
        found = [entry async for entry in every(self._bucket.driver, keys.reports(KIND))]
        return sorted(found, key=lambda entry: (entry.modified, entry.key))

    async def _uuids(self, key: str) -> AsyncGenerator[str, None]:
        """The lines of a list, as they come."""
        rest = b""
        try:
            async with self._bucket.driver.open(key) as reader:
                async for chunk in reader:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line.decode()
        except NotFound:
            return  # another collector dropped it


async def _common(
    first: AsyncGenerator[str, None], second: AsyncGenerator[str, None]
) -> AsyncGenerator[list[str], None]:
    """What both have, which are in order, some hundreds at a time."""
    found: list[str] = []
    async with aclosing(first), aclosing(second):
        other = await anext(second, None)
        async for uuid in first:
            while other is not None and other < uuid:
                other = await anext(second, None)
            if other == uuid:
                found.append(uuid)
            if len(found) == _BATCH:
                yield found
                found = []
    if found:
        yield found
