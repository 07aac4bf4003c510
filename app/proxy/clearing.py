"""Clearing: takes blobs out of cached repositories, and their bytes out of the store where nobody else links them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.proxy.shelf import Shelf
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.collection import AT_ONCE, Candidate, Collector, Terms, why_off
from app.registry.deletion import delete_unneeded
from app.registry.intents import Intents
from app.registry.keys import Copy
from app.registry.listing import every
from app.registry.needs import StoredNeeds

_BATCH: Final = 64
"""Blobs that go together, well within a fence."""

Loose = tuple[Shelf, Digest, Sequence[Copy]]
"""A blob that no manifest of its repository names, and the copies that it links."""


@dataclass(slots=True)
class Cleared:
    """Links that went, bytes that no cached repository links any more, and blobs that are needed after all."""

    links: int = 0
    freed: int = 0
    needed: int = 0


class Clearing:
    """One run's. It remembers how many cached repositories link each copy, and what was read of manifests."""

    def __init__(self, bucket: Bucket, shelves: Sequence[Shelf], now: float) -> None:
        """`now` in seconds since 1970 by the store's clock."""
        self._bucket = bucket
        self._settled = now - bucket.lifetimes.grace
        self._shelves = {shelf.name: shelf for shelf in shelves}
        self._linking = Counter(copy.uuid for shelf in shelves for copy in shelf.copies())
        self._intents = Intents(bucket)
        self._needs = StoredNeeds(bucket, self._named_by)

    def weight(self, loosened: Sequence[Loose]) -> int:
        """Bytes that go with these links, if they go."""
        return sum(copy.size for _, _, copies in loosened for copy in copies if self._is_last(copy))

    async def clear(self, loosened: Sequence[Loose]) -> Cleared:
        """A blob that this repository alone links is collected, its bytes at once; else our link goes. Raises StorageError.

        Both by the collector's protocol: what a push or a manifest needs meanwhile stays.
        """
        found = Cleared()
        for at in range(0, len(loosened), _BATCH):
            batch = loosened[at : at + _BATCH]
            collected = await self._collect(batch)
            for name in dict.fromkeys(shelf.name for shelf, _, _ in batch):
                await self._clear(name, [loose for loose in batch if loose[0].name == name], collected, found)
        return found

    async def _clear(self, name: Name, batch: Sequence[Loose], collected: set[Copy], found: Cleared) -> None:
        """What is left of one repository after its copies were collected."""
        rest = {blob: [copy for copy in copies if copy not in collected] for _, blob, copies in batch}
        gone = await self._delete_links(name, {blob: copies for blob, copies in rest.items() if copies})
        for shelf, blob, copies in batch:
            went = [copy for copy in copies if copy in collected or blob in gone]
            shelf.unlink(blob, went)
            found.links += len(went)
            found.needed += len(went) < len(copies)
            found.freed += sum(self._release(copy) for copy in went)

    async def _collect(self, batch: Sequence[Loose]) -> set[Copy]:
        """Collects the copies that nobody else seems to link; returns those that went."""
        last = [
            Candidate(blob, copy, frozenset({shelf.name}))
            for shelf, blob, copies in batch
            for copy in copies
            if self._is_last(copy)
        ]
        if not last or why_off(self._bucket.capabilities):
            return set()
        shared = await side_by_side(self._may_be_linked_elsewhere, last, most=AT_ONCE)
        last = [candidate for candidate, elsewhere in zip(last, shared, strict=True) if not elsewhere]
        collector = Collector(self._bucket, self._intents, self._needs, Terms(only_seen=True))
        return {copy for copy, verdict in (await collector.collect(last)).items() if verdict == "collected"}

    async def _may_be_linked_elsewhere(self, candidate: Candidate) -> bool:
        """Whether another repository's upload may link the copy, or link it again after its DELETE, at any moment.

        It does so without an intent, but not before its derived key is there, nor once that is old.
        (Model: no_young_holder.)
        """
        async for entry in every(self._bucket.driver, keys.holders_of(candidate.digest, candidate.copy)):
            if entry.modified > self._settled and keys.holding(entry.key)[1] not in candidate.names:
                return True
        return False

    async def _delete_links(self, name: Name, links: Mapping[Digest, Sequence[Copy]]) -> set[Digest]:
        return await delete_unneeded(self._bucket, name, links, self._intents, self._needs) if links else set()

    def _is_last(self, copy: Copy) -> bool:
        return self._linking[copy.uuid] == 1

    def _release(self, copy: Copy) -> int:
        """One link of a copy is gone; returns its bytes when that was the last."""
        self._linking[copy.uuid] -= 1
        return 0 if self._linking[copy.uuid] else copy.size

    def _named_by(self, name: Name, digest: Digest) -> Collection[str] | None:
        """What was read of a manifest for this run is not read again."""
        shelf = self._shelves.get(name)
        return None if shelf is None else shelf.named.get(digest)
