"""Keys that follow from links and manifests: the catalog, who holds a digest, who refers to a manifest."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from app.oci.digests import Digest
from app.oci.manifests import Manifest
from app.oci.names import Name
from app.registry import keys, referrers
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Copy, Entry
from app.upkeep.decay.inventory import Inventory
from app.upkeep.decay.looking import Withheld, asked, stands
from app.upkeep.decay.placing import Link
from storage import NotFound

_UNCATALOGUED: Final = """
SELECT name FROM repository LEFT JOIN catalog USING (name) WHERE catalog.name IS NULL
  AND (deletions OR EXISTS (SELECT 1 FROM manifest WHERE manifest.name = repository.name))
"""
_UNHELD: Final = """
SELECT link.* FROM link LEFT JOIN holder USING (digest, uuid, size, name) WHERE holder.name IS NULL
"""


class Derived:
    """The derived keys of a bucket. What an inventory does not show is asked for before it is said to be missing."""

    def __init__(self, bucket: Bucket, inventory: Inventory) -> None:
        self._bucket = bucket
        self._inventory = inventory

    async def uncatalogued(self) -> AsyncIterator[Sequence[Name]]:
        """Repositories that have, or had, manifests and are not in the catalog; a page at a time. Raises StorageError."""
        async for page in self._inventory.pages(_UNCATALOGUED):
            yield await self._absent([(keys.catalog(Name(name)), Name(name)) for (name,) in page])

    async def catalogue(self, name: Name) -> bool:
        """Writes the key that `uncatalogued` misses; False where the store does not take it."""
        return await self._written(lambda: self._bucket.driver.put(keys.catalog(name), b""))

    async def unheld(self) -> AsyncIterator[Sequence[Link]]:
        """Links that the derived keys do not show; a page at a time. Raises StorageError."""
        async for page in self._inventory.pages(_UNHELD):
            links = [Link(Name(name), Digest(digest), Copy(uuid, size)) for name, digest, uuid, size in page]
            lost = await self._absent([(keys.holder(link.digest, link.copy, link.name), link) for link in links])
            there = await side_by_side(self._stands, [keys.link(link.name, link.digest, link.copy) for link in lost])
            yield [link for link, stands in zip(lost, there, strict=True) if stands]

    async def hold(self, link: Link) -> bool:
        """Writes the key that `unheld` misses; False where the store does not take it."""
        key = keys.holder(link.digest, link.copy, link.name)
        return await self._written(lambda: self._bucket.driver.put(key, b""))

    async def refers(self, name: Name, subject: Digest, entry: Entry) -> str | None:
        """What is wrong with the descriptor of a referrer: `missing`, `unreadable`, or None. Raises StorageError."""
        key = keys.referrer(name, subject, entry.digest, entry.nonce)
        try:
            found = await asked(self._bucket, lambda: self._bucket.driver.get(key))
        except NotFound:
            return "missing"
        except Withheld:
            return "unreadable"
        return None if _is_descriptor(found.data, entry) else "unreadable"

    async def refer(self, name: Name, manifest: Manifest, entry: Entry) -> bool:
        """Writes the descriptor that `refers` misses; False where the store does not take it."""
        return await self._written(lambda: referrers.write(self._bucket, name, manifest, entry))

    async def _written(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await asked(self._bucket, work)
        except Withheld:
            return False
        return True

    async def _absent(self, wanted: Sequence[tuple[str, Any]]) -> list[Any]:
        """What belongs to keys that are not there."""
        there = await side_by_side(self._stands, [key for key, _ in wanted])
        return [found for (_, found), stands in zip(wanted, there, strict=True) if not stands]

    async def _stands(self, key: str) -> bool:
        return await stands(self._bucket, key)


def _is_descriptor(data: bytes, entry: Entry) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    wanted = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    return isinstance(found, dict) and all(found.get(field) == value for field, value in wanted.items())
