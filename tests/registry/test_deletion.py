"""DELETE of a blob is the collector's protocol on one repository's links."""

import json

import pytest

from app.oci.digests import digest_of
from app.oci.errors import BlobUnknown, StillNeeded, Unavailable
from app.registry import keys
from app.registry.keys import Entry
from app.registry.publishing import intent, linked
from tests.registry.conftest import HERE, THERE, Replica, stream
from tests.registry.recorded import Clock


async def test_a_blob_nobody_needs_goes_from_its_repository_alone(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await replica.push(b"layer", THERE)
    await replica.repository().blobs.delete(layer)
    with pytest.raises(BlobUnknown):
        await replica.repository().blobs.stat(layer)
    assert await replica.read(layer, THERE) == b"layer"
    assert await replica.keys(keys.links(HERE, layer)) == []


async def test_a_second_delete_and_one_of_nothing_are_unknown(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await replica.repository().blobs.delete(layer)
    for digest in (layer, digest_of(b"never")):
        with pytest.raises(BlobUnknown):
            await replica.repository().blobs.delete(digest)


async def test_the_requests_come_in_the_protocols_order(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    replica.driver.log.clear()
    await replica.repository().blobs.delete(layer)
    log = replica.driver
    first_intents, second_intents = log.places("list", keys.INTENTS)
    first_manifests, second_manifests = log.places("list", keys.manifests(HERE))
    order = [
        first_intents,
        first_manifests,
        log.place("put", keys.TOMBSTONES),
        second_intents,
        second_manifests,
        log.place("delete", keys.links(HERE, layer)),
    ]
    assert order == sorted(order)
    assert not log.places("delete", keys.HOLDERS)
    assert [keys.buried(key)[1] for key in await replica.keys(keys.TOMBSTONES)] == [keys.escape(HERE)]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_upload_that_ends_again_while_its_blob_is_deleted_is_one_that_collectors_find(
    replica: Replica, other: Replica, moment: str
) -> None:
    uploads = replica.repository().uploads
    session = await uploads.append(uploads.begin("sha256"), stream(b"layer"), None)
    layer = (await uploads.finish(session, digest_of(b"layer"), stream(), None)).digest

    async def again() -> None:
        await other.repository().uploads.finish(session, layer, stream(), None)

    getattr(replica.driver, moment)("delete", keys.links(HERE, layer), again)
    await replica.repository().blobs.delete(layer)
    (copy,) = await linked(replica.bucket, HERE, layer) if moment == "after" else [session.copy]
    assert copy == session.copy is not None
    assert await replica.keys(keys.holders(layer)) == [keys.holder(layer, copy, HERE)]


async def test_what_a_manifest_names_anywhere_stays(replica: Replica) -> None:
    layer, hidden = await replica.push(b"layer"), await replica.push(b"hidden")
    await replica.publish(layer, annotations={"note": f"see {hidden} for more"})
    for digest in (layer, hidden):
        with pytest.raises(StillNeeded) as caught:
            await replica.repository().blobs.delete(digest)
        assert (caught.value.status, caught.value.code) == (405, "DENIED")
        assert await replica.read(digest)
    assert await replica.keys(keys.TOMBSTONES) == []


async def test_what_only_a_manifest_elsewhere_names_goes(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await replica.push(b"layer", THERE)
    await replica.publish(layer, name=THERE)
    await replica.repository().blobs.delete(layer)
    assert await replica.read(layer, THERE) == b"layer"


@pytest.mark.parametrize(("age", "goes"), [(60, False), (2 * 3600, True)])
async def test_the_intent_of_a_push_that_died_holds_a_blob_no_longer_than_it_could_publish(
    replica: Replica, clock: Clock, age: float, goes: bool
) -> None:
    layer = await replica.push(b"layer")
    (copy,) = await linked(replica.bucket, HERE, layer)
    await replica.driver.put(f"{keys.INTENTS}dead", json.dumps({"copies": [copy.uuid]}).encode())
    clock.now += age
    if goes:
        await replica.repository().blobs.delete(layer)
    else:
        with pytest.raises(StillNeeded):
            await replica.repository().blobs.delete(layer)
    assert bool(await replica.keys(keys.links(HERE, layer))) is not goes


async def test_what_a_running_publication_names_stays(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    async with intent(replica.bucket, await linked(replica.bucket, HERE, layer)):
        with pytest.raises(StillNeeded):
            await replica.repository().blobs.delete(layer)
    await replica.settle()
    await replica.repository().blobs.delete(layer)


async def test_a_publication_that_begins_after_the_first_look_is_seen_by_the_second(replica: Replica) -> None:
    layer = await replica.push(b"layer")

    async def publish() -> None:
        await replica.publish(layer)

    replica.driver.before("put", keys.TOMBSTONES, publish)
    with pytest.raises(StillNeeded):
        await replica.repository().blobs.delete(layer)
    assert await replica.read(layer) == b"layer"


async def test_a_publication_after_the_tombstone_copies_the_bytes(replica: Replica, other: Replica) -> None:
    layer = await replica.push(b"layer")

    async def publish() -> None:
        await other.publish(layer)

    replica.driver.before("delete", keys.links(HERE, layer), publish)
    await replica.repository().blobs.delete(layer)
    assert await other.read(layer) == b"layer"
    assert await replica.read(layer) == b"layer"


async def test_a_delete_that_slept_past_its_fence_deletes_nothing(replica: Replica, clock: Clock) -> None:
    layer = await replica.push(b"layer")

    async def sleep() -> None:
        clock.now += replica.bucket.lifetimes.fence + 1

    replica.driver.before("delete", keys.links(HERE, layer), sleep)
    with pytest.raises(Unavailable):
        await replica.repository().blobs.delete(layer)
    assert await replica.read(layer) == b"layer"


@pytest.mark.parametrize("body", [b"not json", b"[1]", json.dumps({"a": 1}).encode()[:-1], b""])
async def test_a_stored_manifest_that_cannot_be_read_ends_it_with_nothing_deleted(
    replica: Replica, body: bytes
) -> None:
    layer = await replica.push(b"layer")
    entry = Entry(digest_of(body), keys.fresh(), "application/x", len(body))
    await replica.driver.put(keys.manifest(HERE, entry), body)
    with pytest.raises(Unavailable) as caught:
        await replica.repository().blobs.delete(layer)
    assert caught.value.status == 503
    assert await replica.read(layer) == b"layer"
    assert await replica.keys(keys.TOMBSTONES) == []


async def test_a_garbled_manifest_alarms_and_ends_it(replica: Replica, other: Replica, alarms: list[str]) -> None:
    layer = await replica.push(b"layer")
    await replica.publish()
    (key,) = await replica.keys(keys.manifests(HERE))
    await replica.driver.put(key, b'{"schemaVersion": 2}')
    with pytest.raises(Unavailable):
        await other.repository().blobs.delete(layer)
    assert alarms == ["a manifest does not hash to its digest"]
    assert await replica.read(layer) == b"layer"


async def test_a_manifest_beyond_the_first_page_still_protects(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    for number in range(1100):
        body = b'{"n":%d}' % number
        entry = Entry(digest_of(body), keys.fresh(), "application/x", len(body))
        await replica.driver.put(keys.manifest(HERE, entry), body)
    body = json.dumps({"layer": layer}).encode()
    last = Entry(digest_of(body), keys.fresh(), "application/x", len(body))
    await replica.driver.put(keys.manifest(HERE, last), body)
    with pytest.raises(StillNeeded):
        await replica.repository().blobs.delete(layer)


async def test_a_link_without_bytes_heals_and_alarms(replica: Replica, alarms: list[str]) -> None:
    layer = await replica.push(b"layer")
    (copy,) = await linked(replica.bucket, HERE, layer)
    await replica.driver.delete(keys.data(copy.uuid))
    with pytest.raises(BlobUnknown):
        await replica.read(layer)
    assert alarms == ["bytes of a blob are gone"]
    with pytest.raises(BlobUnknown):
        await replica.repository().blobs.stat(layer)
    assert await replica.keys(keys.holders(layer)) == []
    await replica.push(b"layer")
    assert await replica.read(layer) == b"layer"
