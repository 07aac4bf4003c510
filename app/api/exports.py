"""`/api/v1/export` and `/api/v1/inventory`: images as an archive, and what is here already, for a site without a network."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from app.api.admin import Grants
from app.api.exchange import Exchange, Headers
from app.api.imports import flag
from app.oci.errors import NameInvalid
from app.oci.names import Name

_INVENTORY: Final = 64 << 20
"""Bytes of an inventory that is sent here: nine hundred thousand blobs."""


class Download(Protocol):
    """An archive, of which every byte is known beforehand."""

    size: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes. Raises where one of them is not what it should be, and the connection is cut."""
        ...


class Give(Protocol):
    """Exports images, of which only those are seen that `may` allows. Raises RegistryError."""

    async def __call__(
        self,
        references: Sequence[str],
        *,
        form: str,
        platforms: Sequence[str],
        referrers: bool,
        host: str | None,
        have: str,
        may: Callable[[Name], bool],
    ) -> Download: ...


class Exports:
    """The endpoints."""

    def __init__(self, give: Give, inventory: Callable[[Callable[[Name], bool]], AsyncIterator[bytes]]) -> None:
        self._give = give
        self._inventory = inventory

    async def get(self, exchange: Exchange, grants: Grants) -> None:
        """200 with the archive; 404 naming each image that is not here as it is wanted.

        `image` and `platform` (any number), `format`, `referrers` and `host` in the query are the command's options.
        """
        await self._send(exchange, grants, "")

    async def post(self, exchange: Exchange, grants: Grants) -> None:
        """As `get`, without the blobs in the inventory that is the body."""
        text = (await exchange.body(_INVENTORY)).decode("utf-8", "replace")
        await self._send(exchange, grants, text)

    async def get_inventory(self, exchange: Exchange, grants: Grants) -> None:
        """200 with the digests of the blobs of every repository that the caller administers, one a line."""
        headers: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await exchange.stream(200, headers, self._inventory(grants.administers))

    async def _send(self, exchange: Exchange, grants: Grants, have: str) -> None:
        images = exchange.query("image")
        if not any(images):
            raise NameInvalid("name an image in the query, such as image=team/app:v1")
        found = await self._give(
            images,
            form=exchange.parameter("format") or "combined",
            platforms=exchange.query("platform"),
            referrers=flag(exchange, "referrers"),
            host=exchange.parameter("host"),
            have=have,
            may=grants.administers,
        )
        headers: Headers = [
            (b"content-type", b"application/x-tar"),
            (b"content-length", b"%d" % found.size),
            (b"content-disposition", b'attachment; filename="images.tar"'),
        ]
        await exchange.stream(200, headers, found.chunks())
