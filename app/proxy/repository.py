"""A repository of an upstream: the same shape as a local one, filled by pulling."""

from functools import cached_property
from typing import NoReturn

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, Unsupported
from app.oci.names import Name
from app.proxy.blobs import Awaited, ProxiedBlobs
from app.proxy.cache import Cache
from app.proxy.errors import UpstreamError
from app.proxy.failures import meaning
from app.proxy.manifests import ProxiedManifests
from app.proxy.referrers import ProxiedReferrers
from app.proxy.tags import ProxiedTags
from app.proxy.upstreams import Upstream
from app.registry.registry import Repository


class ProxiedRepository(Repository):
    """A repository of an upstream. Pulling fills it; pushing is refused; DELETE forgets what is cached."""

    def __init__(self, cache: Cache, name: Name, upstream: Upstream, *, careful: bool = False) -> None:
        super().__init__(cache.bucket, name)
        self._cache = cache
        self._upstream = upstream
        self._careful = careful

    @cached_property
    def blobs(self) -> ProxiedBlobs:
        return ProxiedBlobs(self._bucket, self.name, self._upstream, self._cache.transfers)

    @property
    def uploads(self) -> NoReturn:
        raise Unsupported(f"nothing can be pushed into the name space of {self._upstream.name}")

    @cached_property
    def manifests(self) -> ProxiedManifests:
        return ProxiedManifests(self._cache, self.name, self._upstream, self.notes, careful=self._careful)

    @cached_property
    def tags(self) -> ProxiedTags:
        return ProxiedTags(self._cache, self.name, self._upstream, self.notes)

    @cached_property
    def referrers(self) -> ProxiedReferrers:
        return ProxiedReferrers(self._cache, self.name, self._upstream, self.notes, self.manifests)

    async def hold(self, digest: Digest) -> None:
        """Returns once a blob of the upstream's repository is held here. Raises BlobUnknown, Denied, Unavailable."""
        blob = await self.blobs.sought(digest)
        if isinstance(blob, Awaited):
            try:
                await self._cache.transfers.bring(self._upstream, self.blobs.origin(blob), urgent=True)
            except UpstreamError as exc:
                raise meaning(exc, BlobUnknown(detail={"digest": digest})) from exc
