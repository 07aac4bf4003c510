"""`POST /api/v1/import`: an archive of images as the body, published as it would be pushed."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from app.api.admin import Grants
from app.api.exchange import CLIENT, Exchange
from app.oci.errors import SizeInvalid, TooLarge, Unsupported
from app.oci.names import Name
from app.quantities import size_text


class Outcome(Protocol):
    """What became of one image under one name; sizes in bytes."""

    @property
    def image(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def new(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    @property
    def trouble(self) -> str | None: ...


class Take(Protocol):
    """Imports an archive as it comes, for a user who may do so much. Raises RegistryError, and what the stream raises."""

    async def __call__(  # noqa: PLR0913  (what is asked, and by whom)
        self,
        chunks: AsyncIterator[bytes],
        *,
        given: str,
        prefix: str,
        keep_host: bool,
        platforms: Sequence[str],
        dry_run: bool,
        by: str | None,
        may_push: Callable[[Name], bool],
        may_pull: Callable[[Name], bool],
        gone: Callable[[], bool],
    ) -> Sequence[Outcome]: ...


class Imports:
    """The endpoint."""

    def __init__(self, take: Take, limit: int) -> None:
        """`limit`: the most bytes of a body."""
        self._take = take
        self._limit = limit

    async def post(self, exchange: Exchange, grants: Grants) -> None:
        """200 with what was imported; 400 where any of it was not, with all that was and why the rest was not.

        `name`, `prefix`, `keep_host`, `platform` (any number) and `dry_run` in the query are the command's options.
        """
        if grants.read_only:
            raise Unsupported("the registry is read-only")
        if (exchange.content_length() or 0) > self._limit:
            raise TooLarge(f"at most {size_text(self._limit)}")
        found = await self._take(
            exchange.chunks(),
            given=exchange.parameter("name") or "",
            prefix=exchange.parameter("prefix") or "",
            keep_host=flag(exchange, "keep_host"),
            platforms=exchange.query("platform"),
            dry_run=flag(exchange, "dry_run"),
            by=grants.user or "import",
            may_push=grants.administers,
            may_pull=grants.may_pull,
            gone=exchange.scope.get("extensions", {}).get(CLIENT, {}).get("gone", lambda: False),
        )
        bad = [image for image in found if image.trouble is not None]
        document: dict[str, Any] = {"images": [described(image) for image in found]}
        if bad:
            document["errors"] = [
                {"code": "ARCHIVE_INVALID", "message": image.trouble, "detail": {"image": image.image}} for image in bad
            ]
        await exchange.json(400 if bad else 200, document)


def described(image: Outcome) -> dict[str, Any]:
    """One image, for programs."""
    return {
        "image": image.image,
        "name": image.name or None,
        "digest": image.digest or None,
        "bytes": image.size,
        "new_bytes": image.new,
        "left_out": image.left_out,
        "trouble": image.trouble,
    }


def flag(exchange: Exchange, name: str) -> bool:
    """A parameter that switches something on. Raises SizeInvalid for what is neither yes nor no."""
    text = exchange.parameter(name)
    if text is None or text.lower() in ("0", "false", "no"):
        return False
    if text.lower() in ("", "1", "true", "yes"):
        return True
    raise SizeInvalid(f"{name} is true or false")
