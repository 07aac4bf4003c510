"""A repository of an upstream in a registry that dials nobody: what was pulled or imported is served, and is all there is."""

from functools import cached_property
from typing import Any, NoReturn

from app.oci.digests import Digest
from app.oci.errors import Unsupported
from app.oci.names import Name
from app.proxy.namespace import Namespace
from app.registry.bucket import Bucket
from app.registry.manifests import Manifests, Published
from app.registry.registry import Repository


class SealedRepository(Repository):
    """As it lies here. Pushing is refused, as it is into the name space of an upstream that can be asked."""

    def __init__(self, bucket: Bucket, name: Name, upstream: Namespace) -> None:
        super().__init__(bucket, name)
        self._upstream = upstream

    @property
    def uploads(self) -> NoReturn:
        raise _refusal(self._upstream)

    @cached_property
    def manifests(self) -> "SealedManifests":
        return SealedManifests(self._bucket, self.name, self._upstream)

    async def hold(self, digest: Digest) -> None:
        """Returns where the blob is held here. Raises BlobUnknown."""
        await self.blobs.stat(digest)


class SealedManifests(Manifests):
    """Its manifests."""

    def __init__(self, bucket: Bucket, name: Name, upstream: Namespace) -> None:
        super().__init__(bucket, name)
        self._upstream = upstream

    async def put(self, data: bytes, content_type: str | None, **_: Any) -> Published:
        """Refused: imports fill it."""
        raise _refusal(self._upstream)


def _refusal(upstream: Namespace) -> Unsupported:
    return Unsupported(f"nothing can be pushed into the name space of {upstream.name}")
