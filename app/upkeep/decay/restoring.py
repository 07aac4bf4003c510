"""Mends manifests: the right bytes come from the same or another repository, else from the upstream."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid, RegistryError
from app.oci.manifests import MAX_BYTES, Manifest, parse_manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.errors import UpstreamError
from app.proxy.manifests import ACCEPT
from app.registry import keys, referrers
from app.registry.bucket import Bucket
from app.registry.keys import Entry
from app.registry.manifests import Manifests
from app.registry.publishing import first_linked, intent, tombstoned
from app.upkeep.decay.inventory import Inventory, entry_in
from app.upkeep.decay.looking import Withheld, asked, once
from app.upkeep.decay.repair import BlobRepair
from app.upkeep.decay.saying import said
from storage import Absent, Condition, ConditionFailed, NotFound, Version

_ELSEWHERE: Final = "SELECT * FROM manifest WHERE digest = ? ORDER BY name != ?"


@dataclass(frozen=True, slots=True)
class Right:
    """A manifest's bytes; the media type that whoever had them gave them; and whence they came, in words."""

    data: bytes
    media_type: str | None
    whence: str


class ManifestRepair:
    """Mends manifests and the tags that name them."""

    def __init__(self, bucket: Bucket, inventory: Inventory, blobs: BlobRepair) -> None:
        self._bucket = bucket
        self._inventory = inventory
        self._blobs = blobs

    async def replace(self, name: Name, entry: Entry, *, unlink: bool) -> str | None:
        """Puts the right bytes where others are, or, with `unlink`, moves those out of the way. Says what it did.

        Raises StorageError.
        """
        try:
            found = await asked(self._bucket, lambda: self._bucket.driver.stat(keys.manifest(name, entry)))
        except NotFound:
            return "it is deleted by now"
        except Withheld:
            return None
        right = await self._right(name, entry)
        if right is not None:
            return right.whence if await self._write(name, entry, right.data, Version(found.version)) else None
        if unlink:
            await self._blobs.quarantine.take_manifest(name, entry)
        return None

    async def restore(self, name: Name, entry: Entry) -> str | None:
        """Puts a manifest where a tag says that it is; says whence it came. Raises StorageError."""
        right = await self._right(name, entry)
        if right is None:
            return None
        return right.whence if await self._write(name, entry, right.data, Absent()) else None

    async def publish(self, name: Name, digest: Digest) -> str | None:
        """Publishes a child that an index names, with what it needs; says whence it came. Raises StorageError."""
        right = await self._right(name, Entry(digest, "", "", 0))
        if right is None:
            return None
        try:
            await self._provide(name, await asyncio.to_thread(parse_manifest, right.data, right.media_type))
            await Manifests(self._bucket, name).put(right.data, right.media_type, digest=digest, tagged=(), by=None)
        except RegistryError:
            return None
        return right.whence

    async def empty_tag(self, name: Name, tag: Tag) -> str | None:
        """Empties a tag that cannot be read, where an upstream fills the repository and the store keeps conditions.

        It is read once more before that: the store may have come to itself. Raises StorageError.
        """
        if self._blobs.upstream_of(name) is None or not self._bucket.capabilities.conditional_put:
            return None
        key = keys.tag(name, tag)
        try:
            version = await self._nonsense(key)
            if version is None:
                return None
            await once(self._bucket, lambda: self._bucket.driver.put(key, b"", condition=Version(version)))
        except (NotFound, ConditionFailed, Withheld):
            return None
        return "emptied: the next pull asks the upstream"

    async def _nonsense(self, key: str) -> str | None:
        """The version of a tag that cannot be read at this moment; None where it can, or is empty. Raises NotFound, Withheld."""
        try:
            found = await asked(self._bucket, lambda: self._bucket.driver.get(key))
        except Withheld:
            return (await asked(self._bucket, lambda: self._bucket.driver.stat(key))).version
        try:
            if found.data:
                said(found.data)
        except ValueError:
            return found.version
        return None

    async def _right(self, name: Name, entry: Entry) -> Right | None:
        """The manifest from wherever it is whole."""
        async for source, other in self._elsewhere(name, entry):
            with suppress(NotFound, Withheld):
                key = keys.manifest(source, other)
                data = (await asked(self._bucket, partial(self._bucket.driver.get, key))).data
                if digest_of(data, algorithm_of(entry.digest)) == entry.digest:
                    return Right(data, other.media_type, f"taken from {source}")
        upstream = self._blobs.upstream_of(name)
        if upstream is None:
            return None
        try:
            reply = await upstream.ask(
                name, lambda there, remote: there.client.get(remote, f"manifests/{entry.digest}", accept=ACCEPT)
            )
        except UpstreamError:
            return None
        if digest_of(reply.body, algorithm_of(entry.digest)) != entry.digest:
            return None
        return Right(reply.body, reply.headers.get("Content-Type"), f"fetched from {upstream.name}")

    async def _elsewhere(self, name: Name, entry: Entry) -> AsyncIterator[tuple[Name, Entry]]:
        """Other objects of the same digest, those of the same repository first."""
        async for page in self._inventory.pages(_ELSEWHERE, entry.digest, name):
            for source, other in map(entry_in, page):
                if (source, other) != (name, entry) and other.size <= MAX_BYTES:
                    yield source, other

    async def _write(self, name: Name, entry: Entry, data: bytes, condition: Condition) -> bool:
        """Writes a manifest at its key, as a publisher; False where somebody else was faster."""
        try:
            manifest = await asyncio.to_thread(parse_manifest, data, entry.media_type)
        except ManifestInvalid:
            return False
        fence = self._bucket.driver.fence()
        await self._provide(name, manifest)
        found = [await first_linked(self._bucket, name, blob.digest) for blob in manifest.blobs]
        copies = {copy for copy in found if copy is not None}
        held = condition if self._bucket.capabilities.conditional_put else None
        try:
            async with intent(self._bucket, copies):  # which stays where the outcome of the write is not known
                if await tombstoned(self._bucket, copies, [name]):
                    return False
                await self._bucket.driver.put(keys.catalog(name), b"")
                await referrers.write(self._bucket, name, manifest, entry)
                key = keys.manifest(name, entry)
                await once(self._bucket, lambda: self._bucket.driver.put(key, data, condition=held, fence=fence))
        except (ConditionFailed, Withheld):
            return False
        return True

    async def _provide(self, name: Name, manifest: Manifest) -> None:
        """Links the blobs that the manifest names and the repository lacks, where there are any."""
        missing: Collection[Digest] = {
            blob.digest for blob in manifest.blobs if await first_linked(self._bucket, name, blob.digest) is None
        }
        for digest in missing:
            await self._blobs.mend(digest, [name], unlink=False)
