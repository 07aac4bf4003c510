"""Kills a replica at each step of a push; the client goes on at another one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from storage.s3 import S3Driver
from tests.services.client import Answer, Client, digest_of, make_image, noise
from tests.services.faults import FROZEN, FROZEN_AFTER, FaultProxy
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.minio

Connect = Callable[[str], Client]
Launch = Callable[..., Any]
GONE = (aiohttp.ClientError, ConnectionError, OSError)
DATA = noise(300_000, "killed")


async def keys(driver: S3Driver, prefix: str = "") -> list[str]:
    return [entry.key for entry in (await driver.list(prefix)).entries if not entry.key.startswith("upkeep/keys/")]


async def end(replica: RegistryServer) -> None:
    await asyncio.to_thread(replica.kill)


async def lost(request: "asyncio.Task[Answer]") -> None:
    with pytest.raises(GONE):
        await asyncio.wait_for(request, 20)


async def test_after_post_the_upload_goes_on_elsewhere(
    start_soon: Launch, connect: Connect, contents: S3Driver
) -> None:
    first, second = await asyncio.gather(start_soon(), start_soon())
    location = await connect(first.url).begin("a")
    await end(first)
    assert await keys(contents) == []
    (await connect(second.url).finish(location, digest_of(DATA), DATA)).expect(201)


@pytest.mark.parametrize("chunked", [False, True], ids=["stream", "chunk"])
async def test_in_the_middle_of_a_patch_nothing_is_visible_and_the_client_begins_again(
    start_soon: Launch, connect: Connect, contents: S3Driver, chunked: bool
) -> None:
    first, second = await asyncio.gather(start_soon(), start_soon())
    sent = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield DATA[:100_000]
        sent.set()
        await asyncio.Event().wait()
        yield b""

    location = await connect(first.url).begin("a")
    headers = {"content-range": f"0-{len(DATA) - 1}"} if chunked else {}
    request = asyncio.create_task(connect(first.url).ask("PATCH", location, headers, slow()))
    await asyncio.wait_for(sent.wait(), 20)
    await end(first)
    await lost(request)
    api = connect(second.url)
    assert (await api.get(location)).expect(204).header("range") == "0-0"
    location = (await api.patch(location, DATA, 0 if chunked else None)).expect(202).location
    (await api.finish(location, digest_of(DATA))).expect(201)
    assert (await api.get(f"/v2/a/blobs/{digest_of(DATA)}")).expect(200).body == DATA
    assert len(await keys(contents, "data/")) == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["stream", "chunk"])
async def test_after_a_patch_its_bytes_are_safe(start_soon: Launch, connect: Connect, chunked: bool) -> None:
    first, second = await asyncio.gather(start_soon(), start_soon())
    api = connect(first.url)
    location = (await api.patch(await api.begin("a"), DATA, 0 if chunked else None)).expect(202).location
    await end(first)
    api = connect(second.url)
    assert (await api.get(location)).expect(204).header("range") == f"0-{len(DATA) - 1}"
    (await api.finish(location, digest_of(DATA))).expect(201)
    assert (await api.get(f"/v2/a/blobs/{digest_of(DATA)}")).expect(200).body == DATA


SHAPES = ["put", "stream", "chunk"]


async def prepared(api: Client, repository: str, shape: str, data: bytes) -> tuple[str, bytes | None]:
    """The Location, and the body, of the finishing PUT."""
    location = await api.begin(repository)
    if shape == "put":
        return location, data
    return (await api.patch(location, data, 0 if shape == "chunk" else None)).expect(202).location, None


async def test_a_replica_stalled_between_the_store_requests_of_a_finishing_put(
    start_soon: Launch, connect: Connect, proxy: FaultProxy
) -> None:
    """The store stops answering one replica before, or after, it applied the k-th request, for every k; the client goes
    elsewhere. To the store this is a kill, but that the replica may still wake up and do harm."""
    survivor = connect((await start_soon()).url)
    victim: RegistryServer = await start_soon(proxy.endpoint)
    killed = 0
    for shape in SHAPES:
        for fault in (FROZEN, FROZEN_AFTER):
            for k in range(1, 12):
                name = f"{shape}/{'after' if fault == FROZEN_AFTER else 'before'}/{k}"
                data = noise(5000, name)
                proxy.arm(None)
                location, body = await prepared(connect(victim.url), name, shape, data)
                proxy.arm(fault, k)
                request = asyncio.create_task(connect(victim.url).finish(location, digest_of(data), body))
                struck = asyncio.create_task(proxy.struck.wait())
                await asyncio.wait({request, struck}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
                struck.cancel()
                if not proxy.struck.is_set():
                    (await request).expect(201)
                    break
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
                killed += 1
                await retried(survivor, name, location, shape, data)
    assert killed > 15
    proxy.arm(None)
    await end(victim)


async def retried(api: Client, name: str, location: str, shape: str, data: bytes) -> None:
    """The client repeats its PUT elsewhere; where the upload is unknown there, it pushes again."""
    answer = await api.finish(location, digest_of(data), data if shape == "put" else None)
    if answer.status != 201:
        assert answer.expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"], name
        await api.push_blob(name, data)
    got = (await api.get(f"/v2/{name}/blobs/{digest_of(data)}")).expect(200)
    assert got.body == data


async def test_kill_9_between_the_store_requests_of_a_manifest_put(
    start_soon: Launch, connect: Connect, proxy: FaultProxy
) -> None:
    """Real kills: the replica is frozen at the k-th request to the store and then gets SIGKILL."""
    survivor = connect((await start_soon()).url)
    base = make_image(b"layer", subject={"mediaType": "x/y", "digest": digest_of(b"s"), "size": 1})
    killed = 0
    for k in range(1, 24, 2):
        fault, name = (FROZEN, FROZEN_AFTER)[k // 2 % 2], f"m/{k}"
        proxy.arm(None)
        victim: RegistryServer = await start_soon(proxy.endpoint)
        api = connect(victim.url)
        for data in base.blobs:
            await api.push_blob(name, data)
        proxy.arm(fault, (k + 1) // 2)
        request = asyncio.create_task(api.put_manifest(name, "t", base.data))
        struck = asyncio.create_task(proxy.struck.wait())
        await asyncio.wait({request, struck}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        struck.cancel()
        met = proxy.struck.is_set()
        if met and not request.done():
            await end(victim)
            await lost(request)
            killed += 1
        else:
            (await request).expect(201)
            await end(victim)
        await whole_or_absent(survivor, name, base.data, acknowledged=not met)
        (await survivor.put_manifest(name, "t", base.data)).expect(201)
        await whole_or_absent(survivor, name, base.data, acknowledged=True)
        if not met:
            break
    assert killed >= 6


async def whole_or_absent(api: Client, name: str, data: bytes, *, acknowledged: bool) -> None:
    by_tag = await api.get(f"/v2/{name}/manifests/t")
    by_digest = await api.get(f"/v2/{name}/manifests/{digest_of(data)}")
    assert not acknowledged or by_tag.status == 200
    assert by_tag.status == 404 or by_digest.status == 200
    listed = (await api.get(f"/v2/{name}/referrers/{digest_of(b's')}")).expect(200).json()["manifests"]
    assert len(listed) == (by_digest.status == 200)
    if by_digest.status == 200:
        for blob in [by_digest.json()["config"], *by_digest.json()["layers"]]:
            (await api.get(f"/v2/{name}/blobs/{blob['digest']}")).expect(200)
