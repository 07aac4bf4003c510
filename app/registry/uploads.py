"""Uploads into one repository: any request of any upload may reach any replica."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest, algorithm_of
from app.oci.errors import BlobUploadUnknown, DigestInvalid, RangeInvalid
from app.oci.names import Name
from app.registry import keys, sessions
from app.registry.blobs import Blob
from app.registry.bucket import Bucket
from app.registry.chunked import Chunked, pump
from app.registry.failures import translated
from app.registry.hashing import StreamHash, digest_of_stream
from app.registry.keys import Copy
from app.registry.publishing import adopt, bind, holding, usable
from app.registry.sessions import Session
from storage import Fence, NotFound

Body = AsyncIterator[bytes]

SHARED_FROM: Final = 128 << 10
"""Bytes from which an upload looks for an older copy to share. Below, the look costs the store more than the copy: MinIO
keeps so few bytes inside the object's own record, beside which the two keys of a link are no smaller."""


class Uploads:
    """The uploads of one repository. Owners are user names: an upload is its owner's alone."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self._name = name

    def begin(self, algorithm: str) -> Session:
        """A new upload; nothing is written."""
        return sessions.begin(algorithm)

    def seal(self, session: Session, owner: str | None) -> str:
        """The signed state for a Location."""
        return sessions.seal(self._bucket, session, self._name, owner)

    @translated
    async def unseal(self, upload_id: str, token: str, owner: str | None) -> Session:
        """The session of a Location. Raises BlobUploadUnknown."""
        session = await sessions.unseal(self._bucket, upload_id, token, self._name, owner)
        if self._bucket.cancelled.get(upload_id):
            raise BlobUploadUnknown("the upload was cancelled")
        return session

    @translated
    async def status(self, session: Session) -> Session:
        """The session as it stands now: `offset` is what was acknowledged. Raises BlobUploadUnknown."""
        return await Chunked(self._bucket, session).status()

    @translated
    async def append(self, session: Session, body: Body, at: int | None) -> Session:
        """Takes a PATCH: a stream (`at` is None), or the chunk that begins at byte `at` (else RangeInvalid)."""
        self._refuse_gap(session, at)
        if at is not None or session.chunked or session.digest is not None:
            return await Chunked(self._bucket, session).append(await self._already(session), body, at)
        got = await self._receive(body, session.algorithm, keys.upload(session.id), self._older)
        return session.whole(got.digest, None if got.older else got.copy.uuid, got.copy.size)

    @translated
    async def finish(self, session: Session, digest: Digest, body: Body, at: int | None) -> Blob:
        """Takes a PUT: the last bytes, if any, and the digest of all. Repeating it is safe.

        Raises DigestInvalid, RangeInvalid, BlobUploadUnknown.
        """
        self._refuse_gap(session, at)
        if session.chunked:
            return await self._finish_chunked(session, digest, body, at)
        if session.digest is None:
            return await self.put(digest, body, keys.upload(session.id))
        async for chunk in body:
            rest = _rejoined(chunk, body)
            session = await Chunked(self._bucket, session).append(await self._already(session), rest, at)
            return await self._finish_chunked(session, digest, _nothing(), None)
        return await self._bind_whole(session, digest)

    @translated
    async def put(self, digest: Digest, body: Body, scratch: str | None = None) -> Blob:
        """A blob in one request. Raises DigestInvalid; then nothing of it is kept."""

        async def adopted(actual: Digest, size: int) -> Copy | None:
            if actual != digest:
                raise DigestInvalid(detail={"digest": digest})
            if size < SHARED_FROM:
                return None
            return await adopt(self._bucket, self._name, digest, await holding(self._bucket, digest))

        got = await self._receive(body, algorithm_of(digest), scratch or keys.upload(keys.fresh()), adopted)
        if not got.older:
            await bind(self._bucket, self._name, digest, got.copy, got.fence)
        return Blob(digest, got.copy)

    @translated
    async def cancel(self, session: Session) -> None:
        """Ends an upload. Bytes that already became an unlinked object are collected later, by their age."""
        self._bucket.cancelled.put(session.id, True)
        if session.chunked:
            await self._bucket.driver.discard(keys.upload(session.id))

    async def _receive(
        self, body: Body, algorithm: str, scratch: str, older: Callable[[Digest, int], Awaitable[Copy | None]]
    ) -> "_Received":
        """Streams a body into a new object, unless `older` names a copy of the same bytes: then nothing is kept."""
        uuid = keys.fresh()
        writer = self._bucket.driver.create(keys.data(uuid), scratch)
        running = StreamHash(algorithm)
        try:
            await pump(body, writer, running)
            digest = await running.digest()
            copy = await older(digest, writer.size)
            if copy is not None:
                await writer.abort()
                return _Received(digest, copy, self._bucket.driver.fence(), older=True)
            fence = self._bucket.driver.fence()  # before the bytes are there: how old they are says what can bind them
            await writer.commit()
        except BaseException:
            await asyncio.shield(writer.abort())
            raise
        return _Received(digest, Copy(uuid, writer.size), fence, older=False)

    async def _older(self, digest: Digest, size: int) -> Copy | None:
        """A copy that `finish` will be able to link."""
        if size < SHARED_FROM:
            return None
        return await usable(self._bucket, self._name, digest, await holding(self._bucket, digest))

    async def _publish(self, session: Session, digest: Digest, copy: Copy | None) -> Blob:
        """Links the copy that was received; without one, an older copy of the registry's, as a publisher."""
        if copy is not None:
            fence = self._bucket.driver.fence()
            sessions.demand_young(self._bucket, session)  # after the fence: bytes of an old upload may be collected
            await bind(self._bucket, self._name, digest, copy, fence)
            return Blob(digest, copy)
        copy = await adopt(self._bucket, self._name, digest, await holding(self._bucket, digest))
        if copy is None:
            raise BlobUploadUnknown("send the blob again")
        return Blob(digest, copy)

    async def _bind_whole(self, session: Session, digest: Digest) -> Blob:
        if session.digest is None:
            raise BlobUploadUnknown()
        if algorithm_of(digest) == session.algorithm:
            if digest != session.digest:
                raise DigestInvalid(detail={"digest": digest})
            return await self._publish(session, digest, session.copy)
        copy = session.copy or (await self._publish(session, session.digest, None)).copy
        await self._verify(copy, digest)
        return await self._bind_again(session, digest, copy)

    async def _bind_again(self, session: Session, digest: Digest, copy: Copy) -> Blob:
        """Links the bytes under a digest of another algorithm, and so under another name: a copy has one digest, by which a
        collector finds all its links."""
        fence = self._bucket.driver.fence()
        sessions.demand_young(self._bucket, session)
        new = Copy(keys.fresh(), copy.size)
        try:
            await self._bucket.driver.copy(keys.data(copy.uuid), keys.data(new.uuid))
        except NotFound as exc:
            raise BlobUploadUnknown("send the blob again") from exc
        await bind(self._bucket, self._name, digest, new, fence)
        return Blob(digest, new)

    async def _verify(self, copy: Copy, digest: Digest) -> None:
        """Reads a finished object back: its hash is not known here."""
        async with self._bucket.driver.open(keys.data(copy.uuid)) as reader:
            actual = await digest_of_stream(reader, algorithm_of(digest))
        if actual != digest:
            raise DigestInvalid(detail={"digest": digest})

    async def _verify_or_drop(self, chunked: Chunked, copy: Copy, digest: Digest) -> None:
        try:
            await self._verify(copy, digest)
        except DigestInvalid:
            await chunked.drop()
            raise

    @staticmethod
    def _refuse_gap(session: Session, at: int | None) -> None:
        if at is not None and not session.chunked and at != session.offset:
            raise RangeInvalid(detail={"offset": session.offset})

    async def _already(self, session: Session) -> Copy | None:
        """The object that an earlier streamed PATCH of this upload became, if there was one."""
        if session.digest is None or session.copy is not None:
            return session.copy
        return (await self._publish(session, session.digest, None)).copy

    async def _finish_chunked(self, session: Session, digest: Digest, body: Body, at: int | None) -> Blob:
        chunked = Chunked(self._bucket, session)
        done = await chunked.finished(digest)
        if done is None:
            done, known = await chunked.commit(digest, body, at)
            if not known:
                await self._verify_or_drop(chunked, done, digest)
            await chunked.note_finished(digest, done)
        return await self._publish(session, digest, done)


@dataclass(frozen=True, slots=True)
class _Received:
    """The bytes of one body: in a new copy, or the same bytes in an older one."""

    digest: Digest
    copy: Copy
    fence: Fence
    older: bool


async def _rejoined(chunk: bytes, rest: Body) -> Body:
    yield chunk
    async for more in rest:
        yield more


async def _nothing() -> Body:
    return
    yield b""
