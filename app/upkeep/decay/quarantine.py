"""Quarantine: bytes that are not what their key says become unreachable, and stay for an operator to look at.

A copy's links go, in every repository, so that its digest answers 404 and clients push or pull it again. Its bytes stay
where they are, with a note below keys.QUARANTINE. The collector's protocol is untouched: a tombstone only ever makes a
publisher use something else, and links to bytes that nobody can use are needed by no manifest.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from typing import Final

from app.oci.digests import Digest, parse_digest
from app.oci.errors import RegistryError
from app.oci.names import Name
from app.registry import keys, tags
from app.registry.bucket import Bucket, side_by_side
from app.registry.intents import Intents
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.registry.publishing import unbind
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.decay.placing import holder
from storage import NotFound

_ROUNDS: Final = 20
_PAUSE: Final = 0.25
"""Seconds between looks at intents: publications take milliseconds."""


class Quarantine:
    """The quarantine of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._intents = Intents(bucket)

    async def take(self, digest: Digest, copy: Copy, names: Collection[Name], state: str, why: str) -> bool:
        """Unlinks a copy whose bytes nobody can use, in these repositories and all that the derived keys name.

        Publications that found it before may link it until they end; this waits a few seconds for them. False where one
        still runs then: the next run finds what it links. Raises StorageError.
        """
        if state != "gone":
            await self._note(digest, copy, names, why)
        await self._unbind(digest, copy, names)
        fence = self._bucket.driver.fence()
        await self._bucket.driver.put(keys.tombstone(copy, keys.EVERYWHERE), b"", fence=fence)
        for _ in range(_ROUNDS):
            running = await self._intended(copy)
            await self._unbind(digest, copy, ())
            if not running:
                return True
            await asyncio.sleep(_PAUSE)
        return False

    async def retire(self, digest: Digest, copy: Copy, names: Collection[Name]) -> None:
        """Unlinks a copy that the store does not give, in repositories that have, or can get, another.

        Its bytes may come back and others may be about to rely on them, so this is how a blob is deleted: tombstones of these
        links, then a look for intents. Where there are any, nothing is done. Raises StorageError.
        """
        fence = self._bucket.driver.fence()
        marks = [keys.tombstone(copy, keys.escape(name)) for name in names]
        await side_by_side(lambda mark: self._bucket.driver.put(mark, b"", fence=fence), marks)
        if not await self._intended(copy):
            await side_by_side(lambda name: unbind(self._bucket, name, digest, copy, fence), names)

    async def take_manifest(self, name: Name, entry: Entry) -> None:
        """Moves a manifest that does not hash to its digest, or is not given, out of the way, so that it can be pushed again.

        Raises StorageError.
        """
        key = keys.manifest(name, entry)
        with suppress(Withheld):
            await asked(self._bucket, lambda: self._bucket.driver.copy(key, keys.quarantined_manifest(entry)))
        await tags.note_deletion(self._bucket, name)
        await self._bucket.driver.delete(key)

    async def noted(self) -> AsyncIterator[tuple[Digest, Copy]]:
        """The copies that were garbled, and what they should hash to. Raises StorageError."""
        async for entry in every(self._bucket.driver, keys.QUARANTINE):
            try:
                fields = json.loads((await self._bucket.driver.get(entry.key)).data)
                copy = Copy(entry.key.removeprefix(keys.QUARANTINE), int(fields["size"]))
                digest = parse_digest(fields["digest"])
            except (NotFound, ValueError, KeyError, TypeError, RecursionError, RegistryError):
                continue  # a manifest, or somebody else's object
            if keys.quarantine(copy) == entry.key:
                yield digest, copy

    async def release(self, copy: Copy) -> None:
        """Forgets that a copy was garbled."""
        await self._bucket.driver.delete(keys.quarantine(copy))

    async def uuids(self) -> set[str]:
        """The copies that were garbled."""
        return {entry.key.removeprefix(keys.QUARANTINE) async for entry in every(self._bucket.driver, keys.QUARANTINE)}

    async def _note(self, digest: Digest, copy: Copy, names: Collection[Name], why: str) -> None:
        fields = {"digest": digest, "size": copy.size, "why": why, "repositories": sorted(names), "time": time.time()}
        await self._bucket.driver.put(keys.quarantine(copy), json.dumps(fields).encode())

    async def _unbind(self, digest: Digest, copy: Copy, names: Collection[Name]) -> None:
        fence = self._bucket.driver.fence()
        found = set(names)
        async for entry in every(self._bucket.driver, keys.holders(digest)):
            held = holder(entry.key)
            if held is not None and held.copy == copy:
                found.add(held.name)
        await side_by_side(lambda name: unbind(self._bucket, name, digest, copy, fence), found)
        for name in found:
            self._bucket.places.drop((name, digest))

    async def _intended(self, copy: Copy) -> bool:
        """Whether a publication that may still happen names the copy; one that cannot be read may."""
        try:
            return bool(await self._intents.naming([copy]))
        except RegistryError:
            return True
