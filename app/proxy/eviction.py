"""Eviction: keeps what is cached of one upstream below its size, the least recently pulled manifests going first.

What goes is a manifest, then the links that no other manifest of its repository names, each by the protocol by which a
client's DELETE of a blob goes (app/registry/deletion.py), so that neither a push nor another repository can lose anything;
at worst a cached image is fetched again. The bytes are the collector's. Every step leaves a bucket from which the next run
goes on: links whose manifest has gone and keys that speak of one are found again.

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
from app.proxy.pulls import Pulls
from app.proxy.shelf import Shelf, shelves
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.deletion import delete_links
from app.registry.failures import translated
from app.registry.keys import Copy
from app.registry.manifests import Manifests
from storage import NotFound

RECENT: Final = 600.0
"""Seconds after a pull in which a manifest stays: its client is still fetching what it names."""
SETTLED: Final = 3600.0
"""Seconds after which a link that no manifest names belongs to nobody, and a key about a missing manifest is left over."""
_TARGET: Final = 0.9
"""The part of the limit down to which is evicted, so that not every pull evicts."""

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
        self._max_bytes = max_bytes
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
        if before <= self._max_bytes:
            return Report(self._upstream, before, before)
        if not self._reachable():
            return Report(self._upstream, before, before, offline=True)
        round_ = _Round([shelf async for shelf in shelves(self._bucket.driver, self._prefix)], self._upstream)
        candidates = await self._candidates(round_)
        for shelf in round_.shelves:
            await self._sweep(round_, shelf)
        for shelf, digest in candidates:
            if round_.report.after <= self._max_bytes * _TARGET or not self._may(round_):
                break
            reason = await self._reason(shelf, digest)
            if reason:
                round_.report.kept[reason] += 1
            else:
                await self._evict(round_, shelf, digest)
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

    async def _reason(self, shelf: Shelf, digest: Digest) -> Reason | None:
        """Why a manifest stays, if it does."""
        if shelf.children(digest):
            return "children stay"
        busy = frozenset(self._busy())
        if digest in busy or not busy.isdisjoint(shelf.named[digest]):
            return "in flight"
        return "recent" if await self._is_recent(shelf, digest) else None

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

    async def _evict(self, round_: "_Round", shelf: Shelf, digest: Digest) -> None:
        """The manifest, then the links that it alone needed, then its pull: the next run finds what a crash leaves."""
        try:
            await Manifests(self._bucket, shelf.name).delete(digest)
        except ManifestUnknown:
            pass  # another replica was faster; the links may still be ours to delete
        else:
            round_.report.manifests += 1
        freed = sum(entry.size for entry, _ in shelf.manifests[digest])
        for blob in shelf.take(digest):
            freed += await self._unlink(round_, shelf, blob, [copy for copy, _ in shelf.links[blob]])
        if digest in shelf.pulls:
            await self._bucket.driver.delete(keys.pull(shelf.name, digest))
        self._count(round_, freed)

    async def _sweep(self, round_: "_Round", shelf: Shelf) -> None:
        """What earlier runs, and transfers that were never pulled, have left."""
        if not self._may(round_):
            return
        oldest = self._now() - SETTLED
        freed = 0
        for blob in shelf.loose():
            copies = [copy for copy, modified in shelf.links[blob] if modified < oldest]
            if copies and self._may(round_):
                freed += await self._unlink(round_, shelf, blob, copies)
        leftovers = shelf.leftovers(oldest)
        if leftovers:
            await self._bucket.driver.delete_many(leftovers)
        self._count(round_, freed)

    async def _unlink(self, round_: "_Round", shelf: Shelf, blob: Digest, copies: Sequence[Copy]) -> int:
        """Takes links away; returns the bytes that no cached repository links any more."""
        if blob in self._busy():
            round_.report.kept["in flight"] += 1
            return 0
        if not await delete_links(self._bucket, shelf.name, blob, copies):
            round_.report.kept["needed"] += 1
            return 0
        round_.report.links += len(copies)
        shelf.unlink(blob, copies)
        return sum(round_.release(copy) for copy in copies)

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
    """One run above the limit: what is cached, and how many cached repositories link each copy."""

    def __init__(self, found: Sequence[Shelf], upstream: str) -> None:
        self.shelves = found
        copies = [copy for shelf in found for copy in shelf.copies()]
        self._linking = Counter(copy.uuid for copy in copies)
        size = sum({copy.uuid: copy.size for copy in copies}.values())
        size += sum(shelf.manifest_bytes() for shelf in found)
        self.report = Report(upstream, size, size)

    def release(self, copy: Copy) -> int:
        """One link of a copy is gone; returns its bytes when that was the last."""
        self._linking[copy.uuid] -= 1
        return 0 if self._linking[copy.uuid] else copy.size
