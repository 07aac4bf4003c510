"""Servers collect once an interval, whichever comes first, and say what they did."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.registry import keys
from app.registry.leases import Leases
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.garbage import garbage, reports
from app.upkeep.garbage.collecting import Collecting
from app.upkeep.schedule import Schedule
from app.upkeep.settings import UpkeepSettings
from tests.registry.recorded import Recorded
from tests.upkeep.yard import HOUR, Yard

LAST_STOPPED = 'edge_registry_gc_last_stopped{{cause="{}"}}'
Line = tuple[str, Mapping[str, Any]]


class Server:
    """One replica's schedule. `log` is what it noted."""

    def __init__(self, at: Yard, interval: float = 24 * HOUR, *, leases: bool = True, max_share: float = 1) -> None:
        self.log: asyncio.Queue[Line] = asyncio.Queue()
        self.collector = CollectorRegistry()
        self.metered = UpkeepMetrics(self.collector)
        self.leases = Leases(at.driver, supported=leases)
        self.settings = UpkeepSettings(interval=interval, max_share=max_share)
        self.at = at

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        self.log.put_nowait((event, fields))

    @property
    def duty(self) -> Collecting:
        return Collecting(self.at.bucket, self.settings, self.metered, self.note)

    async def run(self) -> None:
        await Schedule(self.at.bucket, self.leases, self.note, self.duty).run()

    async def turn(self) -> None:
        """One look, as a process that then ends."""
        duty = self.duty
        try:
            await Schedule(self.at.bucket, self.leases, self.note, duty).turn(self.settings.interval)
        finally:
            await duty.close()

    async def opened(self) -> None:
        """As a process that ends before it looks."""
        await self.duty.close()

    def metrics(self) -> dict[str, float]:
        """Each sample's name with its labels, and its value."""
        lines = [line for line in generate_latest(self.collector).decode().splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def collections(at: Yard) -> int:
    return len(await at.keys(keys.reports(reports.KIND)))


async def test_one_replica_collects_once_an_interval(here: Yard, other: Yard) -> None:
    servers = [Server(here), Server(other)]
    for expected in (1, 1, 2, 2, 3):
        await asyncio.gather(*(server.turn() for server in servers))
        assert await collections(here) == expected
        await here.pass_(13 * HOUR)


async def test_who_finds_another_collecting_leaves_it_to_them(here: Yard, other: Yard) -> None:
    lease = await Leases(other.driver, supported=True).take(f"{keys.LEASES}garbage", {})
    async with lease:  # type: ignore[union-attr]
        await Server(here).turn()
        assert await collections(here) == 0
    await Server(here).turn()
    assert await collections(here) == 1


async def test_what_it_did_is_logged_and_counted(here: Yard) -> None:
    await here.push(b"garbage")
    await here.pass_(49 * HOUR)
    server = Server(here)
    await server.turn()
    event, fields = server.log.get_nowait()
    assert (event, fields["state"], fields["freed"], fields["copies"]) == ("garbage collected", "done", 7, 1)
    assert "error" not in fields
    found = server.metrics()
    assert found['edge_registry_gc_collections_total{state="done"}'] == 1
    assert found["edge_registry_gc_freed_bytes_total"] == 7
    assert found['edge_registry_gc_objects_total{kind="copies"}'] == 1
    assert found["edge_registry_gc_last_end_seconds"] > 1_700_000_000
    assert found["edge_registry_gc_last_duration_seconds"] > 0


async def test_why_it_was_stopped_is_logged(here: Yard) -> None:
    await here.driver.put(f"{keys.manifests(keys.Name('x'))}sha256/{'0' * 64}/n.t", b"?")
    server = Server(here)
    await server.turn()
    _, fields = server.log.get_nowait()
    assert fields["state"] == "stopped"
    assert "cannot be read" in fields["error"]
    found = server.metrics()
    assert found["edge_registry_gc_last_end_seconds"] == 0
    assert found['edge_registry_gc_stopped_total{cause="unreadable"}'] == 1
    assert found[LAST_STOPPED.format("unreadable")] == 1


async def test_every_replica_tells_what_stopped_the_last_collection_until_one_is_done(here: Yard, other: Yard) -> None:
    manifest = f"{keys.manifests(keys.Name('x'))}sha256/{'0' * 64}/n.t"
    await here.driver.put(manifest, b"?")
    await Server(here).turn()
    for _ in range(2):  # however long it takes until the next one
        late = Server(other)
        await late.opened()
        causes = ("off", "unreadable", "max_share", "refused", "failed")
        assert [late.metrics()[LAST_STOPPED.format(cause)] for cause in causes] == [0] * 5
        assert [late.metrics()[f'edge_registry_gc_stopped_total{{cause="{cause}"}}'] for cause in causes] == [0] * 5
        await late.turn()
        assert [late.metrics()[LAST_STOPPED.format(cause)] for cause in causes] == [0, 1, 0, 0, 0]
        await here.pass_(23 * HOUR)
    await here.driver.delete(manifest)
    await here.pass_(2 * HOUR)
    for server in (late, Server(here)):
        await server.turn()
        assert [server.metrics()[LAST_STOPPED.format(cause)] for cause in causes] == [0] * 5


async def test_that_too_much_would_go_is_counted_before_and_when_it_happens(
    here: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "FLOOR", 0)
    await here.push(b"garbage")
    await here.pass_(49 * HOUR)
    server, stopped = Server(here, max_share=0.5), 'edge_registry_gc_stopped_total{cause="max_share"}'
    await server.opened()
    assert server.metrics()[stopped] == 0  # an alert sees it rise
    await server.turn()
    assert server.metrics()[stopped] == 1


async def test_every_replica_tells_when_the_last_one_ended_that_was_done(here: Yard, other: Yard) -> None:
    await Server(here).turn()
    late = Server(other)
    await late.turn()
    found = late.metrics()
    assert 'edge_registry_gc_collections_total{state="done"}' not in found  # it was not here
    written = (await here.driver.stat((await here.keys(keys.reports(reports.KIND)))[0])).modified
    assert found["edge_registry_gc_last_end_seconds"] == written


async def test_collections_that_are_stopped_do_not_push_out_the_last_one_that_was_done(here: Yard) -> None:
    await Server(here).turn()
    done = await reports.last_done(here.bucket)
    await here.driver.put(f"{keys.manifests(keys.Name('x'))}sha256/{'0' * 64}/n.t", b"?")
    for _ in range(25):
        await here.pass_(25 * HOUR)
        server = Server(here)
        await server.turn()
    assert done is not None
    assert (await reports.last(here.bucket) or {})["state"] == "stopped"
    assert server.metrics()["edge_registry_gc_last_end_seconds"] == done.at
    await server.turn()
    assert server.log.qsize() == 1  # what was stopped counts as well: nobody hurries to be stopped again


async def test_it_runs_by_itself_until_it_is_cancelled(here: Yard) -> None:
    server = Server(here, interval=0.05)
    running = asyncio.create_task(server.run())
    for _ in range(2):
        await here.pass_(1)
        await asyncio.wait_for(server.log.get(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_store_that_fails_ends_a_turn_and_not_the_schedule(here: Yard, recorded: Recorded) -> None:
    server = Server(here, interval=0.05)

    async def fail() -> None:
        from storage import Unavailable

        raise Unavailable("the store does not answer")

    recorded.before("list", keys.REPORTS, fail)
    running = asyncio.create_task(server.run())
    event, fields = await asyncio.wait_for(server.log.get(), 10)
    assert (event, fields["duty"]) == ("upkeep failed", "garbage")
    assert "does not answer" in fields["error"]
    assert (await asyncio.wait_for(server.log.get(), 10))[0] == "garbage collected"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("off", ["interval", "fences", "list_after_write"])
async def test_where_it_is_off_nothing_runs(here: Yard, off: str) -> None:
    if off != "interval":
        here.bucket.capabilities = replace(here.bucket.capabilities, **{off: False})
    server = Server(here, interval=0 if off == "interval" else 0.01)
    await asyncio.wait_for(server.run(), 5)
    assert await collections(here) == 0


async def test_without_conditional_writes_two_may_collect_at_once(here: Yard, other: Yard) -> None:
    servers = [Server(here, leases=False), Server(other, leases=False)]
    await asyncio.gather(*(server.turn() for server in servers))
    assert await collections(here) in (1, 2)
