"""One image on its way from another registry: its blobs, its manifests, what signs it, and last its tag."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.errors import ManifestBlobUnknown, ManifestUnknown
from app.oci.manifests import parse_manifest
from app.oci.names import Name
from app.oci.platforms import choose
from app.oci.references import Tag
from app.proxy.errors import Missing, Portal
from app.registry.bucket import side_by_side
from app.registry.registry import Repository
from app.transfer.copying.blobs import CopiedBlobs
from app.transfer.copying.source import Fetched, Source

DEPTH: Final = 8
"""Levels of indexes, and of signatures of signatures, that are followed."""
_MOST: Final = 20_000
"""Manifests of one image, so that a registry cannot keep us for ever."""
_TAGGED: Final = ("sig", "att", "sbom")
"""What cosign appends to the tag that it makes of a digest."""
_ATTESTS: Final = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Image:
    """What is copied from where to where: `reference` of `repository` there becomes `target` here, tag and all."""

    source: Source
    repository: Name
    reference: Tag | Digest
    target: Name

    @property
    def tag(self) -> Tag | None:
        """The tag; None where one digest was asked for."""
        return None if ":" in self.reference else Tag(self.reference)

    def __str__(self) -> str:
        return f"{self.source.host}/{self.repository}{':' if self.tag else '@'}{self.reference}"


@dataclass(frozen=True, slots=True)
class Rules:
    """`platforms` as in `choose`; `referrers`: whether signatures come along; `dry`: nothing is written."""

    platforms: Sequence[str]
    referrers: bool = True
    dry: bool = False


@dataclass(slots=True)
class Count:
    """What an image took; bytes are those of blobs. Of a dry run: what it would take."""

    manifests: int = 0
    manifests_here: int = 0
    blobs: int = 0
    bytes: int = 0
    blobs_here: int = 0
    bytes_here: int = 0
    wanted: int = 0
    """Bytes of the blobs that had to come, as far as that is known yet."""


class Shown(Protocol):
    """What somebody sees of one image on its way."""

    def show(self, come: int, total: int) -> None:
        """Bytes that came, and all that are wanted as far as is known."""
        ...


@dataclass(slots=True)
class CopiedImage:
    """One run of one image. `counted` are the blobs that a dry run has counted for any image."""

    image: Image
    rules: Rules
    blobs: CopiedBlobs
    here: Repository
    shown: Shown
    tags: frozenset[str] | None = None
    counted: set[Digest] = field(default_factory=set)
    count: Count = field(default_factory=Count)
    absent: list[str] = field(default_factory=list)
    """Platforms for which an index has no image."""
    digest: Digest | None = None
    _known: set[Digest] = field(default_factory=set)
    _come: int = 0

    async def resolve(self) -> Digest:
        """The manifest that is meant. Raises UpstreamError."""
        image = self.image
        if self.digest is None:
            tag = image.tag
            self.digest = await image.source.digest(image.repository, tag) if tag else Digest(image.reference)
        return self.digest

    async def run(self) -> None:
        """Copies it. Raises UpstreamError, RegistryError; then the tag is where it was."""
        tag, digest = self.image.tag, await self.resolve()
        try:
            await self._tree(digest, 0)
        except ManifestBlobUnknown:  # what was here when we looked is being deleted
            self._known.clear()
            await self._tree(digest, 0)
        if tag is not None and not self.rules.dry and not self.absent:
            await self._tag(tag, digest)

    async def _tree(self, digest: Digest, depth: int, *, signs: bool = False) -> None:
        """Brings a manifest with all below it, and then what refers to it. `signs`: it is a signature itself."""
        if digest in self._known:
            return
        self._note(digest, depth)
        fetched, is_here = await self._manifest(digest)
        children = self._chosen(fetched)
        await side_by_side(self._blob, fetched.manifest.blobs)
        for child in children:
            await self._child(child, depth + 1, signs)
        if is_here:
            self.count.manifests_here += 1
        else:
            self.count.manifests += 1
            if not self.rules.dry:
                await self._put(fetched, digest, sparse=len(children) < len(fetched.manifest.children))
        if self.rules.referrers:
            await self._signatures(digest, depth, tagged=not signs)

    def _note(self, digest: Digest, depth: int) -> None:
        self._known.add(digest)
        if depth > DEPTH or len(self._known) > _MOST:
            raise Portal(f"{self.image.source.host} answers an image that has no end")

    async def _child(self, child: Descriptor, depth: int, signs: bool) -> None:
        try:
            await self._tree(child.digest, depth, signs=signs)
        except ManifestUnknown as exc:
            if exc.detail != {"digest": child.digest}:
                raise
            await self._blob(child)  # BuildKit's caches list blobs as children

    async def _manifest(self, digest: Digest) -> tuple[Fetched, bool]:
        """A manifest, and whether it is here."""
        try:
            entry, data = await self.here.manifests.get(digest)
        except ManifestUnknown:
            try:
                return await self.image.source.manifest(self.image.repository, digest), False
            except Missing as exc:
                raise ManifestUnknown(f"{exc.reason}: {digest}", detail={"digest": digest}) from exc
        return Fetched(data, entry.media_type, parse_manifest(data, entry.media_type)), True

    def _chosen(self, fetched: Fetched) -> Sequence[Descriptor]:
        """The children that are wanted, with what BuildKit attests of them."""
        manifest = fetched.manifest
        if not manifest.children or "all" in self.rules.platforms:
            return manifest.children
        listed: list[Any] = json.loads(fetched.data)["manifests"]
        chosen, absent = choose(listed, self.rules.platforms)
        self.absent += absent
        wanted = set(chosen)
        wanted |= {Digest(item["digest"]) for item in listed if _attested(item) in wanted}
        return [child for child in manifest.children if child.digest in wanted]

    async def _blob(self, blob: Descriptor) -> None:
        count = self.count
        if self.rules.dry:
            is_new = not (blob.digest in self.counted or await self.blobs.has(self.here.name, blob))
            self.counted.add(blob.digest)
        else:
            is_new = await self.blobs.bring(self.image.source, self.image.repository, self.here, blob, self)
        if is_new:
            count.blobs += 1
            count.bytes += blob.size
        else:
            count.blobs_here += 1
            count.bytes_here += blob.size

    def wants(self, size: int) -> None:
        """A blob of so many bytes begins to come."""
        self.count.wanted += size
        self.came(0)

    def came(self, size: int) -> None:
        """So many bytes of blobs came."""
        self._come += size
        self.shown.show(min(self._come, self.count.wanted), self.count.wanted)

    async def _put(self, fetched: Fetched, digest: Digest, *, sparse: bool) -> None:
        await self.here.manifests.put(
            fetched.data, fetched.content_type, digest=digest, tagged=[], by=None, sparse=sparse
        )

    async def _tag(self, tag: Tag, digest: Digest) -> None:
        """Points the tag here at what is here now, unless it does."""
        try:
            if (await self.here.manifests.stat_tag(tag)).digest == digest:
                return
        except ManifestUnknown:
            pass
        entry, data = await self.here.manifests.get(digest)
        sparse = "all" not in self.rules.platforms
        by = f"copy:{self.image.source.host}"
        await self.here.manifests.put(data, entry.media_type, digest=digest, tagged=[tag], by=by, sparse=sparse)

    async def _signatures(self, subject: Digest, depth: int, *, tagged: bool) -> None:
        """What signs or describes a manifest. The tags that cosign gives such things come along as tags."""
        image = self.image
        for referrer in await image.source.referrers(image.repository, subject):
            await self._tree(referrer, depth + 1, signs=True)
        for ending in _TAGGED if tagged else ():
            tag = Tag(f"{subject.replace(':', '-', 1)}.{ending}")
            if self.tags is not None and tag not in self.tags:
                continue
            try:
                digest = await image.source.digest(image.repository, tag)
            except Missing:
                continue
            await self._tree(digest, depth + 1, signs=True)
            if not self.rules.dry:
                await self._tag(tag, digest)


def _attested(item: dict[str, Any]) -> str | None:
    annotations = item.get("annotations")
    said = annotations.get(_ATTESTS) if isinstance(annotations, dict) else None
    return said if isinstance(said, str) else None
