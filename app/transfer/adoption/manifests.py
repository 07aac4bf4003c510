"""Bringing manifests over from Distribution's layout: verified, children first, by the rules of every push."""

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestBlobUnknown, ManifestInvalid
from app.oci.manifests import Manifest, parse_manifest
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.manifests import Manifests
from app.registry.publishing import first_linked
from app.registry.stored import first_entry
from app.transfer.adoption.blobs import AdoptedBlobs
from app.transfer.adoption.layout import Garbled, Kind, Layout, Link
from app.transfer.adoption.report import Report
from storage import NotFound

_DEEPEST: Final = 8
"""Indexes inside indexes; deeper ones are taken over by their own links, in the order of their digests."""


class AdoptedManifests:
    """Makes repositories here hold the manifests that they hold in Distribution's layout."""

    def __init__(self, bucket: Bucket, layout: Layout, blobs: AdoptedBlobs, report: Report, by: str) -> None:
        self._bucket, self._layout, self._blobs, self._report, self._by = bucket, layout, blobs, report, by
        self._turns: WeakValueDictionary[tuple[Name, Digest], asyncio.Lock] = WeakValueDictionary()
        self._refused: set[tuple[Name, Digest]] = set()

    async def adopt(self, link: Link, depth: int = 0) -> None:
        """Brings one manifest, after those of its children that are not here. Raises StorageError, RegistryError.

        What cannot be brought, or lacks a part, is noted in the report.
        """
        name, digest = link.name, Digest(link.what)
        # Two indexes may bring the same child at once: one of them then finds it here.
        turn = self._turns.setdefault((name, digest), asyncio.Lock())
        async with turn:
            try:
                data, manifest = await self._read(link)
            except (Garbled, ManifestInvalid, NotFound) as error:
                why = "its bytes are not there" if isinstance(error, NotFound) else str(error)
                self._report.note("left", name, f"manifest {digest}", why)
                self._refused.add((name, digest))
                return
            here = await first_entry(self._bucket, name, digest) is not None
            if self._report.dry:
                await self._predict(name, digest, manifest)
            else:
                await self._bring_children(name, manifest, depth)
                await self._publish(name, digest, data, manifest)
                await self._bucket.driver.put(keys.adopted_manifest(self._layout.root, name, digest), b"")
            if not here:
                self._report.done["manifests_written"] += 1
                self._report.done["manifest_bytes_written"] += len(data)

    async def adopt_late(self, name: Name, digest: Digest) -> None:
        """Brings a manifest that was pushed there after manifests were listed. Raises StorageError, RegistryError."""
        link = await self._layout.find(name, Kind.MANIFEST, digest)
        if link is not None and (name, digest) not in self._refused:
            await self.adopt(link)

    async def is_adopted(self, name: Name, digest: Digest) -> bool:
        """Whether it was brought once, whatever became of it here. Raises StorageError."""
        try:
            await self._bucket.driver.stat(keys.adopted_manifest(self._layout.root, name, digest))
        except NotFound:
            return False
        return True

    async def is_to_come(self, name: Name, digest: Digest) -> bool:
        """Whether a run that does write would bring it. Raises StorageError."""
        return (name, digest) not in self._refused and await self._layout.find(name, Kind.MANIFEST, digest) is not None

    async def _read(self, link: Link) -> tuple[bytes, Manifest]:
        digest = Digest(link.what)
        target = await self._layout.target(link)
        if target != digest:
            raise Garbled(f"its link file names {target}")
        data = await self._layout.manifest(digest)
        if digest_of(data, algorithm_of(digest)) != digest:
            raise Garbled("its bytes do not hash to it")
        return data, parse_manifest(data, None)

    async def _bring_children(self, name: Name, manifest: Manifest, depth: int) -> None:
        if depth >= _DEEPEST:
            return
        for digest in dict.fromkeys(child.digest for child in manifest.children):
            if await first_entry(self._bucket, name, digest) is None and not await self.is_adopted(name, digest):
                link = await self._layout.find(name, Kind.MANIFEST, digest)
                if link is not None:
                    await self.adopt(link, depth + 1)

    async def _publish(self, name: Name, digest: Digest, data: bytes, manifest: Manifest) -> None:
        try:
            await self._put(name, digest, data, sparse=False)
        except ManifestBlobUnknown as error:
            missing = [lost for lost in error.digests if not await self._blobs.need(name, Digest(lost))]
            await self._put(name, digest, data, sparse=True)
            for lost in missing:
                self._note_missing(name, digest, lost)
        for blob in manifest.blobs:
            why = await self._blobs.check(name, blob.digest, blob.size)
            if why is not None:
                self._report.note("left", name, f"blob of manifest {digest}", why)

    async def _predict(self, name: Name, digest: Digest, manifest: Manifest) -> None:
        for blob in dict.fromkeys(blob.digest for blob in manifest.blobs):
            if await first_linked(self._bucket, name, blob) is None and not await self._blobs.is_to_come(name, blob):
                self._note_missing(name, digest, blob)
        for child in dict.fromkeys(child.digest for child in manifest.children):
            if await first_entry(self._bucket, name, child) is None and not await self.is_to_come(name, child):
                self._note_missing(name, digest, child)

    def _note_missing(self, name: Name, digest: Digest, lost: str) -> None:
        self._report.note("sparse", name, f"manifest {digest}", f"names {lost}, which is not there")

    async def _put(self, name: Name, digest: Digest, data: bytes, *, sparse: bool) -> None:
        await Manifests(self._bucket, name).put(data, None, digest=digest, tagged=(), by=self._by, sparse=sparse)
