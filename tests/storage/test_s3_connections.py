"""What becomes of connections to a store that stops reading."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from storage.errors import OutcomeUnknown
from storage.s3_client import S3Client
from storage.settings import S3Settings

BODY = 64 << 20
"""More than the kernel's buffers of one connection hold."""


class Stalling:
    """A server that reads the headers of a request, then nothing more until `resume` is set; counts what came in all."""

    def __init__(self) -> None:
        self.asked, self.resume, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.received = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await self.resume.wait()
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 20):
                self.received += len(chunk)
        writer.close()
        self.ended.set()


@asynccontextmanager
async def client_of(stalling: Stalling) -> AsyncIterator[S3Client]:
    server = await asyncio.start_server(stalling.serve, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    keys = {"access_key": "access", "secret_key": "secret"}
    client = S3Client(S3Settings.model_validate({"endpoint": endpoint, "bucket": "bucket", **keys}))
    await client.start()
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


async def body() -> AsyncIterator[bytes]:
    yield b"x" * BODY


@pytest.mark.parametrize("way", ["cancelled", "late"])
async def test_a_request_that_was_given_up_sends_no_more_of_its_body(way: str) -> None:
    """asyncio goes on sending what a closed connection has buffered: memory that nobody counts, for as long as a
    store takes that stopped reading; at the end of the event loop, a socket that nobody closes."""
    stalling = Stalling()
    async with client_of(stalling) as client:
        within = 0.2 if way == "late" else 60.0
        put = asyncio.create_task(client.call("PUT", "key", body=body, length=BODY, within=within))
        await stalling.asked.wait()
        if way == "cancelled":
            put.cancel()
        with pytest.raises((asyncio.CancelledError, OutcomeUnknown)):
            await put
        stalling.resume.set()
        async with asyncio.timeout(20):
            await stalling.ended.wait()
        assert stalling.received < BODY
