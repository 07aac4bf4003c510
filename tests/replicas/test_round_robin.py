import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.services.balancer import Balancer
from tests.services.client import Client, digest_of, make_image, noise

pytestmark = pytest.mark.minio

Connect = Callable[[str], Client]


async def stream(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_every_shape_of_a_push_works_when_each_request_meets_another_replica(
    start_soon: Callable[..., Any], connect: Connect
) -> None:
    """No shared secret is configured: the bucket alone makes them accept each other's uploads."""
    replicas = await asyncio.gather(*[start_soon() for _ in range(3)])
    async with Balancer([replica.url for replica in replicas]).serving() as balancer:
        api = connect(balancer.url)
        for algorithm in ("sha256", "sha512"):
            await monolithic(api, algorithm)
            await streamed(api, algorithm)
            await single_post(api, algorithm)
        await chunked(api, [1, 70_000, 1, 2, 100], "small")
        await chunked(api, [9 << 20, 1, (9 << 20) + 1, 3], "large")
        await mounted(api)
        image = await api.push_image("a/b", "t", noise(1000, "x"), noise(20, "y"))
        for _ in range(3):
            assert (await api.get("/v2/a/b/manifests/t")).expect(200).body == image.data
            assert (await api.get("/v2/a/b/tags/list")).json()["tags"] == ["t"]
        (await api.delete(f"/v2/a/b/manifests/{image.digest}")).expect(202)
        for target in ("t", image.digest):
            for _ in range(3):
                (await api.get(f"/v2/a/b/manifests/{target}")).expect(404)
                (await api.head(f"/v2/a/b/manifests/{target}")).expect(404)
        await cancelled(api)
        await resurrection(api)
    assert min(balancer.shares.values()) > 20


async def held(api: Client, repository: str, data: bytes, algorithm: str = "sha256") -> None:
    for _ in range(3):
        got = (await api.get(f"/v2/{repository}/blobs/{digest_of(data, algorithm)}")).expect(200)
        assert got.body == data


async def monolithic(api: Client, algorithm: str) -> None:
    await api.push_blob("mono", noise(300_000, algorithm), algorithm)
    await held(api, "mono", noise(300_000, algorithm), algorithm)


async def streamed(api: Client, algorithm: str) -> None:
    """The client does not tell the algorithm: the bytes of a sha512 push are read back once."""
    data = noise(10_000_000, f"stream {algorithm}")
    location = (await api.patch(await api.begin("stream"), stream(data))).expect(202).location
    (await api.finish(location, digest_of(data, algorithm))).expect(201)
    await held(api, "stream", data, algorithm)


async def single_post(api: Client, algorithm: str) -> None:
    data = noise(500, f"post {algorithm}")
    answer = await api.ask("POST", f"/v2/post/blobs/uploads/?digest={digest_of(data, algorithm)}", body=data)
    answer.expect(201)
    await held(api, "post", data, algorithm)


async def chunked(api: Client, sizes: list[int], seed: str) -> None:
    data, location, at = noise(sum(sizes), seed), await api.begin("chunks"), 0
    for size in sizes:
        assert (await api.patch(location, b"x", at + 1)).expect(416).header("range") == f"0-{max(0, at - 1)}"
        location = (await api.patch(location, data[at : at + size], at)).expect(202).location
        at += size
        assert (await api.get(location)).expect(204).header("range") == f"0-{at - 1}"
    for _ in range(3):
        (await api.finish(location, digest_of(data))).expect(201)
    await held(api, "chunks", data)


async def mounted(api: Client) -> None:
    digest = await api.push_blob("origin", b"mounted")
    (await api.ask("POST", f"/v2/target/blobs/uploads/?mount={digest}&from=origin")).expect(201)
    await held(api, "target", b"mounted")


async def cancelled(api: Client) -> None:
    """A chunked upload is cancelled for every replica: its state was in the store."""
    location = (await api.patch(await api.begin("c"), b"abc", 0)).expect(202).location
    (await api.delete(location)).expect(204)
    for _ in range(3):
        assert (await api.get(location)).expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]
        assert (await api.finish(location, digest_of(b"abc"))).expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]


async def resurrection(api: Client) -> None:
    """CVE-2026-35172 of Distribution: a blob deleted in one repository came back from another replica's cache."""
    digest = await api.push_blob("one", b"twice")
    await api.push_blob("two", b"twice")
    await held(api, "one", b"twice")
    (await api.delete(f"/v2/one/blobs/{digest}")).expect(202)
    for _ in range(3):
        (await api.head(f"/v2/one/blobs/{digest}")).expect(404)
        (await api.get(f"/v2/one/blobs/{digest}")).expect(404)
    await held(api, "two", b"twice")


async def test_replicas_that_start_at_once_accept_each_others_uploads(
    start_soon: Callable[..., Any], connect: Connect
) -> None:
    one, two = await asyncio.gather(start_soon(), start_soon())
    for first, second in ((one, two), (two, one)):
        location = await connect(first.url).begin("a")
        (await connect(second.url).finish(location, digest_of(b"x"), b"x")).expect(201)


async def test_pushes_of_one_blob_and_one_tag_race_on_all_replicas(
    start_soon: Callable[..., Any], connect: Connect
) -> None:
    settings = {"REGISTRY__IMMUTABLE_TAGS": "*:v*"}
    replicas = await asyncio.gather(*[start_soon(**settings) for _ in range(3)])
    clients = [connect(replica.url) for replica in replicas]
    images = [make_image(bytes([i])) for i in range(6)]
    shared = noise(200_000)
    digests = await asyncio.gather(*[clients[i % 3].push_blob("a", shared) for i in range(9)])
    assert set(digests) == {digest_of(shared)}
    for image in images:
        for data in image.blobs:
            await clients[0].push_blob("a", data)
    for tag, wins in (("v1", 1), ("moving", 6)):
        answers = await asyncio.gather(
            *[clients[i % 3].put_manifest("a", tag, image.data) for i, image in enumerate(images)]
        )
        assert [answer.status for answer in answers].count(201) == wins
        assert {answer.status for answer in answers} <= {201, 403}
        bodies = {(await client.get(f"/v2/a/manifests/{tag}")).expect(200).body for client in clients}
        assert len(bodies) == 1
        assert bodies < {image.data for image in images}
