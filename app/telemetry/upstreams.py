"""The metrics of upstream registries. Names are Distribution's where its proxy has them, with the upstream as a label more."""

import math
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Kind = Literal["blob", "manifest"]
"""What was asked for; Distribution's label `type`."""

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


class UpstreamMetrics:
    """What a process does with its upstreams. Labels are of bounded number: upstreams are those of the configuration."""

    def __init__(self, collector: CollectorRegistry) -> None:
        """Registers all of them with `collector`; a collector takes them once."""
        self._collector = collector
        by_type = ["type", "upstream"]
        self._requests = self._counter("registry_proxy_requests", "Requests for what an upstream has.", by_type)
        self._hits = self._counter("registry_proxy_hits", "Requests answered from the cache.", by_type)
        self._misses = self._counter("registry_proxy_misses", "Requests for which the upstream was asked.", by_type)
        self._pulled = self._counter("registry_proxy_pulled_bytes", "Bytes that upstreams sent.", by_type)
        self._pushed = self._counter("registry_proxy_pushed_bytes", "Bytes sent to clients.", by_type)
        self._joined = self._counter(
            "edge_registry_proxy_joined", "Readers that followed a running transfer.", ["upstream", "where"]
        )
        self._stale = self._counter(
            "edge_registry_proxy_stale", "Tags answered from the cache unchecked.", ["upstream", "reason"]
        )
        ended = ["upstream", "outcome"]
        self._transfers = self._counter("edge_registry_proxy_transfers", "Transfers that ended.", ended)
        self._transferred = self._counter(
            "edge_registry_proxy_transfer_bytes", "Bytes of the content of transfers that ended.", ended
        )
        self._seconds = Histogram(
            "edge_registry_proxy_transfer_seconds",
            "Seconds that a transfer took.",
            ["upstream"],
            buckets=_SECONDS,
            registry=collector,
        )
        self.running = self._gauge("edge_registry_proxy_transfers_running", "Transfers that run.", (), "livesum")
        self._limit = self._gauge(
            "edge_registry_proxy_rate_limit", "Requests in a window, as the upstream says.", mode="livemostrecent"
        )
        self._remaining = self._gauge(
            "edge_registry_proxy_rate_remaining", "Requests left of the rate limit.", mode="livemostrecent"
        )
        self._breaker = self._gauge(
            "edge_registry_proxy_breaker", "Circuit breaker: 0 closed, 1 half open, 2 open.", mode="livemax"
        )
        self._spool = self._gauge("edge_registry_proxy_spool_bytes", "Bytes in the spool.", (), "livemostrecent")
        self._evicted = self._counter("edge_registry_proxy_evicted_bytes", "Bytes evicted from caches.", ["upstream"])

    def asked(self, upstream: str, kind: Kind, hit: bool) -> None:
        """Notes a request; a hit was answered without asking the upstream."""
        self._requests.labels(kind, upstream).inc()
        (self._hits if hit else self._misses).labels(kind, upstream).inc()

    def pulled(self, upstream: str, kind: Kind, size: int) -> None:
        """Notes bytes that came from the upstream, those that came twice included."""
        self._pulled.labels(kind, upstream).inc(size)

    def pushed(self, upstream: str, kind: Kind, size: int) -> None:
        """Notes bytes that went to clients."""
        self._pushed.labels(kind, upstream).inc(size)

    def joined(self, upstream: str, where: Literal["local", "peer"]) -> None:
        """Notes a reader that followed a transfer which ran already, here or at another replica."""
        self._joined.labels(upstream, where).inc()

    def stale(self, upstream: str, reason: str) -> None:
        """Notes a tag that was served unchecked; `reason` is a FailureKind."""
        self._stale.labels(upstream, reason).inc()

    def transfer(self, upstream: str, outcome: str, seconds: float, size: int) -> None:
        """Notes a transfer that ended; `outcome` is one of few words, `size` what the content has in bytes."""
        self._transfers.labels(upstream, outcome).inc()
        self._transferred.labels(upstream, outcome).inc(size)
        self._seconds.labels(upstream).observe(seconds)

    def rate(self, upstream: str, limit: int | None, remaining: int | None) -> None:
        """Shows a rate limit; what is None is not known."""
        for gauge, count in ((self._limit, limit), (self._remaining, remaining)):
            gauge.labels(upstream).set(math.nan if count is None else count)

    def breaker(self, upstream: str, state: Literal["closed", "half_open", "open"]) -> None:
        """Shows the state of a breaker; of several processes, the most open one."""
        self._breaker.labels(upstream).set(_STATES[state])

    def spool(self, size: int) -> None:
        """Shows the bytes of the spool's folder, of all processes that share it."""
        self._spool.set(size)

    def evicted(self, upstream: str, size: int) -> None:
        """Notes bytes of content that was evicted from a cache."""
        self._evicted.labels(upstream).inc(size)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self._collector)

    def _gauge(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...] = ("upstream",),
        mode: Literal["livesum", "livemax", "livemostrecent"] = "livesum",
    ) -> Gauge:
        return Gauge(name, text, labels, registry=self._collector, multiprocess_mode=mode)
