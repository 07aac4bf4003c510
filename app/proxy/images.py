"""Whole images of an upstream: what one consists of, what of it is here, and bringing the rest."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest, is_digest
from app.oci.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, RegistryError
from app.oci.names import Name
from app.oci.platforms import chosen_of
from app.oci.references import Tag
from app.proxy.cache import Cache
from app.proxy.documents import said_digest
from app.proxy.errors import UpstreamError
from app.proxy.failures import meaning
from app.proxy.manifests import ACCEPT, writer
from app.proxy.repository import ProxiedRepository
from app.proxy.spool import Origin
from app.proxy.upstreams import Upstream
from app.registry import keys, tags
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.manifests import parsed
from app.registry.off_loop import off_loop
from app.registry.publishing import first_linked
from app.registry.referrers import ReferrersOf
from app.registry.stored import first_entry, read_manifest
from storage import NotFound

_AT_ONCE: Final = 3
_DEPTH: Final = 8
"""Levels of indexes, and signatures of signatures, that are followed."""
_SIGNATURES: Final = ("sig", "att", "sbom")
_TICK: Final = 0.5
_known: Final = translated(tags.read_living)

Progress = Callable[[int, int], None]
"""Told the bytes that came, and the bytes of all that is wanted; twice a second, and at the end."""


@dataclass(slots=True)
class Survey:
    """What an image needs, its signatures included, as far as that is known; and what of it is not here."""

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    missing_manifests: list[Digest] = field(default_factory=list)
    missing_blobs: list[Descriptor] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Platforms for which an index has no image."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.missing_manifests or self.missing_blobs or self.absent)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs.values())

    @property
    def missing_bytes(self) -> int:
        """Bytes of the blobs that are missing; what missing manifests name is not known."""
        return sum(blob.size for blob in self.missing_blobs)


async def survey(bucket: Bucket, name: Name, digest: Digest, platforms: Sequence[str]) -> Survey:
    """Looks at what is here; of an index, at the images for `platforms`. Asks no upstream. Raises Unavailable."""
    found = await outline(bucket, name, digest, platforms)
    await _look_for_blobs(bucket, name, found)
    return found


@translated
async def outline(bucket: Bucket, name: Name, digest: Digest, platforms: Sequence[str]) -> Survey:
    """As `survey`, without looking whether the blobs are here."""
    found = Survey()
    rest = [digest]
    while rest:
        digest = rest.pop()
        if digest in found.manifests:
            continue
        found.manifests.append(digest)
        data, media_type = await _read(bucket, name, digest)
        if not data:
            found.missing_manifests.append(digest)
            continue
        with suppress(ManifestInvalid):
            manifest = await parsed(data, media_type)
            found.blobs |= {blob.digest: blob for blob in manifest.blobs}
            if manifest.children:
                chosen, absent = await off_loop(len(data), chosen_of, data, platforms)
                rest += chosen
                found.absent += absent
        rest += await _signatures(bucket, name, digest)
    return found


@translated
async def _look_for_blobs(bucket: Bucket, name: Name, found: Survey) -> None:
    held = await side_by_side(lambda blob: first_linked(bucket, name, blob), found.blobs)
    found.missing_blobs = [blob for blob, copy in zip(found.blobs.values(), held, strict=True) if copy is None]


async def _read(bucket: Bucket, name: Name, digest: Digest) -> tuple[bytes, str]:
    """The bytes and the media type of a manifest; no bytes where it is not here."""
    entry = await first_entry(bucket, name, digest)
    try:
        return (await read_manifest(bucket, name, entry), entry.media_type) if entry else (b"", "")
    except NotFound:
        return b"", ""


async def _signatures(bucket: Bucket, name: Name, subject: Digest) -> list[Digest]:
    """What is here that signs or describes a manifest: its referrers, and tags that are called like it."""
    found = [Digest(item["digest"]) for item in (await ReferrersOf(bucket, name).list(subject, None, None)).descriptors]
    page = await bucket.driver.list(f"{keys.tags(name)}{subject.replace(':', '-', 1)}")
    for listed in page.entries:
        living = await tags.read_living(bucket, name, keys.tagged(listed.key))
        if living is not None:
            found.append(living[0].digest)
    return found


async def bring(
    cache: Cache,
    upstream: Upstream,
    name: Name,
    reference: Tag | Digest,
    platforms: Sequence[str],
    progress: Progress,
    *,
    max_age: float = 0.0,
) -> Survey:
    """Fetches an image whole, with its signatures, and returns what is then known of it.

    A tag that is known moves only once all of it is here. One that was checked less than `max_age` seconds ago is not
    asked for again. Raises ManifestUnknown, BlobUnknown, Denied, Unavailable.
    """
    repository = ProxiedRepository(cache, name, upstream)
    digest, moved, fresh = await _resolved(cache, repository, upstream, reference, max_age)
    found = await survey(cache.bucket, name, digest, platforms)
    if fresh and found.complete:
        return found
    found = await _bring_manifests(cache, repository, found, digest, platforms)
    trouble = await _bring_signatures(repository, found.manifests)
    found = await _bring_manifests(cache, repository, found, digest, platforms)
    await _bring_blobs(cache, upstream, name, found.missing_blobs, progress)
    if trouble is not None:
        raise trouble
    if moved:
        await _move(cache, upstream, name, Tag(reference), digest)
    return await survey(cache.bucket, name, digest, platforms)


async def _resolved(
    cache: Cache, repository: ProxiedRepository, upstream: Upstream, reference: Tag | Digest, max_age: float
) -> tuple[Digest, bool, bool]:
    """The manifest that is meant; whether its tag is to be written when all is here; whether it need not be asked for."""
    if is_digest(reference):
        return Digest(reference), False, True
    tag, name = Tag(reference), repository.name
    known = await _known(cache.bucket, name, tag)
    if known is not None and abs(time.time() - known[1]) < max_age:
        return known[0].digest, False, True
    if known is not None:
        try:
            digest = await upstream.ask(name, lambda source, remote: _head(source, remote, tag))
        except UpstreamError as exc:
            raise meaning(exc, ManifestUnknown(detail={"tag": tag})) from exc
        if digest is not None:
            return digest, True, False
    return (await repository.manifests.refresh(tag)).digest, False, False


async def _head(source: Upstream, remote: str, tag: Tag) -> Digest | None:
    """What a tag names upstream; None where only a GET can tell. Raises UpstreamError."""
    return said_digest(await source.client.head(remote, f"manifests/{tag}", ACCEPT))


@translated
async def _move(cache: Cache, upstream: Upstream, name: Name, tag: Tag, digest: Digest) -> None:
    entry = await first_entry(cache.bucket, name, digest)
    if entry is not None:
        await tags.write(cache.bucket, name, tag, entry, writer(upstream))


async def _bring_manifests(
    cache: Cache, repository: ProxiedRepository, found: Survey, digest: Digest, platforms: Sequence[str]
) -> Survey:
    """Fetches manifests until those that are here name no other."""
    for _ in range(_DEPTH):
        for missing in found.missing_manifests:
            await repository.manifests.get(missing)
        found = await survey(cache.bucket, repository.name, digest, platforms)
        if not found.missing_manifests:
            break
    return found


async def _bring_blobs(
    cache: Cache, upstream: Upstream, name: Name, blobs: Collection[Descriptor], progress: Progress
) -> None:
    """Fetches blobs, the small ones first; where some fail, the others come all the same."""
    places, done = asyncio.Semaphore(_AT_ONCE), set[Digest]()
    failures: list[UpstreamError | RegistryError] = []

    shown = 0

    def show() -> None:
        nonlocal shown
        come = sum(blob.size if blob.digest in done else _come(cache, blob) for blob in blobs)
        shown = max(shown, come)  # a transfer that has just ended is neither running nor done
        progress(shown, total)

    async def one(blob: Descriptor) -> None:
        try:
            async with places:
                await cache.transfers.bring(upstream, Origin(blob.digest, blob.size, upstream.name, name))
        except (UpstreamError, RegistryError) as exc:
            failures.append(exc)
        else:
            done.add(blob.digest)

    total = sum(blob.size for blob in blobs)
    show()
    async with asyncio.TaskGroup() as watching:
        ticking = watching.create_task(_tick(show))
        async with asyncio.TaskGroup() as group:
            for blob in sorted(blobs, key=lambda blob: blob.size):
                group.create_task(one(blob))
        ticking.cancel()
    show()
    for exc in failures:
        raise (
            meaning(exc, BlobUnknown(f"{upstream.name} lacks a blob of it")) if isinstance(exc, UpstreamError) else exc
        )


def _come(cache: Cache, blob: Descriptor) -> int:
    """Bytes of a blob on its way that are here."""
    transfer = cache.transfers.running(blob.digest)
    return min(blob.size, transfer.come) if transfer else 0


async def _tick(show: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_TICK)
        show()


async def _bring_signatures(repository: ProxiedRepository, subjects: Sequence[Digest]) -> RegistryError | None:
    """Fetches the manifests of referrers, and of the tags that cosign gives signatures, attestations and SBOMs.

    Returns what went wrong on the way to one that may exist.
    """
    trouble: RegistryError | None = None
    for subject in subjects:
        for ending in _SIGNATURES:
            try:
                await repository.manifests.get_tag(Tag(f"{subject.replace(':', '-', 1)}.{ending}"))
            except ManifestUnknown:
                continue
            except RegistryError as exc:
                trouble = exc
        try:
            for item in (await repository.referrers.list(subject, None, None)).descriptors:
                await repository.manifests.get(Digest(item["digest"]))
        except RegistryError as exc:
            trouble = exc
    return trouble
