"""A store that restarts during a look refuses for some seconds all that it has: none of that is decay."""

import pytest

from app.oci.digests import digest_of
from app.oci.manifests import OCI_MANIFEST
from app.registry import keys
from storage import Object, StorageError, Unavailable
from storage.memory import MemoryDriver
from tests.upkeep.decaying import THERE, Decaying, decaying


class Restarting(MemoryDriver):
    """It goes away before the read numbered `away_at`, and is back for whoever waits until it is ready."""

    away_at = -1
    reads = 0
    is_away = False
    restarts = 0

    async def ready(self) -> None:
        self.is_away = False

    async def get(self, key: str) -> Object:
        self.reads += 1
        if self.reads == self.away_at:
            self.is_away = True
            self.restarts += 1
        if self.is_away:
            raise Unavailable("the store gave no answer")
        return await super().get(key)


async def fill(store: Decaying) -> None:
    image = await store.image(b"layer")
    await store.image(b"layer", name=THERE)
    subject = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
    await store.image(b"signature", tag="sig", subject=subject)
    await store.index(image)


async def test_no_read_of_a_look_that_a_restart_refuses_becomes_a_finding_or_a_repair() -> None:
    driver = Restarting()
    async with decaying(driver) as store:
        await fill(store)
        driver.reads = 0
        assert (await store.repair()).found.total() == 0
        reads, before, ended = driver.reads, await store.contents(), 0
        for number in range(1, reads + 1):
            driver.reads, driver.away_at = 0, number
            try:
                await store.repair()
                ended += 1
            except StorageError:
                driver.is_away = False
            assert store.told == [], f"read {number} of {reads}"
        driver.away_at = -1
        assert await store.contents() == before
        assert driver.restarts == reads > 10
        assert ended > reads * 0.9  # and hardly any look was in vain


async def test_what_is_refused_again_once_the_store_answers_is_a_finding() -> None:
    async with decaying(MemoryDriver()) as store:
        await fill(store)
        bad = keys.data((await store.copy(digest_of(b"layer"), THERE)).uuid)

        def refuse(operation: str, key: str) -> None:
            if (operation, key) == ("open", bad):
                raise Unavailable("a disk lost some bytes")

        store.store.refuse = refuse
        await store.verify()
        assert [(finding.kind, finding.key) for finding in store.told] == [("copy-unreadable", bad)]


async def test_a_store_that_is_away_for_longer_ends_the_look_without_a_finding() -> None:
    class Away(Restarting):
        async def ready(self) -> None:
            if self.is_away:
                raise Unavailable("the store gave no answer")

    driver = Away()
    async with decaying(driver) as store:
        await fill(store)
        before = await store.contents()
        driver.reads, driver.away_at = 0, 3
        with pytest.raises(StorageError):
            await store.repair()
        assert store.told == []
        driver.is_away = False
        assert await store.contents() == before
