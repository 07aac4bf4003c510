"""What running publications name, as a collector sees it (design, section 5, rule 2)."""

import json
from collections.abc import Collection, Iterable

from app.oci.errors import Unavailable
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.clock import store_now
from app.registry.keys import Copy
from app.registry.listing import every
from storage import Entry as Listed, NotFound


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
        unread = [entry for entry in listed if entry.key not in known]
        bodies = await side_by_side(self._get, unread)
        known |= {entry.key: body for entry, body in zip(unread, bodies, strict=True) if body is not None}
        self._read = known
        wanted = {copy.uuid: copy for copy in copies}
        naming = [entry for entry in listed if not wanted.keys().isdisjoint(known.get(entry.key, ()))]
        return {wanted[uuid] for entry in await self._living(naming) for uuid in known[entry.key] if uuid in wanted}

    async def _get(self, entry: Listed) -> frozenset[str] | None:
        try:
            found = await self._bucket.driver.get(entry.key)
        except NotFound:
            return None  # released since it was listed: what it published is a manifest or a link now
        try:
            return frozenset(json.loads(found.data)["copies"])
        except (ValueError, KeyError, TypeError) as exc:
            raise Unavailable("an intent cannot be read: nothing is deleted") from exc

    async def _living(self, naming: Collection[Listed]) -> Collection[Listed]:
        """Without the expired, whatever the clocks: their publications can no longer happen. (Model: expire_intents.)"""
        if not naming:
            return naming
        oldest = await store_now(self._bucket.driver) - self._bucket.lifetimes.intent
        return [entry for entry in naming if entry.modified >= oldest]
