"""The metrics of collecting garbage."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge


class UpkeepMetrics:
    """What a process collects. Labels are of bounded number: kinds of things, and ways in which a collection ends."""

    def __init__(self, collector: CollectorRegistry) -> None:
        """Registers all of them with `collector`; a collector takes them once."""
        self._ended = Counter(
            "edge_registry_gc_collections", "Collections of garbage, by how they ended.", ["state"], registry=collector
        )
        self._freed = Counter("edge_registry_gc_freed_bytes", "Bytes that collections deleted.", registry=collector)
        self._objects = Counter(
            "edge_registry_gc_objects", "Things that collections deleted, by kind.", ["kind"], registry=collector
        )
        self._last = Gauge(
            "edge_registry_gc_last_end_seconds",
            "When the last collection that was done here ended, in seconds since 1970.",
            registry=collector,
            multiprocess_mode="max",
        )
        self._took = Gauge(
            "edge_registry_gc_last_duration_seconds",
            "Seconds that the last collection here took.",
            registry=collector,
            multiprocess_mode="mostrecent",
        )

    def collected(self, state: str, seconds: float, freed: int, objects: Mapping[str, int]) -> None:
        """Notes one collection: how it ended (`done`, `stopped`, `failed`), bytes freed, things deleted by kind."""
        self._ended.labels(state).inc()
        self._took.set(seconds)
        if state == "done":
            self._last.set_to_current_time()
        if freed:
            self._freed.inc(freed)
        for kind, count in objects.items():
            self._objects.labels(kind).inc(count)
