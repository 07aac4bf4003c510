"""Blobs of one repository: existence, bytes, mounting, deletion."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, StillNeeded
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.deletion import delete_links
from app.registry.failures import translated
from app.registry.keys import Copy
from app.registry.publishing import adopt, first_linked, holding, linked, unbind
from storage import NotFound, Reader


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a repository holds; `size` in bytes."""

    digest: Digest
    copy: Copy

    @property
    def size(self) -> int:
        return self.copy.size


class Blobs:
    """The blobs of one repository."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self._name = name

    @translated
    async def stat(self, digest: Digest) -> Blob:
        """Existence and size, for one store request. Raises BlobUnknown."""
        copy = await first_linked(self._bucket, self._name, digest)
        if copy is None:
            raise BlobUnknown(detail={"digest": digest})
        return Blob(digest, copy)

    async def sought(self, digest: Digest) -> Blob:
        """As `stat`, for somebody who is going to `open` it."""
        return await self.stat(digest)

    @asynccontextmanager
    async def open(self, blob: Blob, start: int = 0, end: int | None = None) -> AsyncIterator[Reader]:
        """The bytes from `start` up to `end`, from whichever copy is whole.

        Entering raises BlobUnknown when every copy's bytes are gone: the dead links go too, so that clients push again.
        Storage errors pass through while the bytes are read: the answer has begun, and its connection is cut.
        """
        copies = [blob.copy]
        while copies:
            copy = copies.pop(0)
            try:
                async with self._bucket.driver.open(keys.data(copy.uuid), start, end) as reader:
                    if reader.size != copy.size:
                        raise NotFound("the copy has another size than its link says")
                    yield reader
                    return
            except NotFound:
                found = await linked(self._bucket, self._name, blob.digest)
                if copy == blob.copy:
                    copies = [other for other in found if other != copy]
                if copy in found:  # else it was collected since it was found: nothing is lost
                    await self._bury(blob.digest, copy)
        raise BlobUnknown(detail={"digest": blob.digest})

    @translated
    async def presign(self, blob: Blob) -> str | None:
        """A URL of the store for these bytes, where the store has such a thing."""
        lifetime = self._bucket.redirect_lifetime
        return await self._bucket.driver.presign(keys.data(blob.copy.uuid), lifetime=lifetime) if lifetime else None

    @translated
    async def mount(self, digest: Digest, source: Name | None, may_pull: Callable[[Name], bool]) -> Blob | None:
        """Holds here what `source` holds, or any repository that the caller may pull; None where there is nothing.

        Specification, end-11. Reveals nothing of repositories that `may_pull` denies.
        """
        sources: Sequence[Name] = [source] if source else await holding(self._bucket, digest)
        copy = await adopt(self._bucket, self._name, digest, [other for other in sources if may_pull(other)])
        return None if copy is None else Blob(digest, copy)

    @translated
    async def delete(self, digest: Digest) -> None:
        """Takes the blob out of this repository (specification, end-10).

        Raises BlobUnknown, or StillNeeded while a manifest here or a running publication names it.
        """
        copies = await linked(self._bucket, self._name, digest)
        if not copies:
            raise BlobUnknown(detail={"digest": digest})
        if not await delete_links(self._bucket, self._name, digest, copies):
            raise StillNeeded(detail={"digest": digest})

    async def _bury(self, digest: Digest, copy: Copy) -> None:
        fields = {"repository": self._name, "digest": digest, "copy": copy.name}
        self._bucket.alarm("bytes of a blob are gone", fields)
        await unbind(self._bucket, self._name, digest, copy)
