"""Overlay: a plain name behind which both a local repository and an upstream's may stand. Local content comes first."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NameUnknown, RegistryError
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.repository import ProxiedRepository
from app.proxy.sealed import SealedRepository
from app.registry.blobs import Blob, Blobs
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Entry
from app.registry.manifests import Manifests, Published, parsed
from app.registry.referrers import Referrers, ReferrersOf
from app.registry.registry import Repository
from app.registry.tags import Tags
from storage import Reader

Behind = ProxiedRepository | SealedRepository
"""What stands behind a plain name."""


class OverlaidRepository(Repository):
    """A local repository, and the upstream's that answers for what is not in it. Everything but pulls is the local one's."""

    def __init__(self, bucket: Bucket, name: Name, behind: Behind, *, writable: bool) -> None:
        super().__init__(bucket, name)
        self._behind = behind
        self._writable = writable
        self.notes = behind.notes

    @cached_property
    def blobs(self) -> Blobs:
        return OverlaidBlobs(self._bucket, self.name, self._behind.blobs, writable=self._writable)

    @cached_property
    def manifests(self) -> Manifests:
        return OverlaidManifests(self._bucket, self.name, self._behind)

    @cached_property
    def tags(self) -> Tags:
        return OverlaidTags(self._bucket, self.name, self._behind.tags)

    @cached_property
    def referrers(self) -> ReferrersOf:
        return OverlaidReferrers(self._bucket, self.name, self._behind)


class OverlaidBlobs(Blobs):
    """Serves one request: `open` and `presign` go where that request's `sought` or `stat` found the blob."""

    def __init__(self, bucket: Bucket, name: Name, behind: Blobs, *, writable: bool) -> None:
        super().__init__(bucket, name)
        self._behind = behind
        self._writable = writable
        self._found_behind = False

    async def stat(self, digest: Digest) -> Blob:
        """Where pushes go to this name, only what is here counts: a client would skip the upload of all else."""
        try:
            return await super().stat(digest)
        except BlobUnknown:
            if self._writable:
                raise
        self._found_behind = True
        return await self._behind.stat(digest)

    async def sought(self, digest: Digest) -> Blob:
        try:
            return await super().stat(digest)
        except BlobUnknown:
            self._found_behind = True
            return await self._behind.sought(digest)

    async def presign(self, blob: Blob) -> str | None:
        return await (self._behind.presign(blob) if self._found_behind else super().presign(blob))

    @asynccontextmanager
    async def open(self, blob: Blob, start: int = 0, end: int | None = None) -> AsyncIterator[Reader]:
        where = self._behind.open if self._found_behind else super().open
        async with where(blob, start, end) as reader:
            yield reader


class OverlaidManifests(Manifests):
    """Local manifests first."""

    def __init__(self, bucket: Bucket, name: Name, behind: Behind) -> None:
        super().__init__(bucket, name)
        self._source = behind
        self._behind = behind.manifests
        self._blobs = Blobs(bucket, name)

    async def stat(self, digest: Digest) -> Entry:
        try:
            return await super().stat(digest)
        except ManifestUnknown:
            return await self._behind.stat(digest)

    async def stat_tag(self, tag: Tag) -> Entry:
        try:
            return await super().stat_tag(tag)
        except ManifestUnknown:
            return await self._behind.stat_tag(tag)

    async def get(self, digest: Digest) -> tuple[Entry, bytes]:
        try:
            return await super().get(digest)
        except ManifestUnknown:
            return await self._behind.get(digest)

    async def get_tag(self, tag: Tag) -> tuple[Entry, bytes]:
        try:
            return await super().get_tag(tag)
        except ManifestUnknown:
            return await self._behind.get_tag(tag)

    async def put(
        self,
        data: bytes,
        content_type: str | None,
        *,
        digest: Digest | None,
        tagged: Sequence[Tag],
        by: str | None,
        sparse: bool = False,
    ) -> Published:
        """As the registry's. What is missing here is taken over from upstream, where that has it: go-containerregistry and
        containerd ask before they push the images of an index, and were told that they are there.
        """
        try:
            return await super().put(data, content_type, digest=digest, tagged=tagged, by=by, sparse=sparse)
        except ManifestBlobUnknown:
            manifest = await parsed(data, content_type)
            await side_by_side(self._take_blob, dict.fromkeys(blob.digest for blob in manifest.blobs))
            for child in manifest.children:
                await self._take_child(child.digest, by)
        return await super().put(data, content_type, digest=digest, tagged=tagged, by=by, sparse=sparse)

    async def _take_child(self, digest: Digest, by: str | None) -> None:
        """What cannot be had is named by the publication that needs it."""
        try:
            await super().stat(digest)
        except ManifestUnknown:
            with suppress(RegistryError):
                entry, data = await self._behind.get(digest)
                await self.put(data, entry.media_type, digest=digest, tagged=(), by=by)

    async def _take_blob(self, digest: Digest) -> None:
        try:
            await self._blobs.stat(digest)
        except BlobUnknown:
            with suppress(RegistryError):
                await self._source.hold(digest)
                await self._blobs.mount(digest, self._source.name, lambda _: True)


class OverlaidTags(Tags):
    """The local list where there is one."""

    def __init__(self, bucket: Bucket, name: Name, behind: Tags) -> None:
        super().__init__(bucket, name)
        self._behind = behind

    async def list(self, limit: int, last: Tag | None) -> tuple[Sequence[Tag], bool]:
        try:
            return await super().list(limit, last)
        except NameUnknown:
            return await self._behind.list(limit, last)


class OverlaidReferrers(ReferrersOf):
    """Local ones where there are any, or where the subject itself is local."""

    def __init__(self, bucket: Bucket, name: Name, behind: Behind) -> None:
        super().__init__(bucket, name)
        self._behind = behind

    async def list(self, subject: Digest, artifact_type: str | None, last: Digest | None) -> Referrers:
        local = await super().list(subject, artifact_type, last)
        if local.descriptors or last is not None or await self._is_local(subject):
            return local
        return await self._behind.referrers.list(subject, artifact_type, last)

    async def _is_local(self, subject: Digest) -> bool:
        try:
            await Manifests(self._bucket, self._name).stat(subject)
        except ManifestUnknown:
            return False
        return True
