"""A publisher keeps to the collector's protocol: the order of its requests, and what it does about tombstones."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, Unavailable
from app.oci.manifests import OCI_MANIFEST
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Copy
from app.registry.publishing import bind, linked, usable
from app.registry.uploads import SHARED_FROM
from storage import OutcomeUnknown, StoreFull, Unavailable as StoreUnavailable
from tests.registry.conftest import HERE, THERE, Replica, manifest_of, stream
from tests.registry.recorded import Clock

INTENTS, TOMBSTONES, MANIFESTS = keys.INTENTS, keys.TOMBSTONES, "/_manifests/"


async def bury(replica: Replica, digest: Digest, scope: str = keys.EVERYWHERE) -> list[Copy]:
    """What a collector does first: a tombstone on every copy that HERE holds."""
    copies = await linked(replica.bucket, HERE, digest)
    for copy in copies:
        await replica.driver.put(keys.tombstone(copy, scope), b"")
    return copies


async def second_copy(replica: Replica, data: bytes) -> Copy:
    """Another copy of the same bytes, linked in HERE as two racing pushes leave it."""
    copy = Copy(keys.fresh(), len(data))
    await replica.driver.put(keys.data(copy.uuid), data)
    await bind(replica.bucket, HERE, digest_of(data), copy, replica.driver.fence())
    return copy


async def test_a_manifest_is_published_in_the_protocols_order(replica: Replica) -> None:
    layers = [await replica.push(data) for data in (b"one", b"two")]
    data = manifest_of(*layers)
    replica.driver.log.clear()
    put = replica.repository().manifests.put
    published = await put(data, OCI_MANIFEST, digest=None, tagged=[Tag("latest")], by="ann")
    await replica.settle()
    log = replica.driver
    resolved = [max(log.places("list", keys.links(HERE, d)) or log.places("stat", keys.links(HERE, d))) for d in layers]
    order = [
        max(resolved),
        log.place("put", INTENTS),
        log.place("list", TOMBSTONES),
        log.place("put", keys.manifests(HERE, published.digest)),
        log.place("put", keys.tags(HERE)),
    ]
    assert order == sorted(order)
    assert log.place("put", MANIFESTS) < log.place("delete", INTENTS)
    assert await replica.keys(INTENTS) == []


async def test_referrer_and_catalog_are_written_before_their_manifest(replica: Replica) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"nobody"), "size": 6}
    await replica.publish(subject=subject)
    log = replica.driver
    assert log.place("put", "/_referrers/") < log.place("put", MANIFESTS)
    assert log.place("put", keys.CATALOG) < log.place("put", MANIFESTS)


async def test_the_fence_is_taken_before_the_links_are_resolved(replica: Replica, clock: Clock) -> None:
    layer = await replica.push(b"layer")

    async def sleep() -> None:
        clock.now += replica.bucket.lifetimes.fence + 1

    replica.driver.before("list", TOMBSTONES, sleep)
    with pytest.raises(Unavailable) as caught:
        await replica.publish(layer)
    assert caught.value.status == 503
    assert "Retry-After" in caught.value.headers
    assert await replica.keys(keys.manifests(HERE)) == []
    await replica.settle()
    assert await replica.keys(INTENTS) == []
    assert await replica.publish(layer)


@pytest.mark.parametrize("failure", [OutcomeUnknown("no answer"), StoreUnavailable("later"), asyncio.CancelledError()])
async def test_an_intent_stays_while_the_publication_may_still_happen(replica: Replica, failure: BaseException) -> None:
    layer = await replica.push(b"layer")

    async def fail() -> None:
        raise failure

    replica.driver.after("put", MANIFESTS, fail)
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await replica.publish(layer)
    await replica.settle()
    assert len(await replica.keys(INTENTS)) == 1


async def test_an_intent_goes_after_a_definite_refusal(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    copies = await bury(replica, layer)
    for copy in copies:
        await replica.driver.delete(keys.data(copy.uuid))
    with pytest.raises(ManifestBlobUnknown):
        await replica.publish(layer)
    await replica.settle()
    assert await replica.keys(INTENTS) == []


async def test_a_manifest_without_blobs_needs_no_intent(replica: Replica) -> None:
    await replica.publish()
    assert not replica.driver.places("put", INTENTS)
    assert not replica.driver.places("list", TOMBSTONES)


@pytest.mark.parametrize("scope", [keys.EVERYWHERE, keys.escape(HERE)])
async def test_a_tombstoned_copy_is_copied_to_a_name_of_its_own(replica: Replica, scope: str) -> None:
    layer = await replica.push(b"layer")
    (dying,) = await bury(replica, layer, scope)
    await replica.publish(layer)
    after = await linked(replica.bucket, HERE, layer)
    (fresh,) = [copy for copy in after if copy != dying]
    await replica.driver.delete(keys.link(HERE, layer, dying))
    await replica.driver.delete(keys.data(dying.uuid))
    assert await replica.read(layer) == b"layer"
    assert keys.holder(layer, fresh, HERE) in await replica.keys(keys.holders(layer))


async def test_a_tombstone_of_another_repository_does_not_concern_us(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await bury(replica, layer, keys.escape(THERE))
    await replica.publish(layer)
    assert len(await linked(replica.bucket, HERE, layer)) == 1


async def test_another_living_copy_is_used_instead_of_a_tombstoned_one(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await bury(replica, layer)
    alive = await second_copy(replica, b"layer")
    replica.driver.log.clear()
    started: list[str] = []

    async def look() -> None:
        store = replica.driver._driver
        started.extend([(await store.get(key)).data.decode() for key in await replica.keys(INTENTS)])

    replica.driver.before("put", MANIFESTS, look)
    await replica.publish(layer)
    assert not replica.driver.places("copy", "")
    assert any(alive.uuid in body for body in started)


async def test_a_tombstoned_copy_without_bytes_is_unknown_and_its_link_goes(replica: Replica) -> None:
    layer, whole = await replica.push(b"layer"), await replica.push(b"whole")
    (dead,) = await bury(replica, layer)
    await replica.driver.delete(keys.data(dead.uuid))
    with pytest.raises(ManifestBlobUnknown) as caught:
        await replica.publish(layer, whole)
    assert caught.value.digests == [layer]
    assert await linked(replica.bucket, HERE, layer) == []
    with pytest.raises(BlobUnknown):
        await replica.repository().blobs.stat(layer)
    assert await replica.keys(keys.manifests(HERE)) == []
    assert await replica.push(b"layer") == layer
    await replica.publish(layer, whole)


async def test_more_tombstones_than_a_page_are_asked_for_copy_by_copy(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    for number in range(1001):
        await replica.driver.put(keys.tombstone(Copy(f"{number:032}", 1), keys.EVERYWHERE), b"")
    (dying,) = await bury(replica, layer)
    await replica.publish(layer)
    assert replica.driver.places("list", keys.tombstones(dying))
    assert len(await linked(replica.bucket, HERE, layer)) == 2


async def test_a_tombstone_written_between_intent_and_publication_is_the_collectors_business(replica: Replica) -> None:
    """The collector's second look sees the intent: the model's reason for the order."""
    layer = await replica.push(b"layer")

    async def tombstone() -> None:
        await bury(replica, layer)
        assert len(await replica.keys(INTENTS)) == 1

    replica.driver.after("list", TOMBSTONES, tombstone)
    await replica.publish(layer)
    assert len(await linked(replica.bucket, HERE, layer)) == 1


async def test_missing_blobs_and_children_are_all_named(replica: Replica) -> None:
    there, absent = await replica.push(b"there"), [digest_of(b"absent 1"), digest_of(b"absent 2")]
    with pytest.raises(ManifestBlobUnknown) as caught:
        await replica.publish(there, *absent)
    assert caught.value.digests == absent
    assert not replica.driver.places("put", INTENTS)
    assert await replica.keys(keys.manifests(HERE)) == []


async def test_a_sparse_manifest_is_taken_where_that_is_allowed(start: Callable[..., Replica]) -> None:
    replica = start(allow_sparse=True)
    digest = await replica.publish(digest_of(b"absent"))
    assert (await replica.repository().manifests.get(digest))[0].digest == digest


async def test_a_blob_of_another_repository_does_not_count(replica: Replica) -> None:
    layer = await replica.push(b"layer", THERE)
    with pytest.raises(ManifestBlobUnknown):
        await replica.publish(layer)


async def test_a_mount_refuses_a_tombstoned_copy(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await bury(replica, layer)
    assert await replica.repository(THERE).blobs.mount(layer, HERE, lambda _: True) is None
    assert await linked(replica.bucket, THERE, layer) == []
    await replica.settle()
    assert await replica.keys(INTENTS) == []


async def test_a_mount_follows_the_protocol_and_shares_the_bytes(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    replica.driver.log.clear()
    blob = await replica.repository(THERE).blobs.mount(layer, None, lambda _: True)
    await replica.settle()
    assert blob is not None
    log = replica.driver
    order = [
        log.place("list", keys.links(HERE, layer)),
        log.place("put", INTENTS),
        log.place("list", TOMBSTONES),
        log.place("put", keys.holders(layer)),
        log.place("put", keys.links(THERE, layer)),
        log.place("delete", INTENTS),
    ]
    assert order == sorted(order)
    assert len(await replica.keys("data/")) == 1
    assert await replica.read(layer, THERE) == b"layer"


@pytest.mark.parametrize("way", ["upload", "chunks", "mount"])
async def test_a_blob_that_is_acknowledged_again_is_as_young_as_a_new_one(
    replica: Replica, clock: Clock, way: str
) -> None:
    data = b"layer" * (SHARED_FROM // 5 + 1)
    layer = await replica.push(data)
    written = await replica.driver.list(keys.links(HERE, layer)), await replica.driver.list(keys.holders(layer))
    clock.now += replica.bucket.lifetimes.grace * 2
    here = replica.repository()
    if way == "upload":
        await here.uploads.put(layer, stream(data))
    elif way == "chunks":
        session = await here.uploads.append(here.uploads.begin("sha256"), stream(data), None)
        await here.uploads.finish(session, layer, stream(), None)
    else:
        assert await here.blobs.mount(layer, HERE, lambda _: True)
    for before in written:
        (old,) = before.entries
        (new,) = (await replica.driver.list(old.key)).entries
        assert new.modified == clock.now > old.modified


async def test_a_look_writes_nothing(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    replica.driver.log.clear()
    await replica.repository().blobs.stat(layer)
    assert await usable(replica.bucket, HERE, layer, [HERE])
    assert {action for action, _ in replica.driver.log} <= {"list", "stat"}


async def test_a_mount_from_what_may_not_be_pulled_finds_nothing(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    for source in (HERE, None):
        assert await replica.repository(THERE).blobs.mount(layer, source, lambda name: name != HERE) is None


async def test_a_mount_after_its_fence_links_nothing(replica: Replica, clock: Clock) -> None:
    layer = await replica.push(b"layer")

    async def sleep() -> None:
        clock.now += replica.bucket.lifetimes.fence + 1

    replica.driver.before("put", keys.links(THERE, layer), sleep)
    with pytest.raises(Unavailable):
        await replica.repository(THERE).blobs.mount(layer, HERE, lambda _: True)
    assert await linked(replica.bucket, THERE, layer) == []


async def test_a_full_store_publishes_nothing(replica: Replica) -> None:
    layer = await replica.push(b"layer")

    async def full() -> None:
        raise StoreFull("full")

    replica.driver.before("put", MANIFESTS, full)
    with pytest.raises(Exception, match="no room") as caught:
        await replica.publish(layer)
    assert getattr(caught.value, "status", None) == 507
    assert await replica.keys(keys.manifests(HERE)) == []


async def test_the_same_manifest_pushed_at_once_is_one_manifest_to_readers(replica: Replica, other: Replica) -> None:
    layer = await replica.push(b"layer")
    digests = await asyncio.gather(*((replica, other)[turn % 2].publish(layer) for turn in range(8)))
    assert len(set(digests)) == 1
    await replica.repository().manifests.delete(digests[0])
    for reader in (replica, other):
        with pytest.raises(ManifestUnknown):
            await reader.repository().manifests.get(digests[0])


async def test_a_body_that_ends_early_leaves_no_manifest_and_no_blob(replica: Replica) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"lay"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await replica.repository().uploads.put(digest_of(b"layer"), broken())
    assert await replica.keys("") == await replica.keys("upkeep/keys/")
    assert await replica.repository().uploads.put(digest_of(b"layer"), stream(b"layer"))
