"""The way to the registry behind the front: one connection, kept from request to request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.services.front.scene import Scene
from tests.services.front.wire import BrokenOff, Head, as_chunk, read_body, read_head

LIMIT = 1 << 20
Interim = Callable[[bytes], Awaitable[None]]


class Link:
    """Belongs to one connection of a client, which asks one thing at a time."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._address: tuple[str, int] | None = None

    def close(self) -> None:
        """Closes it; the next question opens it again."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    @asynccontextmanager
    async def asking(
        self, head: Head, body: AsyncIterator[bytes], interim: Interim
    ) -> AsyncIterator[tuple[Head, AsyncIterator[bytes], Callable[[], bool]]]:
        """The answer's head, its body, and whether the request's body has gone out; answers with 1xx go to `interim`.

        Raises BrokenOff and OSError. The body of an answer that has one must be read to its end, or the link closes.
        """
        reader, writer = await self._open()
        pump = None
        complete = False
        try:
            writer.write(head.encode())
            if head.chunked or head.get("content-length") not in (None, "0"):
                pump = asyncio.ensure_future(_pump(body, writer, chunked=head.chunked))
            answer = await _final(reader, interim)
            has_body = not head.line.startswith("HEAD ") and answer.status not in (204, 304)
            content = _Counted(read_body(reader, answer, of_answer=True)) if has_body else _Counted(_nothing())
            yield answer, content, lambda: pump is None or pump.done()
            complete = answer.keeps and (content.ended or not has_body or answer.get("content-length") == "0")
        finally:
            if pump is not None:
                complete = complete and pump.done()
                pump.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await pump
            if not complete:
                self.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = self._scene.target
        if self._streams is not None:
            reader, writer = self._streams
            if self._address != target.address or reader.at_eof() or writer.is_closing():
                self.close()
        if self._streams is None:
            self._address = target.address
            self._streams = await asyncio.open_connection(*target.address, ssl=target.context, limit=LIMIT)
        return self._streams


class _Counted(AsyncIterator[bytes]):
    """A body that knows whether it was read to its end."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.ended = False

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self.ended = True
            raise


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _final(reader: asyncio.StreamReader, interim: Interim) -> Head:
    while True:
        answer = await read_head(reader)
        if answer is None:
            raise BrokenOff("the registry closed the connection")
        if answer.status >= 200:
            return answer
        await interim(answer.encode())


async def _pump(body: AsyncIterator[bytes], writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    async for data in body:
        writer.write(as_chunk(data) if chunked else data)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
