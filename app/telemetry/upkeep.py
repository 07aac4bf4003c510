"""The metrics of upkeep: collecting garbage, and looking for decay."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge


class UpkeepMetrics:
    """What a process does, and what the bucket says was done last. Labels are of bounded number: kinds, ways to end."""

    def __init__(self, collector: CollectorRegistry) -> None:
        """Registers all of them with `collector`; a collector takes them once."""
        self._garbage = _GarbageMetrics(collector)
        self._decay = _DecayMetrics(collector)

    def collected(self, state: str, cause: str, seconds: float, freed: int, objects: Mapping[str, int]) -> None:
        """Notes one collection: how it ended (`done`, `stopped`, `failed`), what stopped it, bytes freed, things by kind."""
        garbage = self._garbage
        garbage.ended.labels(state).inc()
        garbage.took.set(seconds)
        if state == "done":
            garbage.last.set_to_current_time()
        if cause:
            garbage.stopped.labels(cause).inc()
        garbage.freed.inc(freed)
        for kind, count in objects.items():
            garbage.objects.labels(kind).inc(count)

    def expect_stops(self, causes: Iterable[str]) -> None:
        """Shows what may stop a collection before anything does."""
        self._garbage.causes = tuple(causes)
        for cause in self._garbage.causes:
            self._garbage.stopped.labels(cause)
            self._garbage.last_stopped.labels(cause).set(0)

    def last_ended(self, cause: str) -> None:
        """Notes what stopped the last collection of any replica, or of the command; "" where nothing did."""
        for known in self._garbage.causes:
            self._garbage.last_stopped.labels(known).set(known == cause)

    def last_collected(self, at: float) -> None:
        """Notes when any replica last collected to the end, in seconds since 1970."""
        self._garbage.last.set(at)

    def expect(self, faults: Iterable[str]) -> None:
        """Shows kinds of faults before there are any, so that the first one is seen to come."""
        for kind in faults:
            self._decay.faults.labels(kind)
            self._decay.mended.labels(kind)

    def faulty(self, kind: str, *, mended: bool) -> None:
        """Notes something broken that was found, and whether that was mended."""
        self._decay.faults.labels(kind).inc()
        if mended:
            self._decay.mended.labels(kind).inc()

    def verified(self, seconds: float, read: int, checked: Mapping[str, int]) -> None:
        """Notes one run of verify: bytes of blobs that it read, and what it looked at, by kind."""
        self._decay.took.set(seconds)
        self._decay.read.inc(read)
        for kind, count in checked.items():
            self._decay.objects.labels(kind).inc(count)

    def look_failed(self) -> None:
        """Notes a look for decay that did not reach its end."""
        self._decay.failed.inc()

    def last_verified(self, at: float, broken: int) -> None:
        """Notes when any replica or command last came to the end of verify, in seconds since 1970, and what stayed broken."""
        self._decay.last.set(at)
        self._decay.broken.set(broken)


class _GarbageMetrics:
    def __init__(self, collector: CollectorRegistry) -> None:
        self.ended = Counter(
            "edge_registry_gc_collections", "Collections of garbage, by how they ended.", ["state"], registry=collector
        )
        self.stopped = Counter(
            "edge_registry_gc_stopped",
            "Collections that deleted nothing more because that was not safe or wise, by why.",
            ["cause"],
            registry=collector,
        )
        self.causes: Sequence[str] = ()
        self.last_stopped = Gauge(
            "edge_registry_gc_last_stopped",
            "Whether this stopped the last collection, by any replica or command: 1, else 0.",
            ["cause"],
            registry=collector,
            multiprocess_mode="mostrecent",
        )
        self.freed = Counter("edge_registry_gc_freed_bytes", "Bytes that collections deleted.", registry=collector)
        self.objects = Counter(
            "edge_registry_gc_objects", "Things that collections deleted, by kind.", ["kind"], registry=collector
        )
        self.last = _moment(
            collector,
            "edge_registry_gc_last_end_seconds",
            "When the last collection that was done ended, by any replica",
        )
        self.took = _latest(
            collector, "edge_registry_gc_last_duration_seconds", "Seconds that the last collection here took."
        )


class _DecayMetrics:
    def __init__(self, collector: CollectorRegistry) -> None:
        self.objects = Counter(
            "edge_registry_verify_objects", "Things that verify looked at, by kind.", ["kind"], registry=collector
        )
        self.read = Counter(
            "edge_registry_verify_read_bytes", "Bytes of blobs that verify read and hashed.", registry=collector
        )
        self.faults = Counter(
            "edge_registry_verify_faults", "Broken things that verify found, by kind.", ["kind"], registry=collector
        )
        self.mended = Counter(
            "edge_registry_verify_mended", "Broken things that verify mended, by kind.", ["kind"], registry=collector
        )
        self.failed = Counter(
            "edge_registry_verify_failed", "Looks for decay that did not reach their end.", registry=collector
        )
        self.last = _moment(
            collector,
            "edge_registry_verify_last_end_seconds",
            "When verify last came to its end, by any replica or command",
        )
        self.broken = _latest(
            collector, "edge_registry_verify_last_broken", "Broken things that the last verify found and did not mend."
        )
        self.took = _latest(
            collector, "edge_registry_verify_last_duration_seconds", "Seconds that the last verify here took."
        )


def _moment(collector: CollectorRegistry, name: str, help_text: str) -> Gauge:
    return Gauge(name, f"{help_text}, in seconds since 1970.", registry=collector, multiprocess_mode="max")


def _latest(collector: CollectorRegistry, name: str, help_text: str) -> Gauge:
    return Gauge(name, help_text, registry=collector, multiprocess_mode="mostrecent")
