"""Looking for decay as servers do it by themselves: a share of all bytes each time, slowly, and beside whatever else goes on."""

from typing import Any, Final

from app.proxy.proxy import Proxy
from app.registry.bucket import Bucket
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.decay import accounts
from app.upkeep.decay.findings import KINDS, Account, Finding
from app.upkeep.decay.sample import Sample
from app.upkeep.decay.stocktaking import Scope
from app.upkeep.decay.verify import Plan, verify
from app.upkeep.schedule import Note
from app.upkeep.settings import UpkeepSettings

AT_ONCE: Final = 4
"""Objects asked for side by side: whoever pushes and pulls comes first."""
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
        metrics.expect(_BROKEN)

    async def last(self) -> float | None:
        """See Duty. What somebody did by hand counts, where it was of the whole bucket."""
        found = await accounts.last_whole(self._bucket)
        if found is None:
            return None
        self._metrics.last_verified(found.at, int(found.document.get("broken", 0)))
        return found.at

    async def work(self) -> None:
        """See Duty. The sample begins where the last one ended."""
        found = await accounts.last_whole(self._bucket)
        settings = self._settings
        sample = Sample(settings.verify_share, accounts.sampled_until(found.document if found else None))
        plan = Plan(Scope(), sample, settings.verify_rate, settings.verify_repair, at_once=AT_ONCE)
        self._logged = 0
        account = await verify(self._bucket, self._proxy, plan, self._take, lambda *_: None)
        await accounts.keep(self._bucket, account)
        self._tell(account)
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

    def _tell(self, account: Account) -> None:
        checked = dict(account.checked)
        size = checked.pop("bytes", 0)
        self._metrics.verified(account.seconds, size, checked)
        fields: dict[str, Any] = {"broken": account.broken, "mended": account.mended.total(), "bytes": size}
        if account.broken:
            fields["error"] = "something is broken: `edge-registry verify --last` says what"
        self._note("store verified", fields | checked | {"seconds": round(account.seconds, 1)})
