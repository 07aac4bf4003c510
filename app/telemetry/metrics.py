"""Every metric there is. Names are Distribution's where it has them, so that published dashboards work."""

import os
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one process. Labels are of bounded number: no repository, user or digest is one."""

    def __init__(self) -> None:
        self.collector = CollectorRegistry()
        self._requests = Counter(
            "registry_http_requests", "Requests answered.", ["handler", "method", "code"], registry=self.collector
        )
        self._duration = Histogram(
            "registry_http_request_duration_seconds",
            "Seconds from the first byte of a request to the last of its answer.",
            ["handler", "method"],
            buckets=_SECONDS,
            registry=self.collector,
        )
        self._received = Counter(
            "registry_http_request_size_bytes", "Bytes of request bodies.", ["handler"], registry=self.collector
        )
        self._sent = Counter(
            "registry_http_response_size_bytes", "Bytes of answers' bodies.", ["handler"], registry=self.collector
        )
        self.in_flight = Gauge(
            "registry_http_in_flight_requests",
            "Requests being answered.",
            registry=self.collector,
            multiprocess_mode="livesum",
        )
        self._actions = Histogram(
            "registry_storage_action_seconds",
            "Seconds an operation of the store took.",
            ["driver", "action"],
            buckets=_SECONDS,
            registry=self.collector,
        )
        self._alarms = Counter(
            "registry_alarms", "Content that the store lost or garbled.", ["alarm"], registry=self.collector
        )
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram, Counter, Counter]] = {}
        self._timed: dict[tuple[str, str], Histogram] = {}

    def answered(self, handler: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Notes one request; sizes in bytes."""
        known = self._answers.get((handler, method, status))
        if known is None:
            known = (
                self._requests.labels(handler, method, str(status)),
                self._duration.labels(handler, method),
                self._received.labels(handler),
                self._sent.labels(handler),
            )
            self._answers[(handler, method, status)] = known
        requests, duration, received_bytes, sent_bytes = known
        requests.inc()
        duration.observe(seconds)
        if received:
            received_bytes.inc(received)
        if sent:
            sent_bytes.inc(sent)

    def stored(self, driver: str, action: str, seconds: float) -> None:
        """Notes one operation of the store."""
        known = self._timed.get((driver, action))
        if known is None:
            known = self._timed[(driver, action)] = self._actions.labels(driver, action)
        known.observe(seconds)

    def alarmed(self, alarm: str) -> None:
        """Notes that the store lost or garbled something."""
        self._alarms.labels(alarm).inc()

    def render(self) -> bytes:
        """The exposition format; of every worker process where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            collector = CollectorRegistry()
            MultiProcessCollector(collector)  # type: ignore[no-untyped-call]
            return generate_latest(collector)
        return generate_latest(self.collector)
