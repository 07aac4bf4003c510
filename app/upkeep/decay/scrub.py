"""Looking for decay as servers do it by themselves: a share of all bytes each time, at a bounded rate."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final

from app.oci.errors import RegistryError
from app.proxy.proxy import Proxy
from app.registry.bucket import Bucket
from app.registry.clock import assumed_now
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.decay import accounts
from app.upkeep.decay.findings import KINDS, Account, Finding
from app.upkeep.decay.sample import Sample
from app.upkeep.decay.stocktaking import Scope
from app.upkeep.decay.verify import Plan, verify
from app.upkeep.errors import NoScratch
from app.upkeep.schedule import Note
from app.upkeep.settings import UpkeepSettings
from storage import StorageError

AT_ONCE: Final = 4
"""Objects asked for side by side; those who push and pull meanwhile share the store with them."""
_LINES: Final = 100
"""Findings of one run that are logged one by one; the account has them all."""
_BROKEN: Final = [kind for kind, (weight, _) in KINDS.items() if weight == "broken"]


class Scrub:
    """A duty (upkeep/schedule.py)."""

    name = "verify"

    def __init__(
        self, bucket: Bucket, proxy: Proxy | None, settings: UpkeepSettings, metrics: UpkeepMetrics, note: Note
    ) -> None:
        self.interval = settings.verify_interval
        self._bucket = bucket
        self._proxy = proxy
        self._settings = settings
        self._metrics = metrics
        self._note = note
        self._logged = 0
        self._told = 0.0
        """When the last look here ended whose account is not in the bucket, in seconds since 1970; else 0."""
        metrics.expect(_BROKEN)

    async def last(self) -> float | None:
        """See Duty. What somebody did by hand counts, where it was of the whole bucket; and so does a look that failed."""
        found = await accounts.last_whole(self._bucket)
        if found is not None and found.at > self._told:
            self._metrics.last_verified(found.at, int(found.document.get("broken", 0)))
        ends = [ended.at for ended in (found, await accounts.last_failure(self._bucket)) if ended is not None]
        return max(ends, default=None)

    async def work(self) -> None:
        """See Duty. The sample begins where the last one ended."""
        found = await accounts.last_whole(self._bucket)
        settings = self._settings
        sample = Sample(settings.verify_share, accounts.sampled_until(found.document if found else None))
        plan = Plan(Scope(), sample, settings.verify_rate, settings.verify_repair, at_once=AT_ONCE)
        self._logged = 0
        try:
            account = await verify(self._bucket, self._proxy, plan, self._take, lambda *_: None)
        except (NoScratch, StorageError, RegistryError) as exc:
            self._metrics.look_failed()
            with suppress(StorageError):
                await self._keep(accounts.keep_failure(self._bucket, str(exc) or repr(exc)))
            raise
        self._tell(account)
        await self._keep(accounts.keep(self._bucket, account))
        self._told = 0.0
        await self.last()

    async def close(self) -> None:
        """See Duty."""

    def _take(self, finding: Finding) -> None:
        if not finding.broken:
            return
        self._metrics.faulty(finding.kind, mended=finding.mended is not None)
        self._logged += 1
        if self._logged <= _LINES:
            todo = {"mended": finding.mended} if finding.mended else {"remedy": finding.remedy}
            self._note("decay found", {"kind": finding.kind, "place": finding.place, "error": finding.why} | todo)

    async def _keep(self, writing: Awaitable[str]) -> None:
        """Raises StorageError, once that is said: where nothing is kept, other replicas, and later ones, begin anew."""
        try:
            await writing
        except StorageError as exc:
            self._note("report not kept", {"duty": self.name, "error": str(exc)})
            raise

    def _tell(self, account: Account) -> None:
        """Before the account is kept: where the store takes nothing, this alone says what was found."""
        self._told = assumed_now(self._bucket.capabilities)
        self._metrics.last_verified(self._told, account.broken)
        checked = dict(account.checked)
        size = checked.pop("bytes", 0)
        self._metrics.verified(account.seconds, size, checked)
        fields: dict[str, Any] = {"broken": account.broken, "mended": account.mended.total(), "bytes": size}
        if account.broken:
            fields["error"] = "something is broken: `edge-registry verify --last` says what"
        self._note("store verified", fields | checked | {"seconds": round(account.seconds, 1)})
