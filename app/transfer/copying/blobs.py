"""One blob on its way from another registry into a repository here: shared where it is here already, else fetched once."""

import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol

from app.oci.descriptors import Descriptor
from app.oci.digests import algorithm_of
from app.oci.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    RangeInvalid,
    RegistryError,
    SizeInvalid,
    Unavailable,
)
from app.oci.names import Name
from app.proxy.flights import Flights
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.publishing import holding, usable
from app.registry.registry import Repository
from app.registry.sessions import Session
from app.transfer.copying.source import Source
from storage import NotFound

PIECE: Final = 16 << 20
"""Bytes after which a large blob's state is kept in the store: no more than that comes again after a kill."""
_ROUNDS: Final = 3
_SKEW: Final = 3600.0
"""Seconds before the end of an upload's life in which it is rather begun anew."""


class Watch(Protocol):
    """Somebody who sees bytes come."""

    def wants(self, size: int) -> None:
        """A blob of so many bytes begins to come."""
        ...

    def came(self, size: int) -> None:
        """So many bytes of it came."""
        ...


class CopiedBlobs:
    """The blobs of a run. The same one is never fetched twice at a time, into whatever repositories it goes."""

    def __init__(self, bucket: Bucket, piece: int = PIECE) -> None:
        self._bucket = bucket
        self._piece = piece
        self._flights: Flights[str, None] = Flights()

    async def close(self) -> None:
        """Ends what runs."""
        await self._flights.close()

    @translated
    async def has(self, target: Name, blob: Descriptor) -> bool:
        """Whether nothing would be fetched for it. Writes nothing. Raises Unavailable."""
        if await self._is_here(Repository(self._bucket, target), blob):
            return True
        return await usable(self._bucket, target, blob.digest, await holding(self._bucket, blob.digest)) is not None

    async def bring(self, source: Source, repository: Name, here: Repository, blob: Descriptor, watch: Watch) -> bool:
        """Makes `here` hold the blob that `repository` of `source` has; says whether it had to be fetched for that.

        Raises UpstreamError, DigestInvalid, SizeInvalid, Unavailable.
        """
        mine = False

        async def fetch() -> None:
            nonlocal mine
            mine = True
            watch.wants(blob.size)
            await self._fetch(source, repository, here, blob, watch.came)

        for _ in range(_ROUNDS):  # another one where somebody else's flight brought it into another repository
            if await self._is_here(here, blob) or await self._is_shared(here, blob):
                return False
            await self._flights.join(blob.digest, fetch)
            if mine:
                return True
        raise Unavailable(f"the blob {blob.digest} goes away while it comes")

    async def _is_here(self, here: Repository, blob: Descriptor) -> bool:
        try:
            found = await here.blobs.stat(blob.digest)
        except BlobUnknown:
            return False
        if found.size != blob.size:
            raise SizeInvalid(f"a manifest says that {blob.digest} has {blob.size} bytes, and it has {found.size}")
        return True

    async def _is_shared(self, here: Repository, blob: Descriptor) -> bool:
        """Whether another repository holds it, so that this one does now."""
        return await here.blobs.mount(blob.digest, None, lambda _: True) is not None

    async def _fetch(
        self, source: Source, repository: Name, here: Repository, blob: Descriptor, came: Callable[[int], None]
    ) -> None:
        if blob.size > self._piece:
            session = _session(here.name, blob)
            try:
                await self._in_pieces(source, repository, here, blob, came, session)
            except RangeInvalid:  # another process brings it too: each for itself, then
                pass
            except BlobUploadUnknown:  # the store forgot what it had
                await here.uploads.cancel(session)
            else:
                return
        async with aclosing(_counted(source.blob(repository, blob), came)) as body:
            await here.uploads.put(blob.digest, body)

    async def _in_pieces(
        self,
        source: Source,
        repository: Name,
        here: Repository,
        blob: Descriptor,
        came: Callable[[int], None],
        session: Session,
    ) -> None:
        """Continues what an earlier run left. Bytes that it left and that turn out wrong are fetched again, once."""
        start = await self._left(here, blob, session)
        if start is None:
            await here.uploads.cancel(session)
            session = replace(session, chunked=False)
        at = start or 0
        try:
            async with aclosing(_counted(source.blob(repository, blob, at), came)) as chunks:
                rest = _Rest(chunks)
                while at < blob.size:
                    size = min(self._piece, blob.size - at)
                    session = await here.uploads.append(session, rest.take(size), at)
                    at = session.offset
            await here.uploads.finish(session, blob.digest, rest.take(0), None)
        except DigestInvalid:
            if not start:
                raise
            raise BlobUploadUnknown("what an earlier run left was wrong") from None
        await here.uploads.cancel(session)  # what is remembered of it is of no use any more

    @translated
    async def _left(self, here: Repository, blob: Descriptor, session: Session) -> int | None:
        """Bytes that an earlier run left and that may still be continued; None where nothing was, or too long ago."""
        try:
            state = await self._bucket.driver.stat(keys.upload_state(session.id))
            offset = (await here.uploads.status(session)).offset
        except (NotFound, RegistryError):
            return None
        too_old = time.time() - state.modified > self._bucket.lifetimes.upload - _SKEW
        return None if too_old or offset > blob.size else offset


class _Rest:
    """A stream of bytes that is taken in portions of exact sizes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    async def take(self, size: int) -> AsyncIterator[bytes]:
        """The next `size` bytes, or what there is up to the end."""
        while size > 0:
            chunk, self._held = self._held or await anext(self._chunks, b""), b""
            if not chunk:
                return
            chunk, self._held = chunk[:size], chunk[size:]
            size -= len(chunk)
            yield chunk


def _session(target: Name, blob: Descriptor) -> Session:
    """The upload of this blob into this repository: the same one in every run, so that each continues the last."""
    name = hashlib.sha256(f"copy\n{target}\n{blob.digest}".encode()).hexdigest()[:32]
    return Session(name, int(time.time()), algorithm_of(blob.digest), chunked=True)


async def _counted(chunks: AsyncGenerator[bytes, None], came: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks) as open_chunks:
        async for chunk in open_chunks:
            came(len(chunk))
            yield chunk
