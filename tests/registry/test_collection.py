"""Collecting copies is the model's protocol, request for request, and is refused where the store keeps no fences."""

import pytest

from app.oci.digests import Digest
from app.oci.errors import Unavailable
from app.registry import keys
from app.registry.collection import Candidate, CollectionOff, Collector, Terms, Verdict
from app.registry.intents import Intents
from app.registry.needs import StoredNeeds, Unreadable
from app.registry.publishing import linked
from storage import Capabilities, FenceExpired, Unavailable as StoreUnavailable
from tests.registry.conftest import HERE, THERE, Replica
from tests.registry.recorded import Clock

BIG = b"x" * 200_000
"""Bytes that are shared between repositories."""


def collector(replica: Replica, **terms: object) -> Collector:
    return Collector(
        replica.bucket,
        Intents(replica.bucket),
        StoredNeeds(replica.bucket),
        Terms(**terms),  # type: ignore[arg-type]
    )


async def candidate(replica: Replica, layer: Digest) -> Candidate:
    """As a survey of HERE alone finds it."""
    (copy,) = await linked(replica.bucket, HERE, layer)
    return Candidate(layer, copy, frozenset({HERE}))


async def collect(replica: Replica, layer: Digest, **terms: object) -> Verdict:
    found = await candidate(replica, layer)
    return (await collector(replica, **terms).collect([found]))[found.copy]


async def test_the_requests_come_in_the_models_order(replica: Replica) -> None:
    layer = await replica.push(BIG)
    assert await replica.repository(THERE).blobs.mount(layer, HERE, lambda _: True)
    await replica.settle()
    found = await candidate(replica, layer)
    replica.driver.log.clear()
    assert await collector(replica).collect([found]) == {found.copy: "collected"}
    log = replica.driver
    first_intents, second_intents = log.places("list", keys.INTENTS)
    links, holders = log.places("delete", "repositories/"), log.places("delete", keys.HOLDERS)
    manifests = [log.place("list", keys.manifests(name)) for name in (HERE, THERE)]
    order = [
        first_intents,
        log.place("put", keys.TOMBSTONES),
        second_intents,
        log.place("list", keys.holders_of(layer, found.copy)),
        min(manifests),
        max(manifests),
        *links,
        *holders,
        log.place("delete", keys.DATA),
    ]
    assert order == sorted(order)
    assert (len(links), len(holders)) == (2, 2)
    assert [keys.buried(key) for key in await replica.keys(keys.TOMBSTONES)] == [(found.copy.uuid, keys.EVERYWHERE)]
    assert await replica.keys("repositories/") == await replica.keys(keys.HOLDERS) == await replica.keys("data/") == []


async def test_each_tombstone_has_a_name_of_its_own(replica: Replica) -> None:
    """Who ends an old one by its name must not end one that was written since."""
    layer = await replica.push(b"layer")
    await replica.publish(layer)
    for _ in range(3):
        assert await collect(replica, layer) == "needed"
    assert len(await replica.keys(keys.TOMBSTONES)) == 3


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        (Capabilities(fences=False), "does not refuse expired requests"),
        (Capabilities(list_after_write=False), "does not list at once"),
    ],
)
async def test_where_the_store_cannot_do_what_it_needs_there_is_no_collector(
    replica: Replica, lacking: Capabilities, why: str
) -> None:
    replica.bucket.capabilities = lacking
    with pytest.raises(CollectionOff, match=f"{why}.* it is off"):
        collector(replica)


@pytest.mark.parametrize("part", ["delete repositories/", "delete blobs/", "delete data/", "put upkeep/tombstones/"])
async def test_no_write_is_made_after_the_fence(replica: Replica, clock: Clock, part: str) -> None:
    layer = await replica.push(b"layer")
    action, key = part.split(" ")

    async def sleep() -> None:
        clock.now += replica.bucket.lifetimes.fence + 1

    replica.driver.before(action, key, sleep)
    with pytest.raises(FenceExpired):
        await collect(replica, layer)
    assert len(await replica.keys(keys.DATA)) == 1


