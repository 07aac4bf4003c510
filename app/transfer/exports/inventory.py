"""Lists of blobs that a registry holds: written there, read here, so that a delta leaves them out."""

import os
import tarfile
import zlib
from collections.abc import AsyncIterator, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from app.errors import StartError
from app.oci.digests import Digest, parse_digest
from app.oci.errors import DigestInvalid
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Copy
from app.registry.listing import every
from app.transfer.exports.choosing import May
from storage import NotFound

HEADER: Final = "# edge-registry inventory 1"
_BLOBS: Final = "blobs/"
_BATCH: Final = 500
_LINE: Final = 1024
"""Bytes of a line that is none of an inventory."""


class Held(Container[Digest]):
    """Very many digests: their bytes alone are a quarter of their text in memory."""

    def __init__(self) -> None:
        self._raw: set[bytes] = set()

    def add(self, digest: Digest) -> None:
        self._raw.add(_raw(digest))

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and _raw(digest) in self._raw


async def inventory(bucket: Bucket, may: May = lambda _: True) -> AsyncIterator[str]:
    """The header, then the digest of every blob that some repository holds which `may` allows, in order.

    A request for each thousand keys and one for each blob: the derived keys that are listed may outlive their links.
    Memory stays flat. Raises StorageError.
    """
    yield HEADER
    places: dict[Digest, list[tuple[Copy, Name]]] = {}
    async for listed in every(bucket.driver, keys.HOLDERS):
        with suppress(ValueError, IndexError):
            digest, place = keys.digest_below(listed.key), keys.holding(listed.key)
            if len(places) >= _BATCH and digest not in places:
                for found in await _linked(bucket, places):
                    yield found
                places = {}
            if may(place[1]):
                places.setdefault(digest, []).append(place)
    for found in await _linked(bucket, places):
        yield found


async def _linked(bucket: Bucket, places: Mapping[Digest, Sequence[tuple[Copy, Name]]]) -> list[Digest]:
    """Those of the blobs to which one of these links leads."""

    async def is_linked(digest: Digest) -> bool:
        for copy, name in places[digest]:
            with suppress(NotFound):
                await bucket.driver.stat(keys.link(name, digest, copy))
                return True
        return False

    found = await side_by_side(is_linked, places)
    return [digest for digest, there in zip(places, found, strict=True) if there]


async def received(chunks: AsyncIterator[bytes]) -> Held:
    """What an inventory holds that comes in pieces; nothing, where nothing comes.

    Raises StartError, and what the stream raises.
    """
    found, number = Held(), 0
    async for line in _split(chunks):
        number += 1
        if number == 1:
            _demand_header(line, "the body")
        else:
            found.add(_digest(line, number, "the body"))
    return found


def held(source: Path | IO[str]) -> set[Digest]:
    """What the other side has: an inventory, an archive or a layout of images that it was given. Blocks.

    Raises StartError for a file that is none of them, OSError.
    """
    if not isinstance(source, Path):
        return set(_lines(source, "standard input"))
    if not source.is_dir():
        with source.open("rb") as file:
            head = file.read(len(HEADER))
        if head == HEADER.encode():
            with source.open(encoding="utf-8") as text:
                return set(_lines(text, str(source)))
    found = set(_named(_paths(source)))
    if not found:
        raise StartError(f"{source} is no inventory, and no archive or layout that names blobs by their digests")
    return found


def _paths(source: Path) -> Iterator[str]:
    """The files of an archive or a layout; none for what is neither. Raises OSError."""
    if source.is_dir():
        yield from (str(path.relative_to(source)) for path in source.glob(f"{_BLOBS}*/*"))
        return
    with suppress(tarfile.TarError, EOFError, zlib.error), tarfile.open(source) as archive:
        yield from (os.path.normpath(member.name) for member in archive if member.isreg())


def _lines(text: IO[str], name: str) -> Iterator[Digest]:
    """The digests of an inventory. Raises StartError."""
    _demand_header(text.readline(), name)
    for number, line in enumerate(text, 2):
        yield _digest(line, number, name)


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The lines; one that is far too long comes in pieces."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
        if len(rest) > _LINE:
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace")


def _demand_header(line: str, name: str) -> None:
    if line.strip() != HEADER:
        raise StartError(f"{name} is no inventory: it does not begin with {HEADER!r}")


def _digest(line: str, number: int, name: str) -> Digest:
    try:
        return parse_digest(line.strip())
    except DigestInvalid:
        raise StartError(f"{name}: line {number} is no digest") from None


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.partition(":")[2])


def _named(paths: Iterator[str]) -> Iterator[Digest]:
    """The digests that paths of a layout name; others are passed over."""
    for path in paths:
        if path.startswith(_BLOBS):
            with suppress(DigestInvalid):
                yield parse_digest(path.removeprefix(_BLOBS).replace("/", ":"))
