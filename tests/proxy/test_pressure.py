"""A cache stays near its limit while five times as much is pulled through it; who looks at it, and when."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.proxy.eviction import Reason, Report
from app.proxy.pressure import Pressure
from app.registry import keys
from app.registry.leases import Leases
from app.registry.listing import every
from app.registry.registry import Repository
from storage import Driver, Unavailable
from storage.memory import MemoryDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.proxy.pinning import UP, eventually, opened
from tests.registry.conftest import manifest_of, stream
from tests.services.minio import MinioServer
from tests.services.upstreams import Distribution

MIB = 1 << 20
LIMIT, IMAGE = 24 * MIB, 1 * MIB
HOSTED = Name("team/app")


def connected(minio: MinioServer, bucket: str) -> S3Driver:
    logins = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    return S3Driver(S3Settings.model_validate({"endpoint": minio.endpoint, "bucket": bucket, **logins}))


@pytest.fixture
async def driver(minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
    driver = connected(minio, bucket)
    await driver.start()
    yield driver
    await driver.close()


async def weight(driver: Driver) -> int:
    """Bytes of all blobs in the bucket."""
    return sum([entry.size async for entry in every(driver, keys.DATA)])


@pytest.mark.minio
@pytest.mark.slow
async def test_bytes_in_the_bucket_stay_near_the_limit_while_five_times_as_much_is_pulled(
    upstream: Distribution, tmp_path: Path, driver: S3Driver, minio: MinioServer, bucket: str
) -> None:
    pushed = [f"v{number}" for number in range(5 * LIMIT // IMAGE)]
    for place, tag in enumerate(pushed):
        await asyncio.to_thread(upstream.pusher.image, f"pressed/{place % 3}", tag, [IMAGE // 2] * 2, seed=tag)
    pinned = await asyncio.to_thread(upstream.pusher.image, "pressed/pinned", "v1", [MIB], seed="pinned")
    settings = {"name": UP, "url": upstream.url, "max_bytes": LIMIT, "prefetch": {"enabled": False}}
    store = connected(minio, bucket)
    async with opened(tmp_path, upstream.url, driver=store, alone=False, upstreams=[settings]) as here:
        hosted = Repository(here.bucket, HOSTED)
        layer = digest_of(b"h" * MIB)
        await hosted.uploads.put(layer, stream(b"h" * MIB))
        image = await hosted.manifests.put(manifest_of(layer), OCI_MANIFEST, digest=None, tagged=(), by="ann")
        await here.pins.add(f"{UP}/pressed/pinned:v1", ["linux/amd64"])
        await here.bring("pressed/pinned", "v1")
        most = 0
        for place, tag in enumerate(pushed):
            await here.bring(f"pressed/{place % 3}", tag)
            most = max(most, await weight(driver))

        async def is_below() -> bool:
            # What is recent stays up to 1.1 times the limit, and what came since the last look is looked at above 0.05 times.
            return await weight(driver) - MIB <= 1.15 * LIMIT

        await eventually(is_below)
        print(f"at most {most - MIB:,} bytes of a cache of {LIMIT:,}")
        assert LIMIT < most - MIB <= 1.3 * LIMIT
        assert await weight(driver) > 0.5 * LIMIT
        async with hosted.blobs.open(await hosted.blobs.stat(layer)) as reader:
            assert b"".join([chunk async for chunk in reader]) == b"h" * MIB
        assert (await hosted.manifests.get(image.digest))[0].digest == image.digest
        status = [
            await here.pins.status(found)
            for pin in await here.pins.all()
            for found in await here.pins.images(pin, ask=False)
        ]
        assert [survey is not None and survey.complete for survey in status] == [True]
        repository = here.repository("pressed/pinned")
        for data in pinned.blobs:
            assert await repository.blobs.stat(Digest(digest_of(data)))


class Counted:
    """An evictor that counts its runs."""

    max_bytes = 1000

    def __init__(self, *reports: Report) -> None:
        self.ran = asyncio.Semaphore(0)
        self._reports = [*reports]

    async def run(self) -> Report:
        self.ran.release()
        return self._reports.pop(0) if self._reports else Report("up", 0, 0)


def leases() -> Leases:
    return Leases(MemoryDriver(), supported=True)


async def test_a_cache_is_looked_at_as_soon_as_a_twentieth_of_its_limit_came() -> None:
    evictor = Counted()
    given: dict[str, Any] = {"up": evictor}
    pressure = Pressure(given, 3600, leases(), lambda _event, _fields: None)
    looking = asyncio.create_task(pressure.run())
    for upstream, size in (("other", 5000), ("up", 30), ("up", 20)):
        pressure.arrived(upstream, size)
    await asyncio.sleep(0.05)
    assert evictor.ran.locked()
    pressure.arrived("up", 1)
    await asyncio.wait_for(evictor.ran.acquire(), 5)
    pressure.arrived("up", 30)
    await asyncio.sleep(0.05)
    assert evictor.ran.locked()
    looking.cancel()


async def test_a_replica_that_finds_another_looking_looks_once_more_afterwards() -> None:
    evictor, shared = Counted(), MemoryDriver()
    given: dict[str, Any] = {"up": evictor}
    pressure = Pressure(given, 3600, Leases(shared, supported=True), lambda _event, _fields: None)
    lease = await Leases(shared, supported=True).take(f"{keys.LEASES}eviction", {})
    looking = asyncio.create_task(pressure.run())
    async with lease:  # type: ignore[union-attr]
        pressure.arrived("up", 900)
        await asyncio.sleep(0.2)
        assert evictor.ran.locked()
    await asyncio.wait_for(evictor.ran.acquire(), 10)
    looking.cancel()


@pytest.mark.parametrize("reason", ["in flight", "needed"])
async def test_a_cache_whose_blobs_were_on_their_way_is_looked_at_again_soon(
    monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    monkeypatch.setattr("app.proxy.pressure._SOON", 0.05)
    evictor = Counted(Report("up", 2000, 2000, kept=Counter({reason: 1})))
    given: dict[str, Any] = {"up": evictor}
    pressure = Pressure(given, 3600, leases(), lambda _event, _fields: None)
    looking = asyncio.create_task(pressure.run())
    pressure.arrived("up", 900)
    for _ in range(2):
        await asyncio.wait_for(evictor.ran.acquire(), 5)
    looking.cancel()


async def test_a_look_that_failed_is_repeated_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Counted):
        async def run(self) -> Report:
            await super().run()
            raise Unavailable("the store is away")

    monkeypatch.setattr("app.proxy.pressure._SOON", 0.05)
    evictor, told = Failing(), list[str]()
    given: dict[str, Any] = {"up": evictor}
    pressure = Pressure(given, 3600, leases(), lambda event, _fields: told.append(event))
    looking = asyncio.create_task(pressure.run())
    pressure.arrived("up", 900)
    for _ in range(3):
        await asyncio.wait_for(evictor.ran.acquire(), 5)
    assert set(told) == {"eviction failed"}
    await asyncio.sleep(0.4)  # pauses of 0.2 and 0.4 s by now
    assert len(told) <= 5
    looking.cancel()


async def test_without_limits_nothing_is_looked_at() -> None:
    await asyncio.wait_for(Pressure({}, 0.01, leases(), lambda _event, _fields: None).run(), 5)
