"""`/api/v1/export` and `/api/v1/inventory`: images as an archive, and what is here already, for a site without a network."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from app.api.admin import Grants
from app.api.exchange import CLIENT, ClientGone, Exchange, Headers
from app.api.imports import flag
from app.oci.errors import NameInvalid, TooLarge
from app.oci.names import Name

T = TypeVar("T")

_INVENTORY: Final = 64 << 20
"""Bytes of an inventory that is sent here: nine hundred thousand blobs."""
_LOOK: Final = 1.0
"""Seconds between two looks whether the client is still there."""


class Download(Protocol):
    """An archive, of which every byte is known beforehand."""

    size: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes. Raises where one of them is not what it should be, and the connection is cut."""
        ...


class Give(Protocol):
    """Exports images, of which only those are seen that `may` allows. Raises RegistryError."""

    def __call__(
        self,
        references: Sequence[str],
        *,
        form: str,
        platforms: Sequence[str],
        referrers: bool,
        host: str | None,
        have: AsyncIterator[bytes] | None,
        may: Callable[[Name], bool],
    ) -> Coroutine[Any, Any, Download]: ...


class Exports:
    """The endpoints."""

    def __init__(self, give: Give, inventory: Callable[[Callable[[Name], bool]], AsyncIterator[bytes]]) -> None:
        self._give = give
        self._inventory = inventory

    async def get(self, exchange: Exchange, grants: Grants) -> None:
        """200 with the archive; 404 naming each image that is not here as it is wanted.

        `image` and `platform` (any number), `format`, `referrers` and `host` in the query are the command's options.
        """
        await self._send(exchange, grants, None)

    async def post(self, exchange: Exchange, grants: Grants) -> None:
        """200 with the archive, without the blobs of the inventory that is the body; 404 as for GET."""
        await self._send(exchange, grants, _bounded(exchange))

    async def get_inventory(self, exchange: Exchange, grants: Grants) -> None:
        """200 with the digests of the blobs of every repository that the caller administers, one a line."""
        headers: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await exchange.stream(200, headers, self._inventory(grants.administers))

    async def _send(self, exchange: Exchange, grants: Grants, have: AsyncIterator[bytes] | None) -> None:
        images = exchange.query("image")
        if not any(images):
            raise NameInvalid("name an image in the query, such as image=team/app:v1")
        giving = self._give(
            images,
            form=exchange.parameter("format") or "combined",
            platforms=exchange.query("platform"),
            referrers=flag(exchange, "referrers"),
            host=exchange.parameter("host"),
            have=have,
            may=grants.administers,
        )
        found = await _while_there(exchange, giving)
        headers: Headers = [
            (b"content-type", b"application/x-tar"),
            (b"content-length", b"%d" % found.size),
            (b"content-disposition", b'attachment; filename="images.tar"'),
        ]
        await exchange.stream(200, headers, found.chunks())


async def _bounded(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TooLarge."""
    async for chunk in exchange.chunks():
        if exchange.received > _INVENTORY:
            raise TooLarge(f"at most {_INVENTORY} bytes")
        yield chunk


async def _while_there(exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
    """What comes of `work`, which is given up when the client goes away. Raises ClientGone."""
    gone = exchange.scope.get("extensions", {}).get(CLIENT, {}).get("gone", lambda: False)
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=_LOOK))[0]:
            if gone():
                raise ClientGone
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
