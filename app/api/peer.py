"""What other replicas ask of this one: the bytes of a blob that it is fetching just now."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from app.api.exchange import ClientGone, Exchange, Pace, Receive, Scope, Send
from app.api.ranges import parse_range
from app.oci.digests import Digest, parse_digest
from app.oci.errors import BlobUnknown, RegistryError, Unsupported


class Shared(Protocol):
    """A transfer that runs here. `id` names it, and no other one of the same blob."""

    @property
    def id(self) -> str: ...

    async def opened(self) -> int | None:
        """The blob's size in bytes where it is known, once bytes are on their way. Raises RegistryError."""
        ...

    def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes as they come. Raises RegistryError."""
        ...


Find = Callable[[str, Digest], Awaitable[Shared | None]]
"""Takes a replica's token and a digest; None for strangers and for what does not run here."""


class PeerApi:
    """An ASGI application for `prefix` with a digest behind it. Errors say nothing but that the blob is not to be had here."""

    def __init__(self, prefix: str, find: Find, pace: Pace) -> None:
        self.prefix = prefix
        self._find = find
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._pace)
        try:
            await self._serve(exchange)
        except RegistryError as exc:
            if not exchange.status:
                await exchange.fail(exc)
        except ClientGone:
            pass

    async def _serve(self, exchange: Exchange) -> None:
        if exchange.method not in ("GET", "HEAD"):
            raise Unsupported(headers={"Allow": "GET, HEAD"})
        digest = parse_digest(exchange.scope["path"].removeprefix(self.prefix))
        token = (exchange.header(b"authorization") or "").removeprefix("Bearer ")
        transfer = await self._find(token, digest)
        size = None if transfer is None else await transfer.opened()
        if transfer is None or size is None:
            raise BlobUnknown()
        start, end = parse_range(exchange.header(b"range"), size) or (0, size)
        headers = [(b"content-length", b"%d" % (end - start)), (b"etag", b'"%s"' % transfer.id.encode())]
        if exchange.method == "HEAD":
            await exchange.head(200, headers)
            return
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        async with aclosing(transfer.chunks(start, end)) as chunks:
            await exchange.stream(206, headers, chunks)
