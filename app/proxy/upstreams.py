"""One upstream registry: its settings, the client that talks to it, and what is known of its health and its answers."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Literal, TypeVar

from app.oci.digests import Digest
from app.oci.names import Name
from app.proxy.breaker import Breaker
from app.proxy.client import UpstreamClient
from app.proxy.credentials import open_credentials
from app.proxy.errors import Missing, UpstreamError
from app.proxy.lane import Lane
from app.proxy.misses import Misses
from app.proxy.namespace import Namespace, Namespaces
from app.proxy.rates import RateLimit
from app.proxy.settings import UpstreamSettings
from app.registry.bucket import Recent
from app.telemetry.upstreams import UpstreamMetrics

T = TypeVar("T")

_NAMED: Final = 100_000

Report = Callable[[str, str], None]
"""Takes a level and one line for the operator."""


class Upstream(Namespace):
    """One per configured upstream. `sources` is set by `link_fallbacks`: this one, then those to ask where it fails."""

    def __init__(
        self, settings: UpstreamSettings, *, negative_ttl: float, metrics: UpstreamMetrics, report: Report
    ) -> None:
        super().__init__(settings)
        self.sources: Sequence[Upstream] = (self,)
        self.metrics = metrics
        self.rates = RateLimit(settings.rate_reserve, on_change=partial(metrics.rate, settings.name))
        self.lane = Lane(settings.connections, settings.bandwidth)
        self.misses = Misses(negative_ttl)
        self.named: Recent[tuple[Name, Digest], int] = Recent(_NAMED)
        """Sizes of blobs that manifests of a repository name, which this upstream served."""
        self.breaker = Breaker(settings.name, on_change=self._changed)
        self.client = UpstreamClient(settings, open_credentials(settings.credentials), self.breaker, self.rates, report)
        self._report = report

    async def ask(self, name: Name, work: Callable[["Upstream", str], Awaitable[T]]) -> T:
        """What `work` brings from this upstream, or from the first of its fallbacks that has it. Raises UpstreamError:

        Missing only where all of them say so.
        """
        failure: UpstreamError | None = None
        for source in self.sources:
            try:
                return await work(source, self.remote(name))
            except UpstreamError as exc:
                failure = exc if failure is None or isinstance(failure, Missing) else failure
        assert failure is not None  # noqa: S101  (there is at least one source)
        raise failure

    @property
    def reachable(self) -> bool:
        """Whether it, or one that stands in for it, may be asked now."""
        return any(source.breaker.state == "closed" and source.rates.refuses() is None for source in self.sources)

    async def answers(self) -> bool:
        """Whether it, or one that stands in for it, answers just now."""
        for source in self.sources:
            try:
                await source.client.ping()
            except UpstreamError:
                continue
            return True
        return False

    def admit(self) -> None:
        """Returns where somebody may be asked. Raises Unreachable, as asking would at once."""
        if all(source.breaker.state != "closed" for source in self.sources):
            self.breaker.admit()

    def slow(self, failure: UpstreamError) -> None:
        """Notes that an answer did not come in time, where it can only be this upstream's; a late one will undo it."""
        if len(self.sources) == 1:
            self.breaker.failed(failure)

    def pulled(self, size: int) -> None:
        """Counts bytes of blobs that came from it."""
        self.metrics.pulled(self.name, "blob", size)

    def may_prefetch(self) -> bool:
        """Whether background work may ask it now."""
        return self.breaker.state == "closed" and self.rates.spare()

    def _changed(self, state: Literal["closed", "half_open", "open"], reason: str) -> None:
        self.metrics.breaker(self.name, state)
        level = "info" if state == "closed" else "warning"
        if state != "half_open":
            self._report(level, f"upstream {self.name}: {reason}")


def link_fallbacks(upstreams: Sequence[Upstream]) -> None:
    """Gives each upstream those that it falls back to."""
    known = Namespaces(upstreams)
    for upstream in upstreams:
        others = [known[name] for name in upstream.settings.fallbacks]
        upstream.sources = tuple(dict.fromkeys([upstream, *others]))
