"""Raw bytes against a real server process: what is no HTTP, or too slow, is cut, and others do not feel it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.services.client import Client, Wire, noise
from tests.services.registry import RegistryServer, filesystem_store

POST = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: r\r\n"
GARBLED: dict[str, bytes] = {
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "a length with a plus": POST + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
    "a negative chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n",
    "a chunk size beyond 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc\r\n",
    "a chunk without its end": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "a strange encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a folded header": POST + b"X: a\r\n b\r\nContent-Length : 0\r\n\r\n",
    "a NUL in a header": POST + b"X: a\0b\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    "noise": noise(2000) + b"\r\n\r\n",
    "headers without end": b"GET /v2/ HTTP/1.1\r\nHost: r\r\n" + b"X: " + b"y" * 200_000,
    "very many headers": b"GET /v2/ HTTP/1.1\r\nHost: r\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(20_000)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Impatient: a second for headers, and a kilobyte a second for bodies."""
    folder: Path = tmp_path_factory.mktemp("sockets")
    patience = {"HEADER_TIMEOUT": "1", "STALL_TIMEOUT": "1", "MINIMUM_RATE": "1024"}
    settings = {f"EDGE_REGISTRY_HTTP__{name}": value for name, value in patience.items()}
    with RegistryServer(folder, filesystem_store(folder / "store"), settings=settings) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RegistryServer]:
    """Wants ten megabytes a second."""
    patience = {"STALL_TIMEOUT": "1", "MINIMUM_RATE": "10000000", "DRAIN_TIMEOUT": "1"}
    settings = {f"EDGE_REGISTRY_HTTP__{name}": value for name, value in patience.items()}
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "store"), settings=settings) as running:
        yield running


@pytest.fixture
async def api(server: RegistryServer) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(Wire(server.url, session))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def say(server: RegistryServer, data: bytes, seconds: float = 8) -> bytes:
    """Sends bytes and returns all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            try:
                await writer.drain()
                return await reader.read()
            except ConnectionError:
                return b""
    finally:
        await close(writer)


@pytest.mark.parametrize("case", GARBLED)
async def test_what_is_no_http_is_refused_and_the_connection_closed(
    server: RegistryServer, api: Client, case: str
) -> None:
    answer = await say(server, GARBLED[case])
    if answer and case not in ("a chunk without its end", "a bad chunk size", "a negative chunk size"):
        assert answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert answer.count(b"HTTP/1.1 2") <= 1, "the rest of a request was taken for another one"
    assert b"HTTP/1.1 200" not in answer
    (await api.get("/v2/")).expect(200)


async def slowest(api: Client, work: "asyncio.Future[Any]", target: str) -> float:
    """The longest that another client waited for an answer while `work` ran, in seconds."""
    worst = 0.0
    while not work.done():
        before = time.perf_counter()
        (await api.get(target)).expect(200)
        worst = max(worst, time.perf_counter() - before)
        await asyncio.sleep(0.01)
    return worst


async def test_a_body_in_very_many_chunks_of_one_byte(server: RegistryServer, api: Client) -> None:
    data = noise(100_000)
    location = await api.begin("a")
    head = f"PATCH {location} HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    sending = asyncio.create_task(say(server, head + body, 30))
    worst = await slowest(api, sending, "/v2/")
    answer = await sending
    assert b"HTTP/1.1 202" in answer
    assert f"range: 0-{len(data) - 1}".encode() in answer
    assert worst < 1.0


async def trickle(server: RegistryServer, head: bytes, piece: Callable[[int], bytes]) -> float:
    """Sends a piece every 0.2 s until the server closes; returns how long that took, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = time.perf_counter()
    closed = asyncio.create_task(reader.read())
    try:
        writer.write(head)
        assert not reader.at_eof()
        for i in range(60):
            done, _ = await asyncio.wait({closed}, timeout=0.2)
            if done:
                return time.perf_counter() - began
            writer.write(piece(i))
    finally:
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)
        await close(writer)
    raise AssertionError("the server never closed the connection")


