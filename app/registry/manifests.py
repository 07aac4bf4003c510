"""Manifests of one repository: publishing, reading, deleting."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.oci.digests import DEFAULT_ALGORITHM, Digest, algorithm_of, digest_of
from app.oci.errors import DigestInvalid, ManifestBlobUnknown, ManifestInvalid, ManifestUnknown
from app.oci.manifests import Manifest, parse_manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys, referrers, tags
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Copy, Entry
from app.registry.off_loop import off_loop
from app.registry.publishing import bind, first_linked, intent, linked, tombstoned, unbind
from app.registry.stored import fetch_manifest, first_entry, read_manifest
from storage import Fence, NotFound, StorageError


@dataclass(frozen=True, slots=True)
class Published:
    """What a push made visible."""

    digest: Digest
    subject: Digest | None


class Manifests:
    """The manifests of one repository."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self._name = name

    @translated
    async def stat(self, digest: Digest) -> Entry:
        """Existence, media type and size, for one store request. Raises ManifestUnknown."""
        entry = await first_entry(self._bucket, self._name, digest)
        if entry is None:
            raise ManifestUnknown(detail={"digest": digest})
        return entry

    @translated
    async def stat_tag(self, tag: Tag) -> Entry:
        """The manifest that a tag names, if that still exists. Raises ManifestUnknown."""
        entry = await tags.read(self._bucket, self._name, tag)
        if entry is not None:
            try:
                await self._bucket.driver.stat(keys.manifest(self._name, entry))
            except NotFound:
                entry = None
        if entry is None:
            raise ManifestUnknown(detail={"tag": tag})
        return entry

    @translated
    async def get(self, digest: Digest) -> tuple[Entry, bytes]:
        """The exact bytes. Existence comes from the store, the bytes from memory once read. Raises ManifestUnknown."""
        entry = await self.stat(digest)
        try:
            return entry, await read_manifest(self._bucket, self._name, entry)
        except NotFound as exc:
            raise ManifestUnknown(detail={"digest": digest}) from exc

    @translated
    async def get_tag(self, tag: Tag) -> tuple[Entry, bytes]:
        """As `get`, by tag: two store requests, one of which proves that the manifest exists."""
        entry = await tags.read(self._bucket, self._name, tag)
        if entry is None:
            raise ManifestUnknown(detail={"tag": tag})
        try:
            known = self._bucket.manifests.get(entry.digest)
            if known is None:
                return entry, await fetch_manifest(self._bucket, self._name, entry)
            await self._bucket.driver.stat(keys.manifest(self._name, entry))
        except NotFound as exc:
            raise ManifestUnknown(detail={"tag": tag}) from exc
        return entry, known

    @translated
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
        """Publishes a manifest whole and durably, then the tags (specification, end-7).

        `sparse` accepts one whose blobs and children are not here (yet).

        Raises ManifestInvalid, DigestInvalid, ManifestBlobUnknown naming each missing blob or child, Denied for a tag that
        must not move.
        """
        algorithm = algorithm_of(digest) if digest else DEFAULT_ALGORITHM
        manifest, actual = await off_loop(
            len(data), lambda: (parse_manifest(data, content_type), digest_of(data, algorithm))
        )
        if digest is not None and digest != actual:
            raise DigestInvalid(detail={"digest": digest})
        entry = Entry(actual, keys.fresh(), manifest.media_type, len(data))
        wanted = dict.fromkeys(tagged)
        await side_by_side(lambda tag: tags.demand_free(self._bucket, self._name, tag, entry), wanted)
        entry = await self._publish(manifest, entry, data, sparse=sparse or self._bucket.settings.allow_sparse)
        self._bucket.manifests.put(actual, data)
        self._bucket.entries.put((self._name, actual), entry)
        await side_by_side(lambda tag: tags.write(self._bucket, self._name, tag, entry, by), wanted)
        return Published(actual, manifest.subject.digest if manifest.subject else None)

    @translated
    async def delete(self, digest: Digest) -> None:
        """Deletes the manifest; tags that name it are dead from then on. Raises ManifestUnknown."""
        page = await self._bucket.driver.list(keys.manifests(self._name, digest))
        if not page.entries:
            raise ManifestUnknown(detail={"digest": digest})
        subject = await self._subject_of(keys.entry_of(page.entries[0].key, page.entries[0].size))
        await tags.note_deletion(self._bucket, self._name)
        for found in page.entries:
            await self._bucket.driver.delete(found.key)
            if subject is not None:
                nonce = keys.entry_of(found.key, found.size).nonce
                await self._bucket.driver.delete(keys.referrer(self._name, subject, digest, nonce))

    async def _publish(self, manifest: Manifest, entry: Entry, data: bytes, *, sparse: bool) -> Entry:
        """Makes the manifest visible unless it is already; returns the entry that is. (Model: publisher.)"""
        bucket, name = self._bucket, self._name
        fence = bucket.driver.fence()
        blobs = dict.fromkeys(blob.digest for blob in manifest.blobs)
        resolved, existing, childless = await asyncio.gather(
            side_by_side(lambda digest: first_linked(bucket, name, digest), blobs),
            first_entry(bucket, name, entry.digest),
            _nothing() if sparse else self._missing_children(manifest),
        )
        copies = dict(zip(blobs, resolved, strict=True))
        missing = [*[digest for digest, copy in copies.items() if copy is None], *childless]
        if missing and not sparse:
            raise ManifestBlobUnknown(missing)
        if existing is not None and existing.media_type == entry.media_type:
            return existing
        needed = {digest: copy for digest, copy in copies.items() if copy is not None}
        async with AsyncExitStack() as intents:
            await intents.enter_async_context(intent(bucket, needed.values()))
            dead = await tombstoned(bucket, list(needed.values()), [name])
            for digest in [digest for digest, copy in needed.items() if copy in dead]:
                await self._replace(digest, fence, intents)
            await self._catalogue()
            if manifest.subject is not None:
                await referrers.write(bucket, name, manifest, entry)
            await bucket.driver.put(keys.manifest(name, entry), data, fence=fence)
        return entry

    async def _missing_children(self, manifest: Manifest) -> list[Digest]:
        """A child is a manifest of this repository; BuildKit's caches list blobs as children, so those do too."""
        bucket, name = self._bucket, self._name

        async def present(digest: Digest) -> bool:
            if await first_entry(bucket, name, digest) is not None:
                return True
            return await first_linked(bucket, name, digest) is not None

        children = list(dict.fromkeys(child.digest for child in manifest.children))
        there = await side_by_side(present, children)
        return [digest for digest, ok in zip(children, there, strict=True) if not ok]

    async def _replace(self, digest: Digest, fence: Fence, intents: AsyncExitStack) -> None:
        """The first copy found is being deleted: use another, or copy the bytes to a name of their own."""
        bucket, name = self._bucket, self._name
        copies = await linked(bucket, name, digest)
        await intents.enter_async_context(intent(bucket, copies))
        dead = await tombstoned(bucket, copies, [name])
        if any(copy not in dead for copy in copies):
            return
        for copy in copies:
            if await self._copied(digest, copy, fence):
                return
        raise ManifestBlobUnknown([digest])

    async def _copied(self, digest: Digest, copy: Copy, fence: Fence) -> bool:
        bucket = self._bucket
        new = Copy(keys.fresh(), copy.size)
        try:
            await bucket.driver.copy(keys.data(copy.uuid), keys.data(new.uuid))
        except NotFound:
            await unbind(bucket, self._name, digest, copy)
            return False
        await bind(bucket, self._name, digest, new, fence)
        return True

    async def _catalogue(self) -> None:
        if not self._bucket.catalogued.get(self._name):
            await self._bucket.driver.put(keys.catalog(self._name), b"")
            self._bucket.catalogued.put(self._name, True)

    async def _subject_of(self, entry: Entry) -> Digest | None:
        try:
            manifest = await parsed(await read_manifest(self._bucket, self._name, entry), entry.media_type)
        except (ManifestInvalid, StorageError):
            return None  # its bytes decayed: nobody sees a referrer's key whose manifest is gone
        return manifest.subject.digest if manifest.subject else None


async def parsed(data: bytes, media_type: str | None) -> Manifest:
    """As `parse_manifest`, without holding up the event loop for a large one. Raises ManifestInvalid."""
    return await off_loop(len(data), parse_manifest, data, media_type)


async def _nothing() -> list[Digest]:
    return []
