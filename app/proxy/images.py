"""Whole images of an upstream: what one consists of, what of it is here, and bringing the rest."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.errors import ManifestInvalid, ManifestUnknown, RegistryError
from app.oci.manifests import parse_manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.cache import Cache
from app.proxy.errors import UpstreamError
from app.proxy.failures import meaning
from app.proxy.prefetch import children_for
from app.proxy.repository import ProxiedRepository
from app.proxy.spool import Origin
from app.proxy.upstreams import Upstream
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.publishing import first_linked
from app.registry.stored import first_entry, read_manifest
from storage import NotFound

EVERY: Final = "all"
"""The platform that means all of them."""
_AT_ONCE: Final = 3
_SIGNATURES: Final = ("sig", "att", "sbom")

Progress = Callable[[int, int], None]
"""Told the bytes that came, and the bytes of all that is wanted; called whenever either changes."""


@dataclass(slots=True)
class Survey:
    """What an image needs: manifests by digest, blobs with their sizes in bytes, and which of both are not here."""

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    missing_manifests: list[Digest] = field(default_factory=list)
    missing_blobs: list[Descriptor] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing_manifests and not self.missing_blobs

    @property
    def missing_bytes(self) -> int:
        """Bytes of the blobs that are missing; what missing manifests name is not known."""
        return sum(blob.size for blob in self.missing_blobs)


@translated
async def survey(bucket: Bucket, name: Name, digest: Digest, platforms: Sequence[str]) -> Survey:
    """Looks at what is here; of an index, at the children for `platforms`. Asks no upstream."""
    found = Survey()
    rest = [digest]
    while rest:
        digest = rest.pop()
        entry = await first_entry(bucket, name, digest)
        found.manifests.append(digest)
        try:
            data = await read_manifest(bucket, name, entry) if entry else b""
        except NotFound:
            data = b""
        if entry is None or not data:
            found.missing_manifests.append(digest)
            continue
        with suppress(ManifestInvalid):
            manifest = parse_manifest(data, entry.media_type)
            found.blobs |= {blob.digest: blob for blob in manifest.blobs}
            everything = [child.digest for child in manifest.children]
            rest += everything if EVERY in platforms else list(children_for(data, platforms))
    held = await side_by_side(lambda blob: first_linked(bucket, name, blob), found.blobs)
    found.missing_blobs = [blob for blob, copy in zip(found.blobs.values(), held, strict=True) if copy is None]
    return found


async def bring(
    cache: Cache, upstream: Upstream, name: Name, reference: Tag | Digest, platforms: Sequence[str], progress: Progress
) -> Survey:
    """Fetches an image whole, with its signatures, and returns what is then known of it.

    Raises ManifestUnknown, Denied, Unavailable.
    """
    repository = ProxiedRepository(cache, name, upstream)
    digest = Digest(reference) if ":" in reference else (await repository.manifests.refresh(Tag(reference))).digest
    await repository.manifests.get(digest)
    found = await survey(cache.bucket, name, digest, platforms)
    while found.missing_manifests:
        for missing in found.missing_manifests:
            await repository.manifests.get(missing)
        found = await survey(cache.bucket, name, digest, platforms)
    await _bring_blobs(cache, upstream, name, found, progress)
    with suppress(RegistryError):
        await _bring_signatures(cache, repository, upstream, digest)
    return await survey(cache.bucket, name, digest, platforms)


async def _bring_blobs(cache: Cache, upstream: Upstream, name: Name, found: Survey, progress: Progress) -> None:
    total, places = found.missing_bytes, asyncio.Semaphore(_AT_ONCE)
    come = 0
    progress(come, total)

    async def one(blob: Descriptor) -> None:
        nonlocal come
        async with places:
            repository = ProxiedRepository(cache, name, upstream)
            if await repository.blobs.mount(blob.digest, None, lambda _: True) is None:
                await cache.transfers.bring(upstream, Origin(blob.digest, blob.size, upstream.name, name))
        come += blob.size
        progress(come, total)

    try:
        async with asyncio.TaskGroup() as group:
            for blob in sorted(found.missing_blobs, key=lambda blob: blob.size):
                group.create_task(one(blob))
    except BaseExceptionGroup as exc:
        first = exc.exceptions[0]
        raise (meaning(first, ManifestUnknown()) if isinstance(first, UpstreamError) else first) from None


async def _bring_signatures(cache: Cache, repository: ProxiedRepository, upstream: Upstream, subject: Digest) -> None:
    """Referrers, and the tags that cosign gives signatures, attestations and SBOMs."""
    wanted: list[Digest] = []
    for ending in _SIGNATURES:
        with suppress(RegistryError):
            wanted.append((await repository.manifests.stat_tag(Tag(f"{subject.replace(':', '-', 1)}.{ending}"))).digest)
    page = await repository.referrers.list(subject, None, None)
    wanted += [Digest(item["digest"]) for item in page.descriptors]
    for digest in wanted:
        await repository.manifests.get(digest)
        found = await survey(cache.bucket, repository.name, digest, ())
        await _bring_blobs(cache, upstream, repository.name, found, lambda _come, _total: None)