async def test_slow_headers_and_slow_bodies_are_cut_and_others_stay_fast(server: RegistryServer, api: Client) -> None:
    digest = await api.push_blob("fast", noise(100_000))
    patch = [f"PATCH {await api.begin('slow')} HTTP/1.1\r\nHost: r\r\n".encode() for _ in range(40)]
    headers = [trickle(server, b"GET /v2/ HTTP/1.1\r\n", lambda i: b"X-%d: y\r\n" % i) for _ in range(40)]
    chunks = [
        trickle(server, head + b"Transfer-Encoding: chunked\r\n\r\n", lambda _: b"1\r\nx\r\n") for head in patch[:20]
    ]
    lengths = [trickle(server, head + b"Content-Length: 100000\r\n\r\n", lambda _: b"x") for head in patch[20:]]
    silent = [trickle(server, b"", lambda _: b"") for _ in range(20)]
    everything = asyncio.gather(*headers, *chunks, *lengths, *silent)
    worst = await slowest(api, everything, f"/v2/fast/blobs/{digest}")
    assert max(await everything) < 6
    assert worst < 1.0


async def test_a_client_that_does_not_read_is_cut(hasty: RegistryServer) -> None:
    async with aiohttp.ClientSession() as session:
        digest = await Client(Wire(hasty.url, session)).push_blob("big", noise(40_000_000))
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    writer.write(f"GET /v2/big/blobs/{digest} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
    assert b"200" in await reader.readline()
    async with asyncio.timeout(20):
        while "took the answer too slowly" not in hasty.read_log():
            await asyncio.sleep(0.1)
    await close(writer)


async def test_a_blob_is_not_read_on_for_a_client_that_has_left(server: RegistryServer, api: Client) -> None:
    digest = await api.push_blob("left", noise(60_000_000))
    path = f"/v2/left/blobs/{digest}"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
    assert b"200" in await reader.readline()
    writer.transport.abort()
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not found:
            await asyncio.sleep(0.1)
            lines = [json.loads(line) for line in server.read_log().splitlines() if path in line]
            found = [line for line in lines if line["method"] == "GET"]
    assert found[0]["error"] == "the client went away"
    assert found[0]["sent"] < 60_000_000


async def test_an_abort_in_the_middle_of_a_patch_leaves_nothing(server: RegistryServer, api: Client) -> None:
    store = server.folder / "store"

    def files() -> set[Path]:
        return {path for path in store.rglob("*") if path.is_file()}

    location, before = await api.begin("gone"), files()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 90000000\r\n\r\n".encode() + noise(20_000_000)
    )
    await writer.drain()
    await close(writer)
    async with asyncio.timeout(20):
        while "the client went away" not in server.read_log():
            await asyncio.sleep(0.1)
        while files() - before:
            await asyncio.sleep(0.1)


def refused(server: RegistryServer, head: bytes, body: bytes) -> bytes:
    """What a client reads that sends all of a request before it reads any, as urllib does. Raises OSError."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Host: r\r\n" + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        with connection.makefile("rb") as answer:
            return answer.readline()


@pytest.mark.parametrize("head", [b" HTTP/1.1\r\nConnection: close\r\n", b" HTTP/1.0\r\n", b" HTTP/1.1\r\n"])
@pytest.mark.parametrize(
    "target", [b"PUT /v2/a/manifests/v1", b"PATCH /v2/A/blobs/uploads/x", b"POST /api/v1/import?dry_run=x"]
)
def test_a_refusal_reaches_a_client_that_sends_all_first(server: RegistryServer, target: bytes, head: bytes) -> None:
    assert refused(server, target + head, bytes(32 << 20)).split()[1][:1] == b"4"


def test_what_follows_a_refusal_is_read_to_a_limit_only(server: RegistryServer) -> None:
    with pytest.raises(ConnectionError):
        refused(server, b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nConnection: close\r\n", bytes(160 << 20))


@pytest.mark.parametrize("drip", [0.2, 30])
def test_what_follows_a_refusal_is_waited_for_a_while_only(server: RegistryServer, drip: float) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=drip) as connection:
        connection.sendall(
            b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: r\r\nConnection: close\r\nContent-Length: 9999999\r\n\r\n"
        )
        with suppress(ConnectionError):
            while True:
                with suppress(TimeoutError):
                    if not connection.recv(4096):
                        break
                assert time.monotonic() - began < 15
                connection.sendall(b"x")
    assert time.monotonic() - began < 15


LAST = b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: r\r\nConnection: close\r\nContent-Length: 9999999\r\n\r\n"


async def test_a_client_that_sends_nothing_behind_a_refusal_is_let_go(server: RegistryServer) -> None:
    await say(server, LAST)  # fails where the server closes no connection
