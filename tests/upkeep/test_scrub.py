"""Servers look for decay by themselves: a share of the bytes each time, one replica at a time, and nothing is mended unasked."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.oci.digests import digest_of
from app.registry import keys
from app.registry.leases import Leases
from app.settings import Settings
from app.telemetry.upkeep import UpkeepMetrics
from app.upkeep.decay import accounts
from app.upkeep.decay.scrub import AT_ONCE, Scrub
from app.upkeep.errors import NoScratch
from app.upkeep.schedule import Schedule
from app.upkeep.settings import UpkeepSettings
from storage import AccessDenied, Object, StorageError, StoreFull, Unavailable
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from tests.registry.recorded import Clock
from tests.services.app import Running, running
from tests.upkeep.decaying import HERE, Decaying, bucket_on, decaying

Line = tuple[str, Mapping[str, Any]]
HOUR = 3600.0
FIND = 'edge_registry_verify_faults_total{kind="copy-garbled"}'
MEND = 'edge_registry_verify_mended_total{kind="copy-garbled"}'
FAILED = "edge_registry_verify_failed_total"
BROKEN = "edge_registry_verify_last_broken"


class Server:
    """One replica. `log` is what it noted."""

    def __init__(self, at: Decaying, **settings: Any) -> None:
        self.log: asyncio.Queue[Line] = asyncio.Queue()
        self.collector = CollectorRegistry()
        given = UpkeepSettings.model_validate({"verify_share": 1, **settings})
        duty = Scrub(at.bucket, at.proxy, given, UpkeepMetrics(self.collector), self.note)
        self.leases = Leases(at.store, supported=True)  # type: ignore[arg-type]
        self.schedule = Schedule(at.bucket, self.leases, self.note, duty)

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        self.log.put_nowait((event, fields))

    async def turn(self) -> None:
        """One look, when it would be time for one."""
        await self.schedule.turn(24 * HOUR)

    def noted(self) -> list[Line]:
        return [self.log.get_nowait() for _ in range(self.log.qsize())]

    def metrics(self) -> dict[str, float]:
        return samples(generate_latest(self.collector).decode())


def samples(text: str) -> dict[str, float]:
    """Each sample's name with its labels, and its value."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Decaying]:
    async with decaying(MemoryDriver(clock)) as found:
        yield found


@pytest.fixture
async def other(store: Decaying) -> AsyncIterator[Decaying]:
    """A second replica on the same store."""
    found = Decaying(bucket_on(store.store.driver.replica()), store.store)  # type: ignore[attr-defined]
    yield found
    await found.bucket.close()


async def runs(store: Decaying) -> int:
    return len(await store.contents(keys.reports(accounts.KIND)))


async def garbled(store: Decaying, data: bytes = b"layer") -> str:
    """An image whose layer has rotted; returns the key of the bytes."""
    await store.image(data)
    key = keys.data((await store.copy(digest_of(data))).uuid)
    await store.flip(key)
    return key


async def test_one_replica_looks_once_an_interval(store: Decaying, other: Decaying, clock: Clock) -> None:
    await store.image(b"layer")
    servers = [Server(store), Server(other)]
    for expected in (1, 1, 2, 2, 3):
        await asyncio.gather(*(server.turn() for server in servers))
        assert await runs(store) == expected
        clock.now += 13 * HOUR
    assert sum(server.log.qsize() for server in servers) == 3


async def test_who_finds_another_looking_leaves_it_to_them(store: Decaying, other: Decaying) -> None:
    lease = await Leases(other.store, supported=True).take(f"{keys.LEASES}verify", {})  # type: ignore[arg-type]
    async with lease:  # type: ignore[union-attr]
        await Server(store).turn()
        assert await runs(store) == 0
    await Server(store).turn()
    assert await runs(store) == 1


async def test_only_what_was_done_of_the_whole_bucket_by_hand_counts(store: Decaying) -> None:
    server = Server(store)
    await accounts.keep(store.bucket, await store.verify(repository="team/*"))
    await server.turn()
    assert await runs(store) == 1
    await accounts.keep(store.bucket, await store.verify())
    await server.turn()
    assert await runs(store) == 2


async def test_every_blob_is_read_once_a_round(store: Decaying, clock: Clock) -> None:
    await store.image(*[b"%d" % number for number in range(60)])
    server = Server(store, verify_share=0.25)
    for turn in (1, 2, 3, 4):
        store.store.asked.clear()
        await server.turn()
        read = Counter(key for action, key in store.store.asked if action == "open")
        assert 0 < len(read) < 60
        found = server.metrics()
        assert found['edge_registry_verify_objects_total{kind="copies"}'] == turn * 60
        clock.now += 25 * HOUR
    assert found['edge_registry_verify_objects_total{kind="hashed"}'] == 60
    assert found["edge_registry_verify_read_bytes_total"] == sum(len(b"%d" % number) for number in range(60))
    assert found["edge_registry_verify_last_end_seconds"] == clock.now - 25 * HOUR


