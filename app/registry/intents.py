"""What running publications name, as a collector sees it (design, section 5, rule 2)."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from app.oci.errors import Unavailable
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.clock import store_now
from app.registry.keys import Copy
from app.registry.listing import every
from storage import Corrupt, Entry as Listed, NotFound, Unavailable as StorageUnavailable


class Intents:
    """Looks at intents, again and again. An intent never changes, so each is read once."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._read: dict[str, frozenset[str]] = {}

    async def naming(self, copies: Iterable[Copy]) -> set[Copy]:
        """Those of the copies that a publication names which runs now, or may still happen. (Model: no_intent.)

        Raises StorageError, or Unavailable for an intent that cannot be read: then nothing may be concluded.
        """
        listed = [entry async for entry in every(self._bucket.driver, keys.INTENTS)]
        known = {entry.key: self._read[entry.key] for entry in listed if entry.key in self._read}
        known |= await self._understood([entry for entry in listed if entry.key not in known])
        self._read = known
        wanted = {copy.uuid: copy for copy in copies}
        naming = [entry for entry in listed if not wanted.keys().isdisjoint(known.get(entry.key, ()))]
        return {wanted[uuid] for entry in await self._living(naming) for uuid in known[entry.key] if uuid in wanted}

    async def _understood(self, unread: Sequence[Listed]) -> Mapping[str, frozenset[str]]:
        """What each names, by key. One that cannot be read names nothing once it has expired."""
        found = dict(zip(unread, await side_by_side(self._get, unread), strict=True))
        torn = {entry: body for entry, body in found.items() if isinstance(body, Exception)}
        for entry in await self._living(torn):
            raise Unavailable("an intent cannot be read: nothing is deleted") from torn[entry]
        return {
            entry.key: frozenset() if isinstance(body, Exception) else body
            for entry, body in found.items()
            if body is not None
        }

    async def _get(self, entry: Listed) -> frozenset[str] | Exception | None:
        """The copies that an intent names, or why that cannot be read."""
        try:
            found = await self._bucket.driver.get(entry.key)
            return frozenset(json.loads(found.data)["copies"])
        except NotFound:
            return None  # released since it was listed: what it published is a manifest or a link now
        except (ValueError, KeyError, TypeError, StorageUnavailable, Corrupt) as exc:
            return exc

    async def _living(self, found: Collection[Listed]) -> Collection[Listed]:
        """Without the expired, whatever the clocks: their publications can no longer happen. (Model: expire_intents.)"""
        if not found:
            return found
        oldest = await store_now(self._bucket.driver) - self._bucket.lifetimes.intent
        return [entry for entry in found if entry.modified >= oldest]
