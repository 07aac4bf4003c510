"""rebuild writes every derived key anew, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.oci.digests import digest_of
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.registry import Registry
from app.upkeep.decay.rebuild import Rebuilt, rebuild
from tests.upkeep.decaying import DRIVERS, HERE, THERE, Decaying, bucket_on, decaying, driver_of

GONE = Name("team/gone")


@pytest.fixture(params=DRIVERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Decaying]:
    async with decaying(driver_of(request.param, request, tmp_path)) as found:
        image = await found.image(b"layer")
        await found.image(b"layer", b"0" * (160 << 10), name=THERE)
        subject = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
        await found.image(b"signature", tag="sig", subject=subject, annotations={"by": "me"})
        await found.index(image)
        await found.push(b"only a blob", Name("pushed"))
        await found.repository(GONE).manifests.delete(await found.image(b"gone", name=GONE))
        yield found


async def lose(store: Decaying) -> None:
    """Deletes every derived key."""
    derived = [key for key in await store.contents() if key.startswith((keys.CATALOG, keys.HOLDERS))]
    derived += [key for key in await store.contents(keys.REPOSITORIES) if "/_referrers/" in key]
    assert len(derived) == 3 + 6 + 1
    await store.store.driver.delete_many(derived)


async def test_after_the_loss_of_all_derived_keys_everything_is_as_before(store: Decaying) -> None:
    before = await store.contents()
    await lose(store)
    store.bucket = bucket_on(store.store)  # a process that remembers nothing
    await store.bucket.signing.start()
    assert (await Registry(store.bucket).catalog(10, None)) == ([], False)
    done = await rebuild(store.bucket, lambda *_: None)
    assert done == Rebuilt(catalog=3, holders=6, referrers=1, manifests=4)
    assert await store.contents() == before
    names, _ = await Registry(store.bucket).catalog(10, None)
    assert names == sorted([HERE, THERE, GONE])
    image = (await store.repository().manifests.stat_tag(Tag("v1"))).digest
    (found,) = (await store.repository().referrers.list(image, None, None)).descriptors
    assert found["annotations"] == {"by": "me"}
    mounted = await store.repository(Name("new")).blobs.mount(digest_of(b"signature"), None, lambda _: True)
    assert mounted is not None
    assert (await store.verify()).found.total() == 0


async def test_a_second_run_writes_nothing(store: Decaying) -> None:
    store.store.asked.clear()
    assert await rebuild(store.bucket, lambda *_: None) == Rebuilt(manifests=4)
    assert store.writes() == []


async def test_a_dry_run_counts_and_writes_nothing(store: Decaying) -> None:
    await lose(store)
    before = await store.contents()
    done = await rebuild(store.bucket, lambda *_: None, dry_run=True)
    assert (done.catalog, done.holders, done.referrers) == (3, 6, 1)
    assert await store.contents() == before


async def test_garbage_among_the_derived_keys_is_left_and_a_garbled_descriptor_is_not(store: Decaying) -> None:
    (referrer,) = [key for key in await store.contents(keys.REPOSITORIES) if "/_referrers/" in key]
    right = (await store.store.get(referrer)).data
    await store.store.put(referrer, b"{")
    await store.store.put("blobs/note", b"mine")
    assert (await rebuild(store.bucket, lambda *_: None)).referrers == 1
    assert (await store.store.get(referrer)).data == right
    assert (await store.store.get("blobs/note")).data == b"mine"


async def test_manifests_that_cannot_be_read_are_passed_over_and_counted(store: Decaying) -> None:
    await store.flip(keys.manifest(THERE, (await store.repository(THERE).manifests.stat_tag(Tag("v1")))))
    assert (await rebuild(store.bucket, lambda *_: None)).unreadable == 1
