"""What servers do for their store by themselves."""

from collections.abc import Sequence

from app.proxy.proxy import Proxy
from app.registry.bucket import Bucket
from app.registry.leases import Leases
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.decay.scrub import Scrub
from app.upkeep.garbage.collecting import Collecting
from app.upkeep.schedule import Duty, Note, Schedule
from app.upkeep.settings import UpkeepSettings


def schedules(
    bucket: Bucket, proxy: Proxy | None, settings: UpkeepSettings, leases: Leases, metrics: UpkeepMetrics, note: Note
) -> Sequence[Schedule]:
    """One for each duty; run them all, side by side."""
    duties: list[Duty] = [Collecting(bucket, settings, metrics, note), Scrub(bucket, proxy, settings, metrics, note)]
    return [Schedule(bucket, leases, note, duty) for duty in duties]
