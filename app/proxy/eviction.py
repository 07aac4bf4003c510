"""Eviction: keeps what is cached of one upstream below its size, the least recently pulled manifests going first.

What goes is a manifest, then the blobs that no other manifest needs. A blob that only evicted repositories link goes with its
bytes, at once and by the collector's protocol (app/registry/collection.py): nobody waits two days for a push that a
cache does not get. Where another repository links it, our link alone goes (app/registry/deletion.py). So neither a push nor
another repository can lose anything; at worst a cached image is fetched again. Every step leaves a bucket from which the
next run goes on: links whose manifest has gone and keys that speak of one are found again.

What was pulled within minutes stays, as its client is still fetching what it names; but only up to a tenth above the
limit: then the least recently pulled goes however recent that is.

What was pushed below this prefix before the upstream was configured is told by its tags: the proxy writes `writer` into
its own, or nothing. A repository with a tag by anybody else, or with manifests but neither a tag nor a noted pull, is left.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from app.oci.digests import Digest
from app.oci.errors import ManifestUnknown
from app.oci.names import Name
from app.proxy.clearing import Clearing, Loose
from app.proxy.pulls import Pulls
from app.proxy.shelf import Shelf, shelves
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.manifests import Manifests
from storage import NotFound

RECENT: Final = 600.0
"""Seconds after a pull in which a manifest stays: its client is still fetching what it names."""
SETTLED: Final = 3600.0
"""Seconds after which a link that no manifest names belongs to nobody, and a key about a missing manifest is left over."""
_TARGET: Final = 0.9
"""The part of the limit down to which is evicted, so that not every pull evicts."""
_PRESSED: Final = 1.1
"""The part of the limit above which recent pulls keep nothing."""
_GROUP: Final = 16
"""Manifests whose blobs go together."""

_Candidate = tuple[Shelf, Digest]
"""A manifest, and where it is."""

Reason = Literal["pinned", "recent", "in flight", "children stay", "pushed", "unreadable", "needed"]


@dataclass(slots=True)
class Report:
    """What one run did. `before` and `after` are linked bytes: distinct copies of blobs, and manifests."""

    upstream: str
    before: int
    after: int
    manifests: int = 0
    """Manifests deleted."""
    links: int = 0
    """Links deleted."""
    kept: Counter[Reason] = field(default_factory=Counter)
    """Manifests that stayed, by why; `needed` counts blobs, which a running push or a new manifest names."""
    offline: bool = False
    """Nothing more was evicted because it could not have been fetched again."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What tells cached content, and its use."""

    pulls: Pulls | None = None
    """This process's pulls, which it knows exactly; those of others are known to within an hour."""
    writer: str | None = None
    """What the proxy writes into its tags as `by`."""
    recent: float = RECENT
    """Seconds after a pull in which a manifest stays."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""


class Evictor:
    """Keeps one upstream's repositories, those below `prefix`, at `max_bytes` linked bytes or less."""

    def __init__(
        self,
        bucket: Bucket,
        upstream: str,
        prefix: str,
        max_bytes: int,
        *,
        pinned: Callable[[], Awaitable[Collection[tuple[Name, Digest]]]],
        busy: Callable[[], Collection[Digest]],
        reachable: Callable[[], bool],
        evicted: Callable[[int], None],
        signs: Signs | None = None,
    ) -> None:
        """`busy`: blobs in flight; `reachable`: whether all could be fetched again now; `evicted` is told the bytes freed."""
        self._bucket = bucket
        self._upstream = upstream
        self._prefix = prefix
        self.max_bytes = max_bytes
        self._pinned = pinned
        self._busy = busy
        self._reachable = reachable
        self._evicted = evicted
        self._signs = signs or Signs()

    @translated
    async def run(self) -> Report:
        """One look, and what it takes to be below the limit. Safe to cancel, to repeat and to run twice at once.

        The look is one listing of the cache: 100 pages for 100,000 keys. Above the limit, one read for each manifest that
        memory does not have and for each tag is added, then some ten requests for each link that goes. Raises Unavailable
        where the store fails; what was done until then stays done.
        """
        before = await self._measure()
        if before <= self.max_bytes:
            return Report(self._upstream, before, before)
        if not self._reachable():
            return Report(self._upstream, before, before, offline=True)
        found = [shelf async for shelf in shelves(self._bucket.driver, self._prefix)]
        round_ = _Round(self._bucket, found, self._upstream, self._now())
        candidates = await self._candidates(round_)
        for shelf in round_.shelves:
            await self._sweep(round_, shelf)
        recent = await self._evict_down(round_, candidates, self.max_bytes * _TARGET)
        if round_.report.after > self.max_bytes * _PRESSED:
            round_.pressed = True
            del round_.report.kept["recent"], round_.report.kept["children stay"]
            await self._evict_down(round_, recent, self.max_bytes)
        return round_.report

    async def _measure(self) -> int:
        """Linked bytes. Nothing but the names of copies is kept in memory: most looks end here."""
        seen: set[str] = set()
        size = 0
        async for shelf in shelves(self._bucket.driver, self._prefix):
            size += shelf.manifest_bytes()
            for copy in shelf.copies():
                if copy.uuid not in seen:
                    seen.add(copy.uuid)
                    size += copy.size
        return size

    async def _candidates(self, round_: "_Round") -> Sequence[tuple[Shelf, Digest]]:
        """Every manifest that may go, the least recently pulled first, and what it names before itself."""
        pinned: dict[Name, list[Digest]] = {}
        for name, digest in await self._pinned():
            pinned.setdefault(name, []).append(digest)
        found: list[tuple[float, Name, int, Shelf, Digest]] = []
        open_: list[Shelf] = []
        for shelf in round_.shelves:
            reason = await self._untouchable(shelf)
            if reason:
                round_.report.kept[reason] += len(shelf.manifests)
                continue
            open_.append(shelf)
            pins = shelf.closure(pinned.get(shelf.name, ()))
            if pins:
                round_.report.kept["pinned"] += len(pins)
            used: dict[Digest, float] = {}
            for rank, digest in enumerate(shelf.named):  # children first: an index is used whenever one of them is
                used[digest] = max([shelf.used(digest), *(used[child] for child in shelf.children(digest))])
                if digest not in pins:
                    found.append((used[digest], shelf.name, rank, shelf, digest))
        round_.shelves = open_
        return [(shelf, digest) for *_, shelf, digest in sorted(found, key=lambda item: item[:3])]

    async def _untouchable(self, shelf: Shelf) -> Reason | None:
        """Why a whole repository is left alone, if it is."""
        writers = await shelf.writers(self._bucket)
        if writers - {self._signs.writer} or (shelf.manifests and not shelf.tags and not shelf.pulls):
            return "pushed"
        return None if await shelf.read(self._bucket) else "unreadable"

    async def _evict_down(self, round_: "_Round", candidates: Sequence[_Candidate], target: float) -> list[_Candidate]:
        """Evicts in this order until no more than `target` bytes are linked; returns what was too recent for it."""
        recent: list[_Candidate] = []
        loosened: list[Loose] = []
        for count, (shelf, digest) in enumerate(candidates):
            if count % _GROUP == 0 or round_.report.after - round_.clearing.weight(loosened) <= target:
                await self._unlink(round_, loosened)
                loosened = []
            if round_.report.after <= target or not self._may(round_):
                break
            reason = await self._reason(round_, shelf, digest)
            if reason:
                round_.keep(reason)
            else:
                loosened += await self._evict(round_, shelf, digest)
            if reason in ("recent", "children stay"):
                recent.append((shelf, digest))
        await self._unlink(round_, loosened)
        return recent

    async def _reason(self, round_: "_Round", shelf: Shelf, digest: Digest) -> Reason | None:
        """Why a manifest stays, if it does."""
        if shelf.children(digest):
            return "children stay"
        busy = frozenset(self._busy())
        if digest in busy or not busy.isdisjoint(shelf.named[digest]):
            return "in flight"
        if not round_.pressed and await self._is_recent(shelf, digest):
            return "recent"
        new = await shelf.new_writers(self._bucket)  # somebody may have pushed here since the look, which takes minutes
        return "pushed" if new - {self._signs.writer} else None

    async def _is_recent(self, shelf: Shelf, digest: Digest) -> bool:
        """Whether it was pulled, or a blob of it arrived, just now. Asks again, for the listing may be minutes old."""
        since = pulls.since(shelf.name, digest) if (pulls := self._signs.pulls) else None
        if since is not None and since < self._signs.recent:
            return True
        oldest = self._now() - self._signs.recent
        if shelf.used(digest) > oldest or any(shelf.arrived(blob) > oldest for blob in shelf.named[digest]):
            return True
        try:
            return (await self._bucket.driver.stat(keys.pull(shelf.name, digest))).modified > oldest
        except NotFound:
            return False

    async def _evict(self, round_: "_Round", shelf: Shelf, digest: Digest) -> list[Loose]:
        """The manifest, then its pull; returns the blobs that it alone needed. A crash leaves what the next run finds."""
        try:
            await Manifests(self._bucket, shelf.name).delete(digest)
        except ManifestUnknown:
            pass  # another replica was faster; the links may still be ours to delete
        else:
            round_.report.manifests += 1
        if digest in shelf.pulls:
            await self._bucket.driver.delete(keys.pull(shelf.name, digest))
        self._count(round_, sum(entry.size for entry, _ in shelf.manifests[digest]))
        return [(shelf, blob, [copy for copy, _ in shelf.links[blob]]) for blob in shelf.take(digest)]

    async def _sweep(self, round_: "_Round", shelf: Shelf) -> None:
        """What earlier runs, and transfers that were never pulled, have left."""
        if not self._may(round_):
            return
        oldest = self._now() - SETTLED
        aged = [(blob, [copy for copy, modified in shelf.links[blob] if modified < oldest]) for blob in shelf.loose()]
        await self._unlink(round_, [(shelf, blob, copies) for blob, copies in aged if copies])
        leftovers = shelf.leftovers(oldest)
        if leftovers:
            await self._bucket.driver.delete_many(leftovers)

    async def _unlink(self, round_: "_Round", loosened: Sequence[Loose]) -> None:
        """Takes blobs out of their repositories."""
        busy = frozenset(self._busy())
        free = [loose for loose in loosened if loose[1] not in busy]
        round_.keep("in flight", len(loosened) - len(free))
        cleared = await round_.clearing.clear(free)
        round_.keep("needed", cleared.needed)
        round_.report.links += cleared.links
        self._count(round_, cleared.freed)

    def _may(self, round_: "_Round") -> bool:
        """Whether what goes now can be fetched again."""
        round_.report.offline = not self._reachable()
        return not round_.report.offline

    def _count(self, round_: "_Round", freed: int) -> None:
        round_.report.after -= freed
        if freed:
            self._evicted(freed)

    def _now(self) -> float:
        """Seconds since 1970 by the store's clock, as far as the probe at start could tell."""
        return self._signs.clock() - self._bucket.capabilities.clock_skew


class _Round:
    """One run above the limit. When it is `pressed`, recent pulls keep nothing."""

    def __init__(self, bucket: Bucket, found: Sequence[Shelf], upstream: str, now: float) -> None:
        self.shelves = found
        self.clearing = Clearing(bucket, found, now)
        self.pressed = False
        size = sum({copy.uuid: copy.size for shelf in found for copy in shelf.copies()}.values())
        size += sum(shelf.manifest_bytes() for shelf in found)
        self.report = Report(upstream, size, size)

    def keep(self, reason: Reason, count: int = 1) -> None:
        """Notes what stays."""
        if count:
            self.report.kept[reason] += count
