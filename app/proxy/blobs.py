"""Blobs of a cached repository: what is not here yet is fetched, and read while it comes."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, Unavailable
from app.oci.names import Name
from app.proxy.errors import Missing, UpstreamError
from app.proxy.failures import meaning
from app.proxy.spool import Origin
from app.proxy.transfers import Transfers
from app.proxy.upstreams import Upstream
from app.registry.blobs import Blob, Blobs
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.keys import Copy
from app.registry.publishing import adopt, holding
from storage import Reader


@dataclass(frozen=True, slots=True)
class Awaited(Blob):
    """A blob that the upstream has and we do not, yet."""


class ProxiedBlobs(Blobs):
    """The blobs of one cached repository."""

    def __init__(self, bucket: Bucket, name: Name, upstream: Upstream, transfers: Transfers) -> None:
        super().__init__(bucket, name)
        self._upstream = upstream
        self._transfers = transfers

    async def stat(self, digest: Digest) -> Blob:
        """Existence and size; the upstream is asked for what is not here. Raises BlobUnknown, Denied, Unavailable."""
        try:
            return await super().stat(digest)
        except BlobUnknown:
            self._upstream.metrics.asked(self._upstream.name, "blob", hit=False)
        if self._upstream.named.get((self._name, digest)) is not None:
            shared = await self._shared(digest)
            if shared is not None:
                return shared
        size = await self._ask(digest)
        if size is None:
            raise Unavailable(f"{self._upstream.name} does not tell the size of the blob")
        return Awaited(digest, Copy("", size))

    async def sought(self, digest: Digest) -> Blob:
        """As `stat`, for a reader: a blob that a manifest of this repository names is not asked for twice."""
        try:
            blob = await super().stat(digest)
        except BlobUnknown:
            self._upstream.metrics.asked(self._upstream.name, "blob", hit=False)
        else:
            self._upstream.metrics.asked(self._upstream.name, "blob", hit=True)
            return blob
        size = self._upstream.named.get((self._name, digest))
        if size is None:
            size = await self._ask(digest)
        shared = await self._shared(digest)
        if shared is not None:
            return shared
        return Awaited(digest, Copy("", size)) if size is not None else await self._brought(digest)

    async def presign(self, blob: Blob) -> str | None:
        """None for what is not here yet."""
        return None if isinstance(blob, Awaited) else await super().presign(blob)

    @asynccontextmanager
    async def open(self, blob: Blob, start: int = 0, end: int | None = None) -> AsyncIterator[Reader]:
        """The bytes, from the store or while they come. Entering raises BlobUnknown, Denied, Unavailable."""
        self._upstream.metrics.pushed(self._upstream.name, "blob", (blob.size if end is None else end) - start)
        if not isinstance(blob, Awaited):
            async with super().open(blob, start, end) as reader:
                yield reader
            return
        try:
            following = await self._transfers.follow(self._upstream, self.origin(blob), start, end)
        except UpstreamError as exc:
            self._forget(exc, blob.digest)
            raise meaning(exc, BlobUnknown(detail={"digest": blob.digest})) from exc
        async with aclosing(following):
            if following.size != blob.size:
                raise Unavailable(f"{self._upstream.name} gives this blob another size than the manifest does")
            yield following

    def origin(self, blob: Blob) -> Origin:
        """What a transfer of this blob is."""
        return Origin(blob.digest, blob.size, self._upstream.name, self._name)

    @translated
    async def _shared(self, digest: Digest) -> Blob | None:
        """Links a copy that another repository holds, once it is known that this one may have it."""
        copy = await adopt(self._bucket, self._name, digest, await holding(self._bucket, digest))
        return None if copy is None else Blob(digest, copy)

    async def _brought(self, digest: Digest) -> Blob:
        """A blob whose size the upstream does not tell: an answer can begin only once it is here."""
        try:
            await self._transfers.bring(
                self._upstream, Origin(digest, None, self._upstream.name, self._name), urgent=True
            )
        except UpstreamError as exc:
            self._forget(exc, digest)
            raise meaning(exc, BlobUnknown(detail={"digest": digest})) from exc
        return await super().stat(digest)

    async def _ask(self, digest: Digest) -> int | None:
        """The blob's size, by HEAD; None where that says nothing of it. Raises BlobUnknown, Denied, Unavailable."""
        unknown = BlobUnknown(detail={"digest": digest})
        if self._upstream.misses.knows((self._name, digest)):
            raise unknown
        try:
            return await self._upstream.ask(self._name, lambda source, name: _size(source, name, digest))
        except UpstreamError as exc:
            self._forget(exc, digest)
            raise meaning(exc, unknown) from exc

    def _forget(self, failure: UpstreamError, digest: Digest) -> None:
        if isinstance(failure, Missing):
            self._upstream.misses.note((self._name, digest))


async def _size(source: Upstream, name: str, digest: Digest) -> int | None:
    reply = await source.client.head(name, f"blobs/{digest}")
    text = reply.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None
