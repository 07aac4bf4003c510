"""One run of verify: the whole bucket, or some repositories, compared with what it promises."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from app.proxy.proxy import Proxy
from app.registry import keys
from app.registry.bucket import Bucket
from app.upkeep.decay import accounts
from app.upkeep.decay.decay import Hashing
from app.upkeep.decay.derived import Derived
from app.upkeep.decay.findings import Account, Finding
from app.upkeep.decay.inventory import Inventory
from app.upkeep.decay.repair import BlobRepair
from app.upkeep.decay.restoring import ManifestRepair
from app.upkeep.decay.run import Run
from app.upkeep.decay.sample import Sample
from app.upkeep.decay.stocktaking import Foreign, Progress, Scope, take_stock
from app.upkeep.decay.verified_copies import VerifiedCopies
from app.upkeep.decay.verified_derived import VerifiedDerived
from app.upkeep.decay.verified_manifests import VerifiedManifests
from app.upkeep.decay.verified_tags import VerifiedTags


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes, links, manifests and tags of `scope` are looked at, all of them; `sample` says whose bytes are hashed.

    `rate` in bytes a second bounds the hashing, `at_once` how many objects are asked for side by side. `repair` mends what
    can be mended; `force` also gives up what the store does not give, and takes links away where so much is broken that
    this looks like a store which is restored in part.
    """

    scope: Scope
    sample: Sample
    rate: float | None = None
    repair: bool = False
    force: bool = False
    at_once: int = 24


async def verify(
    bucket: Bucket, proxy: Proxy | None, plan: Plan, tell: Callable[[Finding], None], progress: Progress
) -> Account:
    """Looks at everything the plan means; `tell` gets each finding when it is known. Writes only to repair.

    Safe beside pushes, deletes, collectors and other runs: what looks wrong in a listing is asked for again before it is
    said. Raises StorageError where the store as a whole fails.
    """
    began = time.monotonic()
    account = Account(datetime.now(UTC).isoformat(timespec="seconds"), plan.scope.pattern, plan.repair)
    account.sample = (plan.sample.start, plan.sample.end)

    def take(finding: Finding) -> None:
        account.take(finding)
        tell(finding)

    hashing = Hashing(bucket, plan.rate)
    async with Inventory() as inventory:
        blobs = BlobRepair(bucket, proxy, hashing)
        run = Run(
            bucket,
            inventory,
            Derived(bucket, inventory),
            blobs,
            ManifestRepair(bucket, inventory, blobs),
            take,
            progress,
            plan.repair,
            plan.force,
            plan.at_once,
        )
        await _look(run, plan, account, hashing)
    account.checked["bytes"] = hashing.read
    account.seconds = time.monotonic() - began
    return account


async def _look(run: Run, plan: Plan, account: Account, hashing: Hashing) -> None:
    foreign = await take_stock(run.bucket.driver, run.inventory, plan.scope, run.progress, sizes=True)
    quarantined = await run.blobs.quarantine.uuids()
    last = await accounts.last_whole(run.bucket)
    doubted = accounts.doubted(last.document if last else None)
    await run.inventory.choose(lambda uuid: plan.sample.has(uuid) or uuid in quarantined or keys.data(uuid) in doubted)
    copies, derived = VerifiedCopies(run, hashing), VerifiedDerived(run)
    checked = account.checked
    checked["copies"] = await copies.check()
    checked["hashed"] = await copies.hash()
    account.refused = None if plan.force else await copies.refusal()
    run.unlink = plan.repair and account.refused is None
    await copies.settle()
    if run.repair:
        await copies.release()
    checked["tags"] = await VerifiedTags(run).check()
    manifests = VerifiedManifests(run)
    checked["manifests"] = await manifests.check()
    await manifests.settle()
    await derived.check()
    if plan.scope.whole:
        await derived.check_loose()
    checked["repositories"] = await run.inventory.count("SELECT count(*) FROM repository")
    checked["links"] = await run.inventory.count("SELECT count(*) FROM link")
    checked["quarantined"] = len(quarantined)
    _tell_foreign(run, foreign)


def _tell_foreign(run: Run, foreign: Foreign) -> None:
    for key in foreign.first:
        run.tell(Finding("foreign", "the registry did not write it", key=key))
    if foreign.number > len(foreign.first):
        run.tell(Finding("foreign", f"{foreign.number - len(foreign.first)} further keys are not the registry's"))
