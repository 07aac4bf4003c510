"""What the parts of one run of verify share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.clock import assumed_now
from app.upkeep.decay.derived import Derived
from app.upkeep.decay.findings import Finding
from app.upkeep.decay.inventory import Inventory
from app.upkeep.decay.looking import stands
from app.upkeep.decay.repair import BlobRepair
from app.upkeep.decay.restoring import ManifestRepair
from app.upkeep.decay.stocktaking import Progress


@dataclass(slots=True)
class Run:
    """`tell` takes what is found; `repair` says whether anything may be written, `unlink` whether links may go, `force`
    whether what the store does not give counts as gone; `at_once` objects are asked for side by side."""

    bucket: Bucket
    inventory: Inventory
    derived: Derived
    blobs: BlobRepair
    manifests: ManifestRepair
    tell: Callable[[Finding], None]
    progress: Progress
    repair: bool
    force: bool
    at_once: int
    unlink: bool = False

    async def each(self, what: str, total: int, question: str, work: Callable[[Any], Awaitable[None]]) -> int:
        """Does `work` with every row that answers a question; returns how many there were."""
        done = 0
        async for page in self.inventory.pages(question):
            await side_by_side(work, page, most=self.at_once)
            done += len(page)
            self.progress(what, done, total)
        return done

    async def stands(self, key: str) -> bool:
        """Whether a key is there now, and can be used."""
        return await stands(self.bucket, key)

    async def deleted(self, name: Name) -> bool:
        """Whether a manifest of this repository was deleted once, so that tags and indexes may name what is gone."""
        return bool((await self.bucket.driver.list(keys.deletions(name), limit=1)).entries)

    def now(self) -> float:
        """Seconds since 1970 by the store's clock, as far as the probe at start could tell."""
        return assumed_now(self.bucket.capabilities)