async def test_what_it_found_is_logged_and_counted_and_nothing_is_written_but_the_account(store: Decaying) -> None:
    server, key = Server(store), await garbled(store)
    assert server.metrics()[FIND] == 0  # an alert sees it rise
    before = await store.contents()
    await server.turn()
    first, last = server.noted()
    assert (first[0], first[1]["kind"], last[0], last[1]["broken"]) == (
        "decay found",
        "copy-garbled",
        "store verified",
        1,
    )
    assert "hashes to" in first[1]["error"]
    assert "push or import the image again" in first[1]["remedy"]
    found = server.metrics()
    assert (found[FIND], found[MEND], found[BROKEN]) == (1, 0, 1)
    after = await store.contents()
    written = {path for path in after if after[path] != before.get(path)}
    assert written == set(await store.contents(keys.reports(accounts.KIND)))
    assert before.keys() - after.keys() == set()
    assert key in after


async def test_what_was_found_stays_known_until_it_is_mended(store: Decaying, clock: Clock) -> None:
    key = await garbled(store)
    server = Server(store, verify_share=0)
    await accounts.keep(store.bucket, await store.verify())  # its sample was everything: the next ones are nothing
    for _ in range(3):
        clock.now += 25 * HOUR
        await server.turn()
        assert server.metrics()[BROKEN] == 1
    await store.flip(key)
    clock.now += 25 * HOUR
    await server.turn()
    assert server.metrics()[BROKEN] == 0


async def test_many_looks_by_hand_at_one_repository_leave_what_is_known_of_the_bucket(
    store: Decaying, clock: Clock
) -> None:
    await garbled(store)
    await accounts.keep(store.bucket, await store.verify())
    elsewhere = await store.verify(repository="elsewhere")
    for _ in range(25):
        clock.now += 60
        await accounts.keep(store.bucket, elsewhere)
    assert (await accounts.last(store.bucket) or {})["repositories"] == "elsewhere"
    clock.now += 25 * HOUR
    server = Server(store, verify_share=0)
    await server.turn()
    assert server.metrics()[BROKEN] == 1
    assert (await accounts.last(store.bucket) or {})["repositories"] == "all"


async def test_it_mends_where_that_is_wanted(store: Decaying, clock: Clock) -> None:
    await store.image(b"layer")
    await store.store.delete(keys.catalog(HERE))
    await Server(store).turn()
    assert await store.contents(keys.CATALOG) == {}
    clock.now += 25 * HOUR
    server = Server(store, verify_repair=True)
    await server.turn()
    assert "mended" in server.noted()[0][1]
    found, kind = server.metrics(), '{kind="catalog-missing"}'
    assert found[f"edge_registry_verify_faults_total{kind}"] == 1
    assert found[f"edge_registry_verify_mended_total{kind}"] == 1
    assert found[BROKEN] == 0
    assert list(await store.contents(keys.CATALOG)) == [keys.catalog(HERE)]


async def test_every_replica_tells_what_the_last_one_found(store: Decaying, other: Decaying) -> None:
    await garbled(store)
    await Server(store).turn()
    late = Server(other)
    assert late.metrics()[BROKEN] == 0
    await late.turn()
    found = late.metrics()
    assert (found[BROKEN], found[FIND]) == (1, 0)
    assert found["edge_registry_verify_last_end_seconds"] > 1_700_000_000


async def test_it_keeps_its_rate_and_asks_for_few_objects_at_once(
    store: Decaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        await store.image(b"%d" % number * 1000, tag=f"v{number}")
    get, now, most = store.store.driver.get, 0, 0

    async def crowded(key: str) -> Object:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0)
        try:
            return await get(key)
        finally:
            now -= 1

    monkeypatch.setattr(store.store.driver, "get", crowded)
    server = Server(store, verify_rate=200_000)
    await server.turn()
    assert most == AT_ONCE
    assert server.metrics()["edge_registry_verify_last_duration_seconds"] > 70_000 / 200_000


