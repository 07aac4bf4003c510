"""What stands behind a request in the same bytes, at a real socket of an application that refuses everything."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.protocol import HEADER_BYTES, GuardedProtocol, guarded


@asynccontextmanager
async def refusing(paths: list[str]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, ServerState]]:
    """A connection to an application that notes paths and answers 403 without reading; below /last it closes then."""

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        last = [(b"connection", b"close")] if scope["path"].startswith("/last") else []
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0"), *last]})
        await send({"type": "http.response.body", "body": b""})

    protocol, state = guarded(5, 10), ServerState()
    config = uvicorn.Config(application, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await loop.create_server(lambda: protocol(config, state, {}), sock=listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            yield reader, writer, state
        finally:
            writer.transport.abort()
            server.close()
            async with asyncio.timeout(10):
                while state.connections:
                    await asyncio.sleep(0)


def put(path: str, size: int) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: r\r\nContent-Length: {size}\r\n\r\n".encode()


def connection(state: ServerState) -> GuardedProtocol:
    (found,) = state.connections
    assert isinstance(found, GuardedProtocol)
    return found


async def test_no_request_is_carried_out_behind_the_last_answer() -> None:
    paths: list[str] = []
    async with refusing(paths) as (reader, writer, state):
        writer.write(put("/last", 3))
        assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
        connection(state).data_received(b"abcDELETE /behind HTTP/1.1\r\nHost: r\r\n\r\n")
        assert await reader.read() == b""
    assert paths == ["/last"]


@pytest.mark.parametrize("size", [10, 2 * HEADER_BYTES])
async def test_the_end_of_a_refused_body_does_not_count_as_headers(size: int) -> None:
    paths: list[str] = []
    async with refusing(paths) as (reader, writer, state):
        writer.write(put("/refused", size))
        assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
        connection(state).data_received(bytes(size) + b"GET /behind HTTP/1.1\r\nHo")
        connection(state).data_received(b"st: r\r\n\r\n")
        assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
    assert paths == ["/refused", "/behind"]


async def test_headers_behind_a_refused_body_are_bounded_too() -> None:
    async with refusing([]) as (reader, writer, state):
        writer.write(put("/refused", 10))
        assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
        connection(state).data_received(bytes(10) + b"GET /behind HTTP/1.1\r\nX: " + bytes(b"y" * HEADER_BYTES))
        connection(state).data_received(b"y")
        assert b" 400 " in await reader.readuntil(b"\r\n\r\n")


async def test_the_body_of_a_request_that_offers_an_upgrade_is_no_other_request() -> None:
    paths: list[str] = []
    async with refusing(paths) as (reader, writer, state):
        writer.write(put("/before", 0))
        await reader.readuntil(b"\r\n\r\n")
        body = b"GET /smuggled HTTP/1.1\r\nHost: r\r\n\r\n"
        head = put("/offer", len(body)).replace(b"Host: r", b"Host: r\r\nConnection: upgrade\r\nUpgrade: h2c")
        connection(state).data_received(head)
        connection(state).data_received(body)
        assert (await reader.read()).count(b"HTTP/1.1") == 1
    assert paths == ["/before", "/offer"]
