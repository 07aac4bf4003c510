"""Prefetch: the rest of an image comes without being asked for, unless that would cost somebody."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.oci.digests import Digest
from app.proxy.errors import Unreachable
from app.proxy.lane import Turn
from tests.proxy.pulling import UP, pulling, routing_of, section, stored, upstream_of
from tests.services.app import Running
from tests.services.client import Image, digest_of, noise
from tests.services.front import Fault, Front, HubLimit, refusal
from tests.services.pushing import Index
from tests.services.upstreams import Distribution

TAGGED = f"/v2/{UP}/team/app/manifests/1"


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [30_000, 10, 2000])


@pytest.fixture(scope="module")
def index(upstream: Distribution) -> Index:
    return upstream.pusher.index(
        "team/many", "1", {"linux/amd64": [100], "linux/arm/v6": [200], "linux/arm/v7": [300], "windows/amd64": [400]}
    )


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def eager(front: Front, **fields: Any) -> dict[str, Any]:
    """An upstream with prefetch."""
    platforms = fields.pop("platforms", [])
    return section(front.url, **{"prefetch": {"platforms": platforms}, **fields})


async def settled(service: Running) -> None:
    """Returns once nothing waits to be prefetched, and nobody works on it."""
    cache = routing_of(service)._cache
    async with asyncio.timeout(30):
        await asyncio.gather(*cache.bucket._background, return_exceptions=True)
        await cache.prefetch._queue.join()


async def test_after_a_manifest_its_blobs_arrive_small_ones_first(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, eager(front, connections=1)) as service:
        (await service.client.get(TAGGED)).expect(200)
        for data in image.blobs:
            await stored(service, f"{UP}/team/app", digest_of(data))
        asked = [one.path.rpartition("/")[2] for one in front.records.find("*/blobs/*", "GET")]
        by_size = [digest_of(data) for data in sorted(image.blobs, key=len)]
        assert sorted(asked) == sorted(by_size)
        assert asked[-1] == by_size[-1]
        front.down()
        for data in image.blobs:
            assert (await service.client.get(f"/v2/{UP}/team/app/blobs/{digest_of(data)}")).expect(200).body == data


async def test_a_head_alone_fetches_nothing_else(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, eager(front)) as service:
        (await service.client.head(TAGGED)).expect(200)
        await settled(service)
        assert front.count("*/blobs/*") == 0


async def test_switched_off_it_fetches_nothing(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url, prefetch={"enabled": False})) as service:
        (await service.client.get(TAGGED)).expect(200)
        await settled(service)
        assert front.count("*/blobs/*") == 0


async def test_of_an_index_the_configured_platforms_arrive(front: Front, index: Index, tmp_path: Path) -> None:
    wanted = {"linux/amd64", "linux/arm/v7"}
    async with pulling(tmp_path, eager(front, platforms=sorted(wanted))) as service:
        (await service.client.get(f"/v2/{UP}/team/many/manifests/1")).expect(200)
        for platform in wanted:
            for data in index.images[platform].blobs:
                await stored(service, f"{UP}/team/many", digest_of(data))
        await settled(service)
        asked = {one.path.rpartition("/")[2] for one in front.records.find("*/manifests/sha256:*", "GET")}
        assert asked == {index.digest} | {index.images[platform].digest for platform in wanted}
        front.down()
        for platform in wanted:
            image = index.images[platform]
            held = await service.client.get(f"/v2/{UP}/team/many/manifests/{image.digest}")
            assert held.expect(200).body == image.data


async def test_a_blob_that_another_repository_holds_is_not_fetched_again(
    upstream: Distribution, front: Front, image: Image, tmp_path: Path
) -> None:
    for data in image.blobs:
        upstream.pusher.blob("team/copy", data)
    upstream.pusher.manifest("team/copy", "1", image.data, image.media_type)
    async with pulling(tmp_path, eager(front)) as service:
        for name in ("team/app", "team/copy"):
            (await service.client.get(f"/v2/{UP}/{name}/manifests/1")).expect(200)
            for data in image.blobs:
                await stored(service, f"{UP}/{name}", digest_of(data))
        assert front.count("/v2/team/copy/blobs/*") == 0


async def test_an_image_that_was_deleted_here_arrives_again_in_whole(
    front: Front, image: Image, tmp_path: Path
) -> None:
    async with pulling(tmp_path, eager(front, tag_ttl=300)) as service:
        for _ in range(2):
            (await service.client.get(TAGGED)).expect(200)
            for data in image.blobs:
                await stored(service, f"{UP}/team/app", digest_of(data))
            await settled(service)
            (await service.client.delete(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(202)
            for data in image.blobs:
                (await service.client.delete(f"/v2/{UP}/team/app/blobs/{digest_of(data)}")).expect(202)
            assert not await service.store.keys(f"repositories/{UP}/team/app/_blobs/")


async def test_it_stops_at_the_reserve_of_a_rate_limit(
    upstream: Distribution, front: Front, index: Index, image: Image, tmp_path: Path
) -> None:
    """Ten pulls are kept for people. Twelve are left: the index takes one, its first child one, and there it ends."""
    front.hub = HubLimit(limit=100, remaining=12)
    platforms = ["linux/amd64", "linux/arm", "windows/amd64"]
    async with pulling(tmp_path, eager(front, platforms=platforms, rate_reserve=10)) as service:
        (await service.client.get(f"/v2/{UP}/team/many/manifests/1")).expect(200)
        await settled(service)
        assert front.count("*/manifests/*", "GET") == 2
        assert front.hub.remaining == 10
        assert (await service.client.get(TAGGED)).expect(200).body == image.data  # a person may
        await settled(service)
        assert front.count("/v2/team/app/blobs/*") == 0
        front.hub = HubLimit(limit=100)
        assert (await service.client.get(f"/v2/{UP}/team/app/manifests/none")).status == 404
        (await service.client.get(TAGGED)).expect(200)  # tomorrow, it is worth trying again
        for data in image.blobs:
            await stored(service, f"{UP}/team/app", digest_of(data))


async def test_it_stops_while_the_upstream_cannot_be_reached(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, eager(front)) as service:
        upstream = upstream_of(service)
        (await service.client.head(TAGGED)).expect(200)
        for _ in range(2):
            upstream.breaker.failed(Unreachable("gone"))
        (await service.client.get(TAGGED)).expect(200)
        await settled(service)
        assert front.count("*/blobs/*") == 0
        upstream.breaker.succeeded()
        (await service.client.get(TAGGED)).expect(200)
        for data in image.blobs:
            await stored(service, f"{UP}/team/app", digest_of(data))


async def test_what_cannot_be_fetched_does_not_end_it(
    upstream: Distribution, front: Front, image: Image, tmp_path: Path
) -> None:
    other = upstream.pusher.image("other/app", "1", [50])
    missing = front.on("/v2/team/app/blobs/*", refusal(404))
    async with pulling(tmp_path, eager(front)) as service:
        (await service.client.get(TAGGED)).expect(200)
        await asyncio.to_thread(front.wait_until, lambda: missing.taken >= len(image.blobs))
        (await service.client.get(f"/v2/{UP}/other/app/manifests/1")).expect(200)
        for data in other.blobs:
            await stored(service, f"{UP}/other/app", digest_of(data))


async def test_people_get_most_of_the_bandwidth_while_it_runs(
    upstream: Distribution, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer is prefetched over a narrow uplink when somebody asks for another one of the same size.

    What counts is who got bytes between the first and the last that went to people, however long that took.
    """
    size, rate = 2_000_000, 2_000_000
    background = upstream.pusher.image("narrow/app", "1", [size])
    wanted = noise(size, "wanted")
    digest = upstream.pusher.blob("narrow/other", wanted)
    layer = digest_of(background.blobs[1])
    async with pulling(tmp_path, eager(front, bandwidth=rate)) as service:
        lane, given, asked = upstream_of(service).lane, list[tuple[bool, int]](), asyncio.Event()
        pass_ = lane.pass_

        async def noted(size: int, turn: Turn) -> None:
            if turn.urgent:
                asked.set()
            elif given:
                await asked.wait()  # or it could have ended before somebody asks
            await pass_(size, turn)
            given.append((turn.urgent, size))

        monkeypatch.setattr(lane, "pass_", noted)
        (await service.client.get(f"/v2/{UP}/narrow/app/manifests/1")).expect(200)
        await asyncio.to_thread(front.wait_until, lambda: front.sent(f"*/blobs/{layer}") > 0)
        assert (await service.client.get(f"/v2/{UP}/narrow/other/blobs/{digest}")).expect(200).body == wanted
        await stored(service, f"{UP}/narrow/app", layer)
    people = [at for at, (urgent, _) in enumerate(given) if urgent]
    meanwhile = sum(taken for urgent, taken in given[people[0] : people[-1]] if not urgent)
    assert len(people) > 2
    assert meanwhile < size / 3, given
    assert sum(taken for _, taken in given[people[-1] + 1 :]) > size / 3, "prefetch wanted nothing meanwhile"


async def test_what_somebody_waits_for_is_no_longer_behind_people(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    image = upstream.pusher.image("hurried/app", "1", [400_000])
    layer = digest_of(image.blobs[1])
    front.on(f"*/blobs/{layer}", Fault(stall=100_000, stall_for=0.3))
    async with pulling(tmp_path, eager(front)) as service:
        (await service.client.get(f"/v2/{UP}/hurried/app/manifests/1")).expect(200)
        await asyncio.to_thread(front.wait_until, lambda: front.sent(f"*/blobs/{layer}") > 0)
        fetch = routing_of(service)._cache.transfers.running(Digest(layer))
        assert fetch is not None
        assert not fetch.turn.urgent
        assert (await service.client.get(f"/v2/{UP}/hurried/app/blobs/{layer}")).expect(200).body == image.blobs[1]
        assert fetch.turn.urgent
        assert front.count(f"*/blobs/{layer}", "GET") == 1
