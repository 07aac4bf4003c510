import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from tests.services.client import Client, digest_of, noise
from tests.services.faults import FaultProxy
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.minio

Connect = Callable[[str], Client]
Launch = Callable[..., Any]


async def until(condition: Callable[[], Any], expected: Any, seconds: float = 20) -> None:
    """Asks until the answer is the expected one: there is no event to wait for in another process."""
    async with asyncio.timeout(seconds):
        while await asyncio.to_thread(condition) != expected:
            await asyncio.sleep(0.1)


async def test_pushes_outlast_a_store_that_is_away_for_three_seconds(
    start_soon: Launch, connect: Connect, proxy: FaultProxy
) -> None:
    replica: RegistryServer = await start_soon(proxy.endpoint)
    api = connect(replica.url)
    await api.push_image("a", "before", b"layer")

    async def pushes(i: int) -> None:
        for attempt in range(20):
            layer = noise(50_000, f"{i}")
            answer = await api.ask("POST", f"/v2/a/blobs/uploads/?digest={digest_of(layer)}", body=layer)
            if answer.status == 201:
                return
            assert answer.status == 503, answer
            assert answer.header("retry-after")
            await asyncio.sleep(0.2 * attempt)
        raise AssertionError("the push never succeeded")

    proxy.down = True
    running = [asyncio.create_task(pushes(i)) for i in range(4)]
    await asyncio.sleep(3)
    proxy.down = False
    await asyncio.gather(*running)
    for i in range(4):
        layer = noise(50_000, f"{i}")
        assert (await api.get(f"/v2/a/blobs/{digest_of(layer)}")).expect(200).body == layer


async def test_without_its_store_a_replica_says_so_and_recovers_alone(
    start_soon: Launch, connect: Connect, proxy: FaultProxy
) -> None:
    replica: RegistryServer = await start_soon(proxy.endpoint)
    api = connect(replica.url)
    image = await api.push_image("a", "t", b"layer")
    proxy.down = True
    answers = await asyncio.gather(
        api.get("/v2/a/manifests/t"),
        api.get(f"/v2/a/manifests/{image.digest}"),
        api.get(f"/v2/a/blobs/{digest_of(b'layer')}"),
        api.put_manifest("a", "t", image.data),
        api.get("/v2/_catalog"),
        api.ask("POST", f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}", body=b"x"),
    )
    for answer in answers:
        assert answer.expect(503).codes == ["UNAVAILABLE"]
        assert int(answer.header("retry-after") or 0) > 0
    await until(lambda: replica.request("GET", "/readyz").status, 503)
    assert replica.request("GET", "/livez").status == 200
    (await api.get("/v2/")).expect(200)
    proxy.down = False
    await until(lambda: replica.request("GET", "/readyz").status, 200)
    assert (await api.get("/v2/a/manifests/t")).expect(200).body == image.data


async def test_sigterm_lets_a_running_pull_and_push_end(start_soon: Launch, connect: Connect) -> None:
    replica: RegistryServer = await start_soon(HTTP__DRAIN_TIMEOUT="20")
    api, data = connect(replica.url), noise(30_000_000)
    digest = await api.push_blob("a", data)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first "
        begun.set()
        await go_on.wait()
        yield b"second"

    location = await api.begin("a")
    async with aiohttp.ClientSession() as session, session.get(f"{replica.url}/v2/a/blobs/{digest}") as pull:
        push = asyncio.create_task(api.patch(location, slow()))
        await begun.wait()
        received = await pull.content.readexactly(1000)
        stopped = asyncio.create_task(asyncio.to_thread(replica.stop))
        await until(lambda: refuses(replica), True)
        go_on.set()
        (await push).expect(202)
        received += await pull.content.read()
    assert received == data
    await asyncio.wait_for(stopped, 30)


def refuses(replica: RegistryServer) -> bool:
    try:
        replica.request("GET", "/livez")
    except OSError:
        return True
    return False
