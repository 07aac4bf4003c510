"""Following another replica's transfer: who may, what is compared, and what happens where it cannot be reached."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.oci.digests import Digest
from app.proxy.errors import Unreachable
from app.proxy.following import Following
from app.proxy.peers import PATH, PeerGone, Peers
from app.registry.signing import Signing
from storage import Capabilities, Driver
from storage.memory import MemoryDriver
from tests.proxy.pulling import pulling, section
from tests.proxy.reading import BLOBS, HALF, SIZE, Reading, begun, blob_path, holds, push, settled, transfers_of
from tests.proxy.served import serve
from tests.services.app import Running
from tests.services.client import Answer, digest_of, noise
from tests.services.front import Front

DATA = noise(10_000, "peers")
DIGEST = Digest(digest_of(DATA))


async def signing(driver: Driver | None = None) -> Signing:
    found = Signing(driver or MemoryDriver())
    await found.start()
    return found


@pytest.fixture
async def service(front: Front, tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[Running]:
    async with pulling(tmp_path, section(front.url)) as service:
        yield service


async def asked(service: Running, digest: str, token: str, method: str = "GET", **headers: str) -> Answer:
    return await service.client.ask(method, f"{PATH}{digest}", {"authorization": f"Bearer {token}", **headers})


async def test_a_replica_of_the_bucket_gets_the_growing_bytes_and_nobody_else_does(
    service: Running, front: Front
) -> None:
    digest, data = push(front, seed="peer")
    await begun(service, front, digest, data)
    ours = await signing(service.store.driver)
    now, context = str(int(time.time())).encode(), f"peer\n{digest}"
    good = ours.sign(now, context)
    answer = (await asked(service, digest, good, range="bytes=10-99")).expect(206)
    assert answer.body == data[10:100]
    assert answer.header("content-range") == f"bytes 10-99/{SIZE}"
    head = (await asked(service, digest, good, "HEAD")).expect(200)
    assert head.header("content-length") == str(SIZE)
    assert head.header("etag") == answer.header("etag")
    strangers = {
        "without a token": "",
        "forged": good[:-4] + "AAAA",
        "of another bucket": (await signing()).sign(now, context),
        "for another blob": ours.sign(now, f"peer\n{DIGEST}"),
        "of an upload": ours.sign(now, f"upload\n{digest}"),
        "old": ours.sign(str(int(time.time()) - 3600).encode(), context),
        "of the future": ours.sign(str(int(time.time()) + 3600).encode(), context),
    }
    for name, token in strangers.items():
        for method in ("GET", "HEAD"):
            assert (await asked(service, digest, token, method)).status == 404, name
    assert (await asked(service, DIGEST, ours.sign(now, f"peer\n{DIGEST}"))).status == 404
    assert (await asked(service, digest, good, "POST")).status == 405
    front.cut_all()
    await settled(service)
    assert (await asked(service, digest, good)).status == 404


async def test_a_peer_is_cut_off_when_the_transfer_fails(service: Running, front: Front) -> None:
    digest, data = push(front, seed="peer cut off")
    await begun(service, front, digest, data)
    token = (await signing(service.store.driver)).sign(str(int(time.time())).encode(), f"peer\n{digest}")
    reading = Reading(service, f"{PATH}{digest}", authorization=f"Bearer {token}")
    await reading.has(HALF)
    await transfers_of(service).close()  # as a server that stops does
    await reading.ended()
    assert not reading.whole


@dataclass
class Made:
    """A transfer that brings these bytes, and then ends, or is gone."""

    data: bytes
    mark: str | None
    gone_at: int | None = None

    async def opened(self) -> int | None:
        return len(DATA)

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        stop = end if self.gone_at is None else min(end, self.gone_at)
        for at in range(start, stop, 700):
            yield self.data[at : min(at + 700, stop)]
        if stop < end:
            raise PeerGone


def reached(*transfers: Made) -> Callable[[], Awaitable[tuple[Any, int]]]:
    waiting = list(transfers)

    async def reach() -> tuple[Any, int]:
        return waiting.pop(0), len(DATA)

    return reach


async def read(first: Made, *others: Made, start: int = 0, end: int = len(DATA)) -> bytes:
    following = Following(reached(*others), first, len(DATA), start, end)
    try:
        return b"".join([chunk async for chunk in following])
    finally:
        await following.aclose()


WRONG = bytes([DATA[0] ^ 1]) + DATA[1:]


@pytest.mark.parametrize("span", [(0, 10_000), (300, 9_000), (3_999, 4_001)])
async def test_a_reader_goes_on_at_its_offset_when_a_replica_vanishes(span: tuple[int, int]) -> None:
    start, end = span
    gone = Made(DATA, "a", 4_000)
    assert await read(gone, Made(DATA, None), start=start, end=end) == DATA[start:end]
    assert (
        await read(gone, gone, replace(gone, gone_at=7_000), Made(DATA, None), start=start, end=end) == DATA[start:end]
    )
    assert await read(gone, Made(DATA, "b", 2_000), Made(DATA, "b"), start=start, end=end) == DATA[start:end]


async def test_bytes_of_a_vanished_replica_that_turn_out_wrong_break_the_connection() -> None:
    for other in (Made(DATA, None), Made(DATA, "b")):
        with pytest.raises(Unreachable, match="other bytes"):
            await read(Made(WRONG, "a", 4_000), other)
    with pytest.raises(Unreachable, match="other bytes"):
        await read(Made(WRONG, "a", 4_000), Made(WRONG, "b", 6_000), Made(DATA, None))
    late = DATA[:3_999] + bytes([DATA[3_999] ^ 1]) + DATA[4_000:]
    with pytest.raises(Unreachable, match="other bytes"):
        await read(Made(late, "a", 4_000), Made(DATA, None))


async def test_the_transfer_of_a_peer_that_began_anew_is_another_one(complaints: list[dict[str, Any]]) -> None:
    marks = ['"one"', '"two"']

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {"ETag": marks.pop(0)}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(DATA))})
        return web.Response(status=206, body=DATA[5:10], headers=headers)

    async with serve(answer) as served, AsyncExitStack() as stack:
        peers = Peers("http://unused", await signing())
        await peers.start()
        stack.push_async_callback(peers.close)
        transfer = peers.follow(DIGEST, served.base)
        assert await transfer.opened() == len(DATA)
        with pytest.raises(PeerGone):
            await anext(transfer.chunks(5, 10))
        for url in ("", "http://127.0.0.1:1", "no url"):
            with pytest.raises(PeerGone):
                await peers.follow(DIGEST, url).opened()


async def test_an_owner_that_cannot_be_reached_is_waited_for(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="unreachable owner")
    driver = MemoryDriver()
    wrong = {"peer_url": "http://127.0.0.1:1"}
    first = {"spool": {"folder": tmp_path / "1"}, **wrong}
    second = {"spool": {"folder": tmp_path / "2"}, **wrong}
    async with (
        pulling(tmp_path, section(front.url), driver=driver, proxy=first) as owner,
        pulling(tmp_path, section(front.url), driver=driver, proxy=second) as other,
    ):
        reading = await begun(owner, front, digest, data)
        waiting = Reading(other, blob_path(digest))
        async with asyncio.timeout(10):
            while not any(operation == "get" and "/leases/" in key for operation, key in other.store.asked):
                await asyncio.sleep(0.01)
        assert not waiting.status
        front.cut_all()
        await reading.right(data)
        await waiting.right(data)
        assert await holds(other, digest, data)
    assert front.sent(BLOBS) <= SIZE * 1.02


async def test_without_conditional_writes_each_replica_fetches_once(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="no conditions")

    class Careless(MemoryDriver):
        """A store that takes conditional writes for plain ones."""

        async def probe(self) -> Capabilities:
            return replace(await super().probe(), conditional_put=False)

    driver = Careless()
    spools = [{"spool": {"folder": tmp_path / name}} for name in "ab"]
    async with (
        pulling(tmp_path, section(front.url), driver=driver, proxy=spools[0]) as first,
        pulling(tmp_path, section(front.url), driver=driver, proxy=spools[1]) as second,
    ):
        front.rate = 6_000_000
        readings = [Reading(service, blob_path(digest)) for service in (first, second, first, second)]
        for reading in readings:
            await reading.right(data)
        assert await holds(first, digest, data)
        await settled(second)
        assert not [key for key in await first.store.keys() if "lease" in key]
        await Reading(second, blob_path(digest)).right(data)
    assert front.count(BLOBS, "GET") == 2
