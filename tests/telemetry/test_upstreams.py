"""What is said of upstreams: Distribution's names, labels of bounded number, and worker processes that add up."""

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import Metrics
from app.telemetry.upstreams import UpstreamMetrics


def samples(text: str) -> dict[str, float]:
    """Every sample as `name{label=value,...}`, but the times at which counters were made."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return {name: value for name, value in found.items() if "_created{" not in name}


class Measured:
    """The metrics of upstreams, and what a scrape finds."""

    def __init__(self) -> None:
        self._all = Metrics()
        self.upstreams = UpstreamMetrics(self._all.collector)

    def __getitem__(self, name: str) -> float:
        return samples(self._all.render().decode())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(samples(self._all.render().decode()))


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_requests_are_hits_or_misses_under_distributions_names(measured: Measured) -> None:
    for hit in (True, True, False):
        measured.upstreams.asked("docker.io", "blob", hit)
    measured.upstreams.asked("quay.io", "manifest", False)
    assert measured["registry_proxy_requests_total{type=blob,upstream=docker.io}"] == 3
    assert measured["registry_proxy_hits_total{type=blob,upstream=docker.io}"] == 2
    assert measured["registry_proxy_misses_total{type=blob,upstream=docker.io}"] == 1
    assert measured["registry_proxy_misses_total{type=manifest,upstream=quay.io}"] == 1


def test_bytes_are_counted_on_both_sides(measured: Measured) -> None:
    measured.upstreams.pulled("docker.io", "blob", 100)
    measured.upstreams.pulled("docker.io", "blob", 5)
    measured.upstreams.pushed("docker.io", "blob", 800)
    assert measured["registry_proxy_pulled_bytes_total{type=blob,upstream=docker.io}"] == 105
    assert measured["registry_proxy_pushed_bytes_total{type=blob,upstream=docker.io}"] == 800


def test_joined_readers_stale_tags_and_evictions_are_counted(measured: Measured) -> None:
    measured.upstreams.joined("docker.io", "local")
    measured.upstreams.joined("docker.io", "peer")
    measured.upstreams.stale("docker.io", "network")
    measured.upstreams.evicted("docker.io", 7)
    assert measured["edge_registry_proxy_joined_total{upstream=docker.io,where=local}"] == 1
    assert measured["edge_registry_proxy_joined_total{upstream=docker.io,where=peer}"] == 1
    assert measured["edge_registry_proxy_stale_total{reason=network,upstream=docker.io}"] == 1
    assert measured["edge_registry_proxy_evicted_bytes_total{upstream=docker.io}"] == 7


def test_transfers_are_counted_timed_weighed_and_seen_while_they_run(measured: Measured) -> None:
    measured.upstreams.running.inc()
    assert measured["edge_registry_proxy_transfers_running{}"] == 1
    measured.upstreams.running.dec()
    measured.upstreams.transfer("docker.io", "done", 2.0, 100)
    assert measured["edge_registry_proxy_transfers_running{}"] == 0
    assert measured["edge_registry_proxy_transfers_total{outcome=done,upstream=docker.io}"] == 1
    assert measured["edge_registry_proxy_transfer_bytes_total{outcome=done,upstream=docker.io}"] == 100
    assert measured["edge_registry_proxy_transfer_seconds_sum{upstream=docker.io}"] == 2


def test_a_rate_limit_is_shown_until_it_is_unknown_again(measured: Measured) -> None:
    measured.upstreams.rate("docker.io", 100, 76)
    assert measured["edge_registry_proxy_rate_limit{upstream=docker.io}"] == 100
    assert measured["edge_registry_proxy_rate_remaining{upstream=docker.io}"] == 76
    measured.upstreams.rate("docker.io", 100, None)
    assert math.isnan(measured["edge_registry_proxy_rate_remaining{upstream=docker.io}"])


def test_the_breaker_and_the_spool_are_shown(measured: Measured) -> None:
    measured.upstreams.breaker("docker.io", "open")
    assert measured["edge_registry_proxy_breaker{upstream=docker.io}"] == 2
    measured.upstreams.breaker("docker.io", "half_open")
    assert measured["edge_registry_proxy_breaker{upstream=docker.io}"] == 1
    measured.upstreams.breaker("docker.io", "closed")
    assert measured["edge_registry_proxy_breaker{upstream=docker.io}"] == 0
    measured.upstreams.spool(12)
    assert measured["edge_registry_proxy_spool_bytes{}"] == 12


def test_nothing_is_said_of_upstreams_that_were_never_asked(measured: Measured) -> None:
    assert [name for name in measured if "upstream=" in name] == []


def test_of_several_processes_the_most_open_breaker_and_all_transfers_are_shown(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("metrics")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    work = (
        "import sys\n"
        "from app.telemetry.metrics import Metrics\n"
        "from app.telemetry.upstreams import UpstreamMetrics\n"
        "m = Metrics(); u = UpstreamMetrics(m.collector)\n"
        "u.running.inc(); u.breaker('docker.io', sys.argv[1]); u.pulled('docker.io', 'blob', 5); u.spool(9)\n"
        "if sys.argv[1] == 'closed': print(m.render().decode())\n"
    )
    text = ""
    for state in ("open", "closed"):
        done = subprocess.run(
            [sys.executable, "-c", work, state], check=True, timeout=60, capture_output=True, text=True
        )
        text = done.stdout
    found = samples(text)
    assert found["edge_registry_proxy_breaker{upstream=docker.io}"] == 2
    assert found["edge_registry_proxy_transfers_running{}"] == 2
    assert found["registry_proxy_pulled_bytes_total{type=blob,upstream=docker.io}"] == 10
    assert found["edge_registry_proxy_spool_bytes{}"] == 9
