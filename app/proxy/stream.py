"""The bytes of a blob as an upstream sends them."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from app.proxy.answers import Extent
from app.proxy.errors import Unreachable
from app.proxy.transport import READ, Transport


class Stream:
    """One answer. `start` is where its bytes begin: what was asked, or 0 where the upstream ignored the range."""

    size: int | None
    """Bytes of the whole blob, where the upstream said so."""

    def __init__(self, response: aiohttp.ClientResponse, extent: Extent, transport: Transport, name: str) -> None:
        """`name` is the upstream's, for reasons."""
        self._response = response
        self._transport = transport
        self._name = name
        self._end = extent.end
        self.start = extent.start
        self.size = extent.size

    async def chunks(self) -> AsyncIterator[bytes]:
        """Up to 512 KiB at a time, as they come, to be read once.

        Raises Unreachable when the connection breaks, when nothing comes for `stall_timeout` seconds, and when the
        answer ends before the blob does.
        """
        at = self.start
        try:
            while chunk := await self._next():
                at += len(chunk)
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            if rest := self._response.content._read_nowait(-1):  # noqa: SLF001  (`read` keeps back what came before)
                yield rest
            raise self._transport.failure(exc, self._response.url) from None
        end = self.size if self.size is not None else self._end
        if end is not None and at < end:
            raise Unreachable(f"{self._name} ended a blob {end - at} bytes early")

    async def _next(self) -> bytes:
        """What comes next. The timeout of the connection alone would take anything for progress, also what is no content."""
        async with asyncio.timeout(self._transport.patience):
            return await self._response.content.read(READ)
