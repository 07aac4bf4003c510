"""Rate limits as Docker Hub keeps them: exported, spared, and survived once nothing is left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy.pulling import UP, pulling, section, upstream_of
from tests.services.app import Running
from tests.services.client import INDEX, Image, digest_of
from tests.services.front import Fault, Front, HubLimit, refusal
from tests.services.upstreams import Distribution

RESERVE = 10


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [1000, 2000])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


@asynccontextmanager
async def limited(front: Front, folder: Path, left: int, *, prefetch: bool = False) -> AsyncIterator[Running]:
    """The service behind an upstream with so many pulls left."""
    front.hub = HubLimit(100, remaining=left)
    entry = section(front.url, rate_reserve=RESERVE, prefetch={"enabled": prefetch, "platforms": ["linux/amd64"]})
    async with pulling(folder, entry) as service:
        yield service


def manifest(reference: str, repository: str = "team/app") -> str:
    return f"/v2/{UP}/{repository}/manifests/{reference}"


async def exported(service: Running, name: str) -> float:
    """One metric of the upstream."""
    text = (await service.client.get("/metrics")).expect(200).body.decode()
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels["upstream"] == UP
    ]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def asked(front: Front, method: str) -> int:
    return front.count("/v2/*/manifests/*", method)


async def test_what_is_left_is_exported(front: Front, tmp_path: Path) -> None:
    async with limited(front, tmp_path, 76) as service:
        (await service.client.get(manifest("1"))).expect(200)
        assert await exported(service, "edge_registry_proxy_rate_limit") == 100
        assert await exported(service, "edge_registry_proxy_rate_remaining") == 75


@pytest.mark.parametrize(("left", "fetched"), [(RESERVE + 3, True), (RESERVE + 1, False)])
async def test_prefetch_stops_at_the_reserve_and_people_do_not(
    left: int, fetched: bool, front: Front, upstream: Distribution, tmp_path: Path
) -> None:
    """A pull of an index brings its child in the background, which costs another pull."""
    index = upstream.pusher.index("many", "1", {"linux/amd64": [100], "linux/arm64": [200]})
    amd, arm = (index.images[platform] for platform in ("linux/amd64", "linux/arm64"))
    async with limited(front, tmp_path, left, prefetch=True) as service:
        got = (await service.client.get(manifest("1", "many"), accept=INDEX)).expect(200)
        assert got.body == index.data
        if fetched:
            await until(lambda: front.count(f"/v2/many/blobs/{digest_of(amd.blobs[1])}") > 0)
            assert front.count(f"/v2/many/manifests/{amd.digest}", "GET") == 1
        assert (await service.client.get(manifest(arm.digest, "many"))).expect(200).body == arm.data
        blob = (await service.client.get(f"/v2/{UP}/many/blobs/{digest_of(arm.blobs[1])}")).expect(200)
        assert blob.body == arm.blobs[1]
        if not fetched:
            assert front.count(f"/v2/many/manifests/{amd.digest}") == 0
            assert front.count(f"/v2/many/blobs/{digest_of(amd.blobs[1])}") == 0


async def test_with_nothing_left_known_tags_are_checked_for_free(front: Front, image: Image, tmp_path: Path) -> None:
    async with limited(front, tmp_path, 1) as service:
        (await service.client.get(manifest("1"))).expect(200)
        refused = (await service.client.get(manifest(digest_of(b"another")))).expect(503)
        assert int(refused.header("retry-after") or 0) >= 1
        front.forget()
        for _ in range(3):
            known = (await service.client.get(manifest("1"))).expect(200)
            assert known.body == image.data
            assert known.header("warning") is None
        assert (asked(front, "HEAD"), asked(front, "GET")) == (3, 0)


async def test_with_nothing_left_a_tag_that_moved_is_answered_stale_until_pulls_come_back(
    front: Front, upstream: Distribution, tmp_path: Path
) -> None:
    first = upstream.pusher.image("moving", "1", [100], seed="first")
    async with limited(front, tmp_path, 1) as service:
        (await service.client.get(manifest("1", "moving"))).expect(200)
        second = upstream.pusher.image("moving", "1", [100], seed="second")
        for _ in range(3):
            stale = (await service.client.get(manifest("1", "moving"))).expect(200)
            assert stale.body == first.data
            assert "too many requests" in (stale.header("warning") or "")
        assert front.count("/v2/moving/manifests/*", "GET") == 2  # the first pull, and one that was refused
        blob = (await service.client.get(f"/v2/{UP}/moving/blobs/{digest_of(first.blobs[1])}")).expect(200)
        assert blob.body == first.blobs[1]
        assert front.hub is not None
        front.hub.remaining = 5
        fresh = (await service.client.get(manifest("1", "moving"))).expect(200)
        assert (fresh.body, fresh.header("warning")) == (second.data, None)


async def test_a_429_without_a_count_holds_for_everything(front: Front, image: Image, tmp_path: Path) -> None:
    async with limited(front, tmp_path, 50) as service:
        (await service.client.get(manifest("1"))).expect(200)
        front.hub = None
        front.on("/v2/*", refusal(429, retry_after=30))
        stale = (await service.client.get(manifest("1"))).expect(200)
        assert stale.header("warning") is not None
        front.forget()
        (await service.client.get(manifest("1"))).expect(200)
        missing = (await service.client.get(f"/v2/{UP}/team/app/blobs/{digest_of(image.blobs[1])}")).expect(503)
        assert 1 <= int(missing.header("retry-after") or 0) <= 30
        assert missing.codes != ["TOOMANYREQUESTS"]
        assert front.count() == 0
        assert upstream_of(service).breaker.state == "closed"


@pytest.mark.parametrize("said", ["99999999999", "1e9", "-5", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", ""])
async def test_an_absurd_retry_after_is_told_to_clients_as_a_sensible_one(
    said: str, front: Front, tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        front.on("/v2/*", Fault(status=429, headers={"Retry-After": said}))
        for _ in range(2):
            refused = (await service.client.get(manifest("1"))).expect(503)
            assert 1 <= int(refused.header("retry-after") or 0) <= 3600


async def test_counts_that_are_nonsense_change_nothing(front: Front, image: Image, tmp_path: Path) -> None:
    nonsense = {"ratelimit-limit": "many;w=\x7f", "ratelimit-remaining": "-1;w=99999999999999999999"}
    front.on("/v2/*", Fault(headers=nonsense))
    async with pulling(tmp_path, section(front.url)) as service:
        assert (await service.client.get(manifest("1"))).expect(200).body == image.data
        assert "edge_registry_proxy_rate" in (await service.client.get("/metrics")).expect(200).body.decode()
        assert upstream_of(service).rates.limit is None
        assert upstream_of(service).may_prefetch()
