"""Pulls of cached manifests are remembered, cheaply."""

import pytest

from app.oci.digests import digest_of
from app.oci.names import Name
from app.proxy.pulls import GRAIN, Pulls
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.settings import RegistrySettings
from storage import Capabilities, Unavailable
from storage.memory import MemoryDriver
from tests.registry.recorded import Clock, Recorded

ALPINE = Name("docker.io/library/alpine")
MANIFEST = digest_of(b"manifest")
KEY = keys.pull(ALPINE, MANIFEST)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Recorded:
    return Recorded(MemoryDriver(clock))


@pytest.fixture
def bucket(driver: Recorded) -> Bucket:
    return Bucket(driver, RegistrySettings(), Capabilities(), lambda _event, _fields: None)


@pytest.fixture
def pulls(bucket: Bucket, clock: Clock) -> Pulls:
    return Pulls(bucket, clock=clock)


async def test_a_pull_asks_the_store_for_nothing_before_it_is_answered(
    pulls: Pulls, driver: Recorded, bucket: Bucket
) -> None:
    pulls.note(ALPINE, MANIFEST)
    assert driver.log == []
    await bucket.close()
    assert driver.log == [("put", KEY)]


async def test_the_age_of_the_key_follows_the_pulls_to_within_the_grain(
    pulls: Pulls, driver: Recorded, bucket: Bucket, clock: Clock
) -> None:
    ages = []
    for _ in range(5):
        pulls.note(ALPINE, MANIFEST)
        await bucket.close()
        ages.append(clock.now - (await driver.stat(KEY)).modified)
        clock.now += GRAIN / 2
    assert ages == [0, GRAIN / 2, 0, GRAIN / 2, 0]


async def test_each_manifest_of_each_repository_is_noted(pulls: Pulls, driver: Recorded, bucket: Bucket) -> None:
    other = Name("docker.io/library/busybox")
    for name, digest in ((ALPINE, MANIFEST), (other, MANIFEST), (ALPINE, digest_of(b"other"))):
        pulls.note(name, digest)
    await bucket.close()
    assert len(driver.places("put", "repositories/")) == 3


async def test_a_store_that_fails_disturbs_nobody_and_the_next_pull_tries_again(
    pulls: Pulls, driver: Recorded, bucket: Bucket
) -> None:
    async def fail() -> None:
        raise Unavailable("away")

    driver.before("put", KEY, fail)
    pulls.note(ALPINE, MANIFEST)
    await bucket.close()
    pulls.note(ALPINE, MANIFEST)
    await bucket.close()
    assert (await driver.stat(KEY)).size == 0


async def test_this_process_knows_its_own_pulls_exactly(pulls: Pulls, bucket: Bucket, clock: Clock) -> None:
    assert pulls.since(ALPINE, MANIFEST) is None
    pulls.note(ALPINE, MANIFEST)
    clock.now += 500
    pulls.note(ALPINE, MANIFEST)
    clock.now += 20
    assert pulls.since(ALPINE, MANIFEST) == 20
    await bucket.close()