async def test_young_links_keep_a_copy_only_where_there_is_a_grace_period(replica: Replica, clock: Clock) -> None:
    layer = await replica.push(b"layer")
    assert await collect(replica, layer, settled=clock.now - 60) == "fresh"
    assert await replica.read(layer) == b"layer"
    assert await collect(replica, layer) == "collected"


async def test_links_that_were_not_seen_keep_a_copy_where_that_is_asked_for(replica: Replica) -> None:
    layer = await replica.push(BIG)
    assert await replica.repository(THERE).blobs.mount(layer, HERE, lambda _: True)
    await replica.settle()
    assert await collect(replica, layer, only_seen=True) == "linked elsewhere"
    assert await replica.read(layer, THERE) == BIG


async def test_a_manifest_of_any_repository_that_links_it_keeps_a_copy(replica: Replica) -> None:
    layer = await replica.push(BIG)
    assert await replica.repository(THERE).blobs.mount(layer, HERE, lambda _: True)
    await replica.publish(layer, name=THERE)
    await replica.settle()
    assert await collect(replica, layer) == "needed"
    assert await replica.read(layer) == await replica.read(layer, THERE) == BIG


async def test_a_manifest_that_cannot_be_read_ends_it_by_name(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    digest = await replica.publish()
    (key,) = await replica.keys(keys.manifests(HERE))
    replica.bucket.manifests = type(replica.bucket.manifests)(0)
    await replica.driver.put(key, b"rotten")
    with pytest.raises(Unreadable) as caught:
        await collect(replica, layer)
    assert (caught.value.name, caught.value.digest) == (HERE, digest)
    assert await replica.read(layer) == b"layer"


async def test_an_intent_that_cannot_be_read_ends_it(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    await replica.driver.put(f"{keys.INTENTS}odd", b"not json")
    with pytest.raises(Unavailable, match="an intent cannot be read"):
        await collect(replica, layer)
    assert await replica.read(layer) == b"layer"


@pytest.mark.parametrize("fault", ["garbled", "refused"])
async def test_an_intent_that_cannot_be_read_and_has_expired_holds_nothing(
    replica: Replica, clock: Clock, fault: str
) -> None:
    layer = await replica.push(b"layer")
    await replica.driver.put(f"{keys.INTENTS}odd", b"not json" if fault == "garbled" else b'{"copies": []}')

    async def refuse() -> None:
        replica.driver.before("get", keys.INTENTS, refuse)
        raise StoreUnavailable("503 SlowDown")

    if fault == "refused":
        replica.driver.before("get", keys.INTENTS, refuse)
    clock.now += replica.bucket.lifetimes.intent - 1
    with pytest.raises(Unavailable, match="an intent cannot be read"):
        await collect(replica, layer)
    clock.now += 2
    assert await replica.repository().blobs.delete(layer) is None
    assert await replica.keys(keys.links(HERE)) == []


async def test_an_intent_is_read_once_however_often_it_is_looked_at(replica: Replica) -> None:
    layer = await replica.push(b"layer")
    (copy,) = await linked(replica.bucket, HERE, layer)
    await replica.driver.put(f"{keys.INTENTS}one", b'{"copies": []}')
    intents = Intents(replica.bucket)
    replica.driver.log.clear()
    for _ in range(3):
        assert await intents.naming([copy]) == set()
    assert len(replica.driver.places("get", keys.INTENTS)) == 1


async def test_a_dead_link_is_collected_without_an_alarm(replica: Replica, alarms: list[str]) -> None:
    layer = await replica.push(b"layer")
    found = await candidate(replica, layer)
    await replica.driver.delete(keys.data(found.copy.uuid))
    assert await collect(replica, layer) == "collected"
    assert alarms == []


async def test_a_reader_that_comes_too_late_is_told_so_without_an_alarm(replica: Replica, alarms: list[str]) -> None:
    layer = await replica.push(b"layer")
    blob = await replica.repository().blobs.stat(layer)
    assert await collect(replica, layer) == "collected"
    with pytest.raises(Exception, match="unknown"):
        async with replica.repository().blobs.open(blob):
            pass
    assert alarms == []
