"""What goes by its age alone, and derived keys that were left over; one cycle's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.collection import AT_ONCE
from app.registry.intents import Intents
from app.registry.keys import Copy
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.garbage.packing import digest_in, uuid_in
from app.upkeep.garbage.survey import Survey
from storage import Entry as Listed, NotFound

LEASE_LIFE: Final = 3600.0
"""Seconds after which a lease is dead: the living write theirs every few seconds."""

Thing = tuple[str, int]
"""A key and its size in bytes."""


class Sweep:
    """Finds such things while the bucket is surveyed, and deletes them once it is safe to delete anything."""

    def __init__(self, bucket: Bucket, intents: Intents) -> None:
        self._bucket = bucket
        self._intents = intents

    async def find(self, survey: Survey) -> None:
        """Lists uploads and upkeep. Raises StorageError."""
        lives = self._bucket.lifetimes
        await self._old(survey, "intents", keys.INTENTS, lives.intent)
        await self._old(survey, "tombstones", keys.TOMBSTONES, lives.tombstone)
        await self._old(survey, "leases", keys.LEASES, LEASE_LIFE)
        await self._old(survey, "probes", keys.PROBES, lives.grace)
        await self._uploads(survey, survey.now - lives.upload - lives.fence)

    async def expired(self, found: Sequence[Thing]) -> None:
        """Deletes keys that nobody writes again: their names were used once. Raises StorageError. (Model: expiry.)"""
        await self._bucket.driver.delete_many([key for key, _ in found])

    async def uploads(self, found: Sequence[Thing]) -> None:
        """Ends uploads, and what they have half written. Raises StorageError."""
        await side_by_side(lambda thing: self._bucket.driver.discard(thing[0]), found, most=AT_ONCE)

    async def holders(self, rows: Sequence[tuple[bytes | str, int, bytes | str, str]]) -> list[Thing]:
        """Deletes derived keys that have no link, unless one comes meanwhile; returns those that went.

        A mount may be about to write both anew, and a collector must find its link: so this is the protocol by which a
        link goes. Raises FenceExpired, StorageError. (Model: HolderSweeper.)
        """
        driver = self._bucket.driver
        fence = driver.fence()
        places = [_Place(digest_in(digest), Copy(uuid_in(uuid), size), Name(name)) for uuid, size, digest, name in rows]
        places = await self._unlinked(places)
        await side_by_side(
            lambda place: driver.put(keys.tombstone(place.copy, keys.escape(place.name)), b"", fence=fence),
            places,
            most=AT_ONCE,
        )
        places = await self._unlinked(places)
        await driver.delete_many([place.holder for place in places], fence=fence)
        return [(place.holder, 0) for place in places]

    async def _unlinked(self, places: "Sequence[_Place]") -> "list[_Place]":
        intended = await self._intents.naming(place.copy for place in places)
        places = [place for place in places if place.copy not in intended]
        gone = await side_by_side(self._is_gone, [place.link for place in places], most=AT_ONCE)
        return [place for place, is_gone in zip(places, gone, strict=True) if is_gone]

    async def _is_gone(self, key: str) -> bool:
        """Raises StorageError where the store as a whole fails."""
        try:
            await asked(self._bucket, lambda: self._bucket.driver.stat(key))
        except NotFound:
            return True
        except Withheld:
            return False  # it may be there, left out of listings by a disk that lost a few bytes
        return False

    async def _old(self, survey: Survey, kind: str, prefix: str, life: float) -> None:
        async for page in survey.pages(prefix):
            old = [(entry.key, entry.size) for entry in page if entry.modified < survey.now - life]
            await survey.off_loop(survey.join.throw, kind, old)

    async def _uploads(self, survey: Survey, oldest: float) -> None:
        """An upload is as old as the newest of its keys."""
        now: list[Listed] = []
        async for page in survey.pages(keys.UPLOADS):
            old: list[Thing] = []
            for entry in page:
                if now and keys.upload_of(entry.key) != keys.upload_of(now[0].key):
                    old += _abandoned(now, oldest)
                    now = []
                now.append(entry)
            await survey.off_loop(survey.join.throw, "uploads", old)
        if now:
            await survey.off_loop(survey.join.throw, "uploads", _abandoned(now, oldest))


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository that was said to hold a copy."""

    digest: Digest
    copy: Copy
    name: Name

    @property
    def holder(self) -> str:
        """The derived key."""
        return keys.holder(self.digest, self.copy, self.name)

    @property
    def link(self) -> str:
        """What it was derived from."""
        return keys.link(self.name, self.digest, self.copy)


def _abandoned(found: Sequence[Listed], oldest: float) -> list[Thing]:
    if max(entry.modified for entry in found) >= oldest:
        return []
    return [(keys.upload_of(found[0].key), sum(entry.size for entry in found))]