async def test_a_folder_for_temporary_files_that_is_away_ends_a_turn_and_not_the_schedule(
    store: Decaying, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unmounted"))
    server = Server(store, verify_interval=0.05)
    at_work = asyncio.create_task(server.schedule.run())
    event, fields = await asyncio.wait_for(server.log.get(), 10)
    assert (event, fields["duty"]) == ("upkeep failed", "verify")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clock.now += 1
    while event != "store verified":
        event, fields = await asyncio.wait_for(server.log.get(), 10)
    assert server.metrics()[FAILED] >= 1
    at_work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await at_work


async def test_a_look_that_fails_is_not_begun_again_before_its_time_by_any_replica_and_forgets_nothing(
    store: Decaying, other: Decaying, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await garbled(store)
    await Server(store).turn()
    whole = await accounts.last_whole(store.bucket)
    servers = [Server(store, verify_share=0), Server(other, verify_share=0)]
    assert [server.metrics()[FAILED] for server in servers] == [0, 0]  # an alert sees it rise
    clock.now += 25 * HOUR
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unmounted"))
    with pytest.raises(NoScratch):
        await servers[0].turn()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = Server(store, verify_share=0)  # a process that was restarted
    for _ in range(3):
        clock.now += 7 * HOUR
        for server in (*servers, again):
            await server.turn()
    assert (await runs(store), servers[0].metrics()[FAILED], servers[0].log.qsize()) == (1, 1, 0)
    assert await accounts.last_whole(store.bucket) == whole
    (document,) = (await store.contents(keys.reports(accounts.FAILED))).values()
    assert "temporary files" in json.loads(document)["failed"]
    clock.now += 4 * HOUR
    await again.turn()
    assert (await runs(store), again.metrics()[BROKEN]) == (2, 1)


@pytest.mark.parametrize("refusal", [AccessDenied("not yours"), StoreFull("no room")])
async def test_where_no_account_can_be_kept_what_was_found_is_told_and_the_next_look_waits(
    store: Decaying, refusal: StorageError
) -> None:
    await garbled(store)
    server = Server(store)

    def refuse(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(keys.REPORTS):
            raise refusal

    store.store.refuse = refuse
    with pytest.raises(type(refusal)):
        await server.turn()
    found, told = server.metrics(), server.noted()
    assert (found[BROKEN], found[FIND], found[FAILED]) == (1, 1, 0)
    assert [event for event, _ in told] == ["decay found", "store verified", "report not kept"]
    assert told[-1][1]["error"] == str(refusal)
    store.store.asked.clear()
    for _ in range(3):
        await server.turn()
    assert server.noted() == []
    assert {operation for operation, _ in store.store.asked} <= {"list", "get"}
    assert server.metrics()[BROKEN] == 1


async def test_a_look_that_the_store_ends_and_that_nothing_may_say_so_is_not_begun_again_before_its_time(
    store: Decaying,
) -> None:
    await store.image(b"layer")
    server = Server(store)

    def refuse(operation: str, key: str) -> None:
        if (operation == "list" and key == keys.REPOSITORIES) or (operation == "put" and key.startswith(keys.REPORTS)):
            raise Unavailable("the store gave no answer")

    store.store.refuse = refuse
    with pytest.raises(Unavailable):
        await server.turn()
    assert [event for event, _ in server.noted()] == ["report not kept"]
    store.store.refuse = lambda *_: None
    await server.turn()
    assert (await runs(store), server.metrics()[FAILED]) == (0, 1)


@pytest.mark.parametrize("given", [{}, {"verify_interval": 0}])
async def test_unless_an_interval_is_set_nothing_runs(store: Decaying, given: dict[str, Any]) -> None:
    await asyncio.wait_for(Server(store, **given).schedule.run(), 5)
    assert await runs(store) == 0


def settings(**upkeep: Any) -> Settings:
    return Settings.model_validate({"storage": {"driver": "memory"}, "upkeep": {"verify_share": 1, **upkeep}})


async def shown(service: Running, name: str, value: float) -> dict[str, float]:
    """What /metrics says once it says this."""
    async with asyncio.timeout(20):
        while (found := samples((await service.client.get("/metrics")).body.decode())).get(name) != value:
            await asyncio.sleep(0.02)
    return found


async def test_a_running_server_finds_a_bit_that_flipped_and_its_replica_tells_so_too(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    async with running(settings(verify_interval=0), driver) as service:
        await service.client.push_image("team/app", "v1", b"layer")
        (key,) = [key for key in await service.store.keys(keys.DATA) if (await driver.get(key)).data == b"layer"]
        (tmp_path / "store" / key).write_bytes(b"l4yer")
    often, seldom = settings(verify_interval=0.4), settings(verify_interval=4)
    async with (
        running(often, FilesystemDriver(tmp_path / "store")) as first,
        running(seldom, FilesystemDriver(tmp_path / "store")) as second,
    ):
        assert (await shown(first, BROKEN, 1))[FIND] >= 1
        assert (await shown(second, BROKEN, 1))["edge_registry_verify_last_end_seconds"] > 1_700_000_000
        found = next(event for event in first.events() if event["event"] == "decay found")
    assert (found["level"], found["kind"]) == ("warning", "copy-garbled")
    assert found["place"].startswith("team/app ")
    assert (tmp_path / "store" / key).read_bytes() == b"l4yer"


async def test_a_server_that_must_not_write_does_not_look(tmp_path: Path) -> None:
    given = settings(verify_interval=0.05).model_copy(deep=True)
    given.registry.read_only = True
    async with running(given) as service:
        text = (await service.client.get("/metrics")).body.decode()
    assert "edge_registry_verify" not in text
