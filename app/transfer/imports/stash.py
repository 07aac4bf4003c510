"""Bytes of an archive in the store, under names that nothing links yet: an image is published only once all of it is known.

Each goes the way of a streamed upload (`registry/uploads.py`): into a new `data/<uuid>`, and bound when it is needed.
What is not needed after all is removed at the end; what a killed process leaves, the collector takes.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from app.oci.digests import DEFAULT_ALGORITHM, Digest, algorithm_of
from app.oci.errors import BlobUploadUnknown, RegistryError, Unavailable
from app.oci.names import Name, parse_name
from app.registry import keys
from app.registry.blobs import Blobs
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.hashing import StreamHash
from app.registry.keys import Copy
from app.registry.publishing import holding, usable
from app.registry.sessions import Session
from app.registry.uploads import SHARED_FROM, Uploads
from app.transfer.errors import ArchiveRefused, shown

_NOBODY: Final = parse_name("import")
"""The repository in whose name bytes are taken before it is known which one needs them; nothing is linked into it."""


@dataclass(slots=True)
class Kept:
    """Bytes that were hashed; `session` is the upload that holds them, or None where the registry held them before."""

    digest: Digest
    size: int
    session: Session | None = None
    older: Copy | None = None
    homes: list[Name] = field(default_factory=list)
    """Repositories that hold them by now."""
    tried: bool = False
    """Whether a link to these very bytes may exist, also one whose writing got no answer."""

    @property
    def copy(self) -> Copy | None:
        """Where the bytes lie; None in a dry run."""
        return (self.session.copy if self.session else None) or self.older


class Stash:
    """What one import has stored and not linked. `close` it."""

    def __init__(self, bucket: Bucket, *, dry: bool = False) -> None:
        """`dry`: bytes are hashed and not stored."""
        self.bucket = bucket
        self.dry = dry
        self._kept: dict[Digest, Kept] = {}

    def known(self, digest: Digest) -> Kept | None:
        """What was kept already under this digest."""
        return self._kept.get(digest)

    @translated
    async def held(self, digest: Digest, size: int) -> Kept | None:
        """Bytes that the registry holds already, and that `link` can link. Too small ones are cheaper to store again."""
        known = self._kept.get(digest)
        if known is not None or size < SHARED_FROM:
            return known
        copy = await usable(self.bucket, _NOBODY, digest, await holding(self.bucket, digest))
        if copy is None or copy.size != size:
            return None
        self._kept[digest] = found = Kept(digest, size, older=copy)
        return found

    async def keep(self, chunks: AsyncIterator[bytes], size: int, expected: Digest | None, called: str) -> Kept:
        """Takes `size` bytes and hashes them. Raises ArchiveRefused where they are not `expected`, Unavailable.

        `called` is what they are called in the archive.
        """
        held = await self.held(expected, size) if expected else None
        algorithm = algorithm_of(expected) if expected else DEFAULT_ALGORITHM
        if held is not None or self.dry:
            running = StreamHash(algorithm)
            async for chunk in chunks:
                await running.update(chunk)
            kept = held or Kept(await running.digest(), running.size)
            digest, taken = await running.digest(), running.size
        else:
            uploads = Uploads(self.bucket, _NOBODY)
            session = await uploads.append(uploads.begin(algorithm), chunks, None)
            assert session.digest is not None  # noqa: S101  (a whole body was taken)
            kept = Kept(session.digest, session.offset, session)
            digest, taken = session.digest, session.offset
        if taken != size or (expected is not None and digest != expected):
            if held is None:  # what was held has the bytes that were expected: it is these that are wrong
                await self._drop(kept)
            raise ArchiveRefused(f"{shown(called)} has other bytes than its name or its descriptor says")
        return await self._once(kept)

    async def read(self, kept: Kept) -> bytes:
        """The bytes of something small. Raises Unavailable."""
        copy = kept.copy or await self._found(kept)
        return await _whole(self.bucket, copy)

    @translated
    async def link(self, name: Name, kept: Kept) -> None:
        """Makes a repository hold the bytes. Raises Unavailable where they were collected meanwhile."""
        if name in kept.homes:
            return
        if kept.session is not None and not kept.homes:
            if time.time() - kept.session.started > self.bucket.lifetimes.upload:
                raise Unavailable("the import took too long: begin it again")
            kept.tried = True
            try:
                await Uploads(self.bucket, name).finish(kept.session, kept.digest, _nothing(), None)
            except BlobUploadUnknown as exc:
                raise Unavailable("what the registry held is gone: begin the import again") from exc
        elif not await self.mount(name, kept.digest, lambda _: True):
            raise Unavailable("what the registry held is gone: begin the import again")
        kept.homes.append(name)

    async def mount(self, name: Name, digest: Digest, may_pull: Callable[[Name], bool]) -> bool:
        """Makes a repository hold what another one holds, if there is such a one that may be looked into."""
        return await Blobs(self.bucket, name).mount(digest, None, may_pull) is not None

    async def close(self) -> None:
        """Removes what no repository was made to hold. What cannot be removed now is the collector's."""
        await side_by_side(self._drop, list(self._kept.values()))
        self._kept.clear()

    async def _once(self, kept: Kept) -> Kept:
        """The first that was kept of the same bytes."""
        first = self._kept.setdefault(kept.digest, kept)
        if first is not kept:
            await self._drop(kept)
        return first

    async def _drop(self, kept: Kept) -> None:
        """Removes bytes that no other process can know. Those that were linked, or may have been, are not ours alone."""
        if kept.tried or kept.session is None or kept.session.copy is None:
            return
        try:
            await _delete(self.bucket, keys.data(kept.session.copy.uuid))
        except RegistryError:
            return

    async def _found(self, kept: Kept) -> Copy:
        copy = await usable(self.bucket, _NOBODY, kept.digest, await holding(self.bucket, kept.digest))
        if copy is None:
            raise Unavailable("what the registry held is gone: begin the import again")
        return copy


@translated
async def _delete(bucket: Bucket, key: str) -> None:
    await bucket.driver.delete(key)


@translated
async def _whole(bucket: Bucket, copy: Copy) -> bytes:
    async with bucket.driver.open(keys.data(copy.uuid)) as reader:
        return b"".join([chunk async for chunk in reader])


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
