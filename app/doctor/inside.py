"""A door into a registry in this very process, over a corner of the store, where no server runs."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from app.doctor.below import Below
from app.doctor.image import MANIFEST
from app.doctor.round_trip import Refused
from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, ManifestUnknown, RegistryError
from app.oci.names import Name
from app.oci.references import parse_tag
from app.registry.bucket import Bucket
from app.registry.registry import Registry
from app.registry.settings import RegistrySettings
from storage import Capabilities, Driver, StorageError

_FIX = "edge-registry doctor --only store"


class Inside:
    """See app.doctor.round_trip.Door. `corner` is the store that is behind it, and nothing else."""

    def __init__(self, registry: Registry, corner: Driver) -> None:
        self.place = "the store, without a server"
        self.corner = corner
        self._registry = registry

    async def push_blob(self, name: Name, digest: Digest, data: bytes) -> None:
        with _refusals():
            await self._registry.repository(name).uploads.put(digest, _body(data))

    async def push_manifest(self, name: Name, tag: str, data: bytes) -> None:
        with _refusals():
            await self._registry.repository(name).manifests.put(
                data, MANIFEST, digest=None, tagged=[parse_tag(tag)], by=None
            )

    async def pull_manifest(self, name: Name, tag: str) -> bytes:
        with _refusals():
            return (await self._registry.repository(name).manifests.get_tag(parse_tag(tag)))[1]

    async def pull_blob(self, name: Name, digest: Digest) -> bytes:
        with _refusals():
            blobs = self._registry.repository(name).blobs
            async with blobs.open(await blobs.stat(digest)) as reader:
                return b"".join([chunk async for chunk in reader])

    async def delete_manifest(self, name: Name, digest: Digest) -> bool:
        with _refusals():
            try:
                await self._registry.repository(name).manifests.delete(digest)
            except ManifestUnknown:
                return False
        return True

    async def delete_blob(self, name: Name, digest: Digest) -> bool:
        with _refusals():
            try:
                await self._registry.repository(name).blobs.delete(digest)
            except BlobUnknown:
                return False
        return True


@asynccontextmanager
async def open_inside(driver: Driver, capabilities: Capabilities) -> AsyncIterator[Inside]:
    """The door to a corner of the store, which is emptied in the end. Raises StorageError."""
    corner = Below(driver, f"upkeep/probe/{secrets.token_hex(8)}/")
    # A configuration that refuses pushes says nothing against the store.
    bucket = Bucket(corner, RegistrySettings(manifest_cache_bytes=0), capabilities, lambda _event, _fields: None)
    try:
        yield Inside(Registry(bucket), corner)
    finally:
        await bucket.close()
        await corner.clear()


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the registry says into Refused."""
    try:
        yield
    except RegistryError as exc:
        raise Refused(exc.message, _FIX) from exc
    except StorageError as exc:
        raise Refused(str(exc), _FIX) from exc


async def _body(data: bytes) -> AsyncIterator[bytes]:
    yield data
