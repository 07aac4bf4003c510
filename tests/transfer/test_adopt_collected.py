"""Collecting garbage after a takeover: links that nobody needs go, the bytes of the old registry never do."""

import pytest

from app.oci.digests import Digest
from app.oci.manifests import parse_manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.registry import Repository
from app.upkeep.garbage.garbage import Garbage, Order
from app.upkeep.garbage.reports import Report
from app.upkeep.settings import UpkeepSettings
from storage.memory import MemoryDriver
from tests.registry.recorded import Clock
from tests.services.client import descriptor, digest_of, make_index
from tests.transfer.adopting import V2, Old, adopt, fingerprints, open_bucket

APP, DAYS = Name("team/app"), 24 * 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> MemoryDriver:
    return MemoryDriver(clock)


@pytest.fixture
def old(driver: MemoryDriver) -> Old:
    return Old(driver)


async def collect(driver: MemoryDriver) -> Report:
    """One collection, by a process of its own."""
    bucket = open_bucket(driver)
    garbage = Garbage(bucket, UpkeepSettings.model_validate({}))
    try:
        report = await garbage.collect(Order(max_share=1))
    finally:
        await garbage.close()
        await bucket.close()
    assert report.unreadable == []
    return report


async def is_whole(driver: MemoryDriver, name: Name, tag: str) -> bool:
    """Whether an image can be pulled with all its blobs."""
    here = Repository(open_bucket(driver), name)
    _, data = await here.manifests.get_tag(Tag(tag))
    for blob in parse_manifest(data, None).blobs:
        async with here.blobs.open(await here.blobs.stat(blob.digest)) as reader:
            if digest_of(b"".join([chunk async for chunk in reader])) != blob.digest:
                return False
    return True


async def test_collecting_keeps_all_that_manifests_need_and_every_byte_of_the_old_registry(
    driver: MemoryDriver, old: Old, clock: Clock
) -> None:
    child = await old.image(APP, "v1")
    await old.manifest(APP, make_index([descriptor(child.data, child.media_type)]), "multi")
    await old.image("other", "v1")
    lonely = await old.blob(APP, b"of no manifest")
    before = await fingerprints(driver, V2)
    await adopt(driver)
    for _ in range(3):
        clock.now += 3 * DAYS
        await collect(driver)
    assert await fingerprints(driver, V2) == before
    assert await is_whole(driver, APP, "v1")
    assert await is_whole(driver, Name("other"), "v1")
    held = [keys.digest_below(key) for key in await fingerprints(driver, keys.links(APP))]
    assert sorted(held) == sorted(digest_of(blob) for blob in child.blobs)
    assert lonely not in held


async def test_what_was_collected_comes_again_when_the_old_registry_needs_it(
    driver: MemoryDriver, old: Old, clock: Clock
) -> None:
    """A layer was pushed there long before its manifest."""
    image = await Old(MemoryDriver()).image(APP)
    for blob in image.blobs:
        await old.blob(APP, blob)
    await adopt(driver)
    clock.now += 3 * DAYS
    await collect(driver)
    assert await fingerprints(driver, keys.links(APP)) == {}
    await old.manifest(APP, image.data, "late")
    report = await adopt(driver)  # while tombstones of the copies are fresh
    assert report.whole, report.document()
    assert report.done["blob_bytes_copied"] == sum(len(blob) for blob in image.blobs)
    assert await is_whole(driver, APP, "late")
    for _ in range(3):
        clock.now += 3 * DAYS
        await collect(driver)
    assert await is_whole(driver, APP, "late")


async def test_the_layers_of_an_image_that_was_deleted_here_are_let_go_and_the_old_registry_keeps_them(
    driver: MemoryDriver, old: Old, clock: Clock
) -> None:
    image = await old.image(APP, "v1")
    before = await fingerprints(driver, V2)
    await adopt(driver)
    await Repository(open_bucket(driver), APP).manifests.delete(Digest(image.digest))
    clock.now += 3 * DAYS
    await collect(driver)
    assert await fingerprints(driver, keys.links(APP)) == {}
    assert await fingerprints(driver, V2) == before
