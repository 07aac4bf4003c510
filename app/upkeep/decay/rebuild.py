"""Writes every derived key anew that links and manifests ask for: after these were lost, or restored without them."""

from dataclasses import dataclass
from typing import Any

from app.oci.digests import algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import MAX_BYTES, parse_manifest
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.off_loop import off_loop
from app.upkeep.decay.derived import Derived
from app.upkeep.decay.inventory import Inventory, entry_in
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.decay.stocktaking import Progress, Scope, take_stock
from storage import NotFound


@dataclass(slots=True)
class Rebuilt:
    """How many keys of each kind were missing; `refused` of them could not be written, `unreadable` manifests not be read."""

    catalog: int = 0
    holders: int = 0
    referrers: int = 0
    manifests: int = 0
    unreadable: int = 0
    refused: int = 0


async def rebuild(bucket: Bucket, progress: Progress, *, dry_run: bool = False) -> Rebuilt:
    """Writes the catalog, the holders and the referrers that are missing; with `dry_run`, only counts them.

    Nothing is deleted, and what is right is not written again, so it may run at any time and any number of times.
    Raises StorageError.
    """
    async with Inventory() as inventory:
        await take_stock(bucket.driver, inventory, Scope(), progress, sizes=False)
        rebuilding = _Rebuilding(bucket, inventory, progress, write=not dry_run)
        await rebuilding.catalog()
        await rebuilding.holders()
        await rebuilding.referrers()
        return rebuilding.done


class _Rebuilding:
    def __init__(self, bucket: Bucket, inventory: Inventory, progress: Progress, *, write: bool) -> None:
        self.done = Rebuilt()
        self._bucket = bucket
        self._inventory = inventory
        self._derived = Derived(bucket, inventory)
        self._progress = progress
        self._write = write

    async def catalog(self) -> None:
        async for names in self._derived.uncatalogued():
            if self._write:
                self.done.refused += (await side_by_side(self._derived.catalogue, names)).count(False)
            self.done.catalog += len(names)

    async def holders(self) -> None:
        async for links in self._derived.unheld():
            if self._write:
                self.done.refused += (await side_by_side(self._derived.hold, links)).count(False)
            self.done.holders += len(links)
            self._progress("holders", self.done.holders, 0)

    async def referrers(self) -> None:
        total = await self._inventory.count("SELECT count(*) FROM manifest")
        async for page in self._inventory.pages("SELECT * FROM manifest"):
            await side_by_side(self._refer, page)
            self.done.manifests += len(page)
            self._progress("manifests", self.done.manifests, total)

    async def _refer(self, row: Any) -> None:
        name, entry = entry_in(row)
        if entry.size > MAX_BYTES:
            self.done.unreadable += 1
            return
        try:
            data = (await asked(self._bucket, lambda: self._bucket.driver.get(keys.manifest(name, entry)))).data
            if await off_loop(len(data), digest_of, data, algorithm_of(entry.digest)) != entry.digest:
                raise ManifestInvalid("it does not hash to its digest")
            manifest = await off_loop(len(data), parse_manifest, data, entry.media_type)
        except NotFound:
            return
        except (ManifestInvalid, Withheld):
            self.done.unreadable += 1
            return
        if manifest.subject is None or await self._derived.refers(name, manifest.subject.digest, entry) is None:
            return
        if self._write and not await self._derived.refer(name, manifest, entry):
            self.done.refused += 1
        self.done.referrers += 1
