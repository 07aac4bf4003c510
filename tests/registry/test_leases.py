"""Leases: one owner among racing replicas, taken over when it stops, and never somebody else's deleted."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from app.registry.leases import Held, Leases, Other
from storage import Driver, NotFound, Unavailable
from storage.driver import Condition, Fence
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.services.minio import MinioServer

KEY = "upkeep/leases/one"
SOON = 0.06
"""Seconds of a lease's life, where a test waits for renewals."""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched(MemoryDriver):
    """A memory store that tells of its puts, and that can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: asyncio.Queue[bytes] = asyncio.Queue()
        self.failing = False

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        if self.failing:
            self.puts.put_nowait(b"failed")
            raise Unavailable("the store is away")
        await super().put(key, data, condition=condition, fence=fence)
        self.puts.put_nowait(data)


def mine(taken: Held | Other) -> Held:
    assert isinstance(taken, Held)
    return taken


def others(taken: Held | Other) -> Mapping[str, str]:
    assert isinstance(taken, Other)
    return taken.about


async def exists(driver: Driver) -> bool:
    try:
        await driver.get(KEY)
    except NotFound:
        return False
    return True


async def beat(driver: Watched, times: int = 2) -> None:
    """Waits for the next writes."""
    async with asyncio.timeout(10):
        for _ in range(times):
            await driver.puts.get()


@pytest.fixture(params=["memory", "filesystem", pytest.param("minio", marks=pytest.mark.minio)])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    driver: Driver
    match request.param:
        case "memory":
            driver = MemoryDriver()
        case "filesystem":
            driver = FilesystemDriver(tmp_path)
        case _:
            minio: MinioServer = request.getfixturevalue("minio")
            given = {"access_key": minio.access_key, "secret_key": minio.secret_key, "endpoint": minio.endpoint}
            settings = S3Settings.model_validate({**given, "bucket": request.getfixturevalue("bucket")})
            driver = S3Driver(settings)
    await driver.start()
    yield driver
    await driver.close()


async def test_of_racing_takers_exactly_one_holds_it(driver: Driver) -> None:
    replicas = [Leases(driver, supported=True) for _ in range(8)]
    taken = await asyncio.gather(*(replica.take(KEY, {"at": str(n)}) for n, replica in enumerate(replicas)))
    (winner,) = [number for number, lease in enumerate(taken) if isinstance(lease, Held)]
    assert {others(lease)["at"] for lease in taken if isinstance(lease, Other)} == {str(winner)}


async def test_it_is_free_again_when_its_owner_has_ended(driver: Driver) -> None:
    one, two = (Leases(driver, supported=True) for _ in range(2))
    async with mine(await one.take(KEY, {"at": "one"})):
        assert others(await two.take(KEY, {"at": "two"})) == {"at": "one"}
    assert not await exists(driver)
    mine(await two.take(KEY, {"at": "two"}))


async def test_of_racing_waiters_exactly_one_takes_over_the_dead(driver: Driver) -> None:
    clock = Clock()
    mine(await Leases(driver, supported=True).take(KEY, {"at": "dead"}))
    waiters = [Leases(driver, supported=True, life=10, clock=clock) for _ in range(6)]
    for waiter in waiters:
        others(await waiter.take(KEY, {}))
    clock.now += 9.9
    for waiter in waiters:
        others(await waiter.take(KEY, {}))
    clock.now += 0.1
    taken = await asyncio.gather(*(waiter.take(KEY, {"at": str(n)}) for n, waiter in enumerate(waiters)))
    (winner,) = [number for number, lease in enumerate(taken) if isinstance(lease, Held)]
    assert {others(lease)["at"] for lease in taken if isinstance(lease, Other)} == {str(winner)}


async def test_an_owner_that_renews_is_not_taken_over(driver: Driver) -> None:
    clock = Clock()
    held = mine(await Leases(driver, supported=True).take(KEY, {"at": "owner"}))
    waiter = Leases(driver, supported=True, life=10, clock=clock)
    for _ in range(5):
        assert others(await waiter.take(KEY, {})) == {"at": "owner"}
        clock.now += 11
        await held._renew(driver)
    assert not held.lost.is_set()


async def test_an_owner_that_slept_learns_it_and_leaves_the_new_owners_lease_alone(driver: Driver) -> None:
    clock = Clock()
    waiter = Leases(driver, supported=True, clock=clock)
    slept = mine(await Leases(driver, supported=True, life=SOON).take(KEY, {"at": "old"}))
    others(await waiter.take(KEY, {}))
    clock.now += 10
    taken = mine(await waiter.take(KEY, {"at": "new"}))
    async with slept:
        async with asyncio.timeout(10):
            await slept.lost.wait()
    assert others(await Leases(driver, supported=True).take(KEY, {})) == {"at": "new"}
    await taken._renew(driver)
    assert not taken.lost.is_set()


async def test_it_is_renewed_while_it_is_held_and_each_version_differs() -> None:
    driver = Watched()
    async with mine(await Leases(driver, supported=True, life=SOON).take(KEY, {"at": "one"})) as held:
        written = {await asyncio.wait_for(driver.puts.get(), 10) for _ in range(4)}
        assert len(written) == 4
        assert not held.lost.is_set()
    assert not await exists(driver)


async def test_an_owner_without_a_renewal_deletes_nothing_of_others_at_its_end() -> None:
    driver, clock = MemoryDriver(), Clock()
    waiter = Leases(driver, supported=True, clock=clock)
    async with mine(await Leases(driver, supported=True, life=3600).take(KEY, {"at": "old"})):
        others(await waiter.take(KEY, {}))
        clock.now += 10
        mine(await waiter.take(KEY, {"at": "new"}))
    assert await exists(driver)


async def test_a_lease_that_was_deleted_is_written_again() -> None:
    driver = Watched()
    async with mine(await Leases(driver, supported=True, life=SOON).take(KEY, {"at": "one"})) as held:
        await beat(driver)
        await driver.delete(KEY)
        await beat(driver)
        assert await exists(driver)
        assert not held.lost.is_set()


async def test_a_renewal_that_was_applied_late_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MemoryDriver()
    held = mine(await Leases(driver, supported=True).take(KEY, {"at": "one"}))

    async def late(key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None) -> None:
        await MemoryDriver.put(driver, key, held.body())  # an earlier attempt, whose answer never came
        await MemoryDriver.put(driver, key, data, condition=condition, fence=fence)

    monkeypatch.setattr(driver, "put", late)
    await held._renew(driver)
    assert not held.lost.is_set()


async def test_an_outage_of_the_store_loses_no_lease_and_ends_no_work() -> None:
    driver = Watched()
    async with mine(await Leases(driver, supported=True, life=SOON).take(KEY, {"at": "one"})) as held:
        driver.failing = True
        await beat(driver, 4)
        assert not held.lost.is_set()
        driver.failing = False
        await beat(driver)
        assert not held.lost.is_set()
    assert not await exists(driver)


async def test_a_store_that_is_away_at_the_end_does_not_hide_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MemoryDriver()

    async def away(key: str) -> None:
        raise Unavailable(key)

    async def work() -> None:
        async with mine(await Leases(driver, supported=True).take(KEY, {})):
            monkeypatch.setattr(driver, "get", away)
            raise KeyError("the work's own")

    with pytest.raises(KeyError, match="the work's own"):
        await work()


async def test_a_store_that_hangs_at_the_end_is_left_after_a_life(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MemoryDriver()

    async def hang(key: str) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        async with mine(await Leases(driver, supported=True, life=SOON).take(KEY, {})):
            monkeypatch.setattr(driver, "get", hang)


async def test_a_cancelled_owner_frees_its_lease() -> None:
    driver, entered = MemoryDriver(), asyncio.Event()

    async def work() -> None:
        async with mine(await Leases(driver, supported=True).take(KEY, {})):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await exists(driver)


async def test_a_failing_store_is_said_to_who_takes() -> None:
    driver = Watched()
    driver.failing = True
    with pytest.raises(Unavailable):
        await Leases(driver, supported=True).take(KEY, {})


async def test_without_conditions_everybody_holds_it_and_nothing_is_written() -> None:
    driver = Watched()
    leases = Leases(driver, supported=False)
    async with mine(await leases.take(KEY, {})) as one, mine(await leases.take(KEY, {})) as two:
        assert not one.lost.is_set()
        assert not two.lost.is_set()
    assert driver.puts.empty()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"mark": 1, "about": {}}', b'{"mark": "", "about": 3}', b"\xff"])
async def test_what_is_no_lease_dies_like_one(body: bytes) -> None:
    driver, clock = MemoryDriver(), Clock()
    await driver.put(KEY, body)
    leases = Leases(driver, supported=True, clock=clock)
    assert others(await leases.take(KEY, {"at": "one"})) == {}
    clock.now += 10
    mine(await leases.take(KEY, {"at": "one"}))


async def test_waiting_for_many_leases_keeps_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.registry.leases._REMEMBERED", 3)
    driver = MemoryDriver()
    owner, waiter = (Leases(driver, supported=True) for _ in range(2))
    for number in range(10):
        await owner.take(f"{KEY}-{number}", {})
        others(await waiter.take(f"{KEY}-{number}", {}))
    assert len(waiter._seen) == 3
