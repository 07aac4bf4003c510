"""What one image of an archive consists of: every manifest below it, and whether all that they name can be had.

Nothing is stored here. Archives are not trusted: indexes nest to a bound, each manifest is looked at once however often it
is named, and what a descriptor says about a size must be so.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    parse_manifest,
)
from app.oci.platforms import EVERY, chosen_of
from app.registry.off_loop import off_loop
from app.transfer.errors import ArchiveRefused
from app.transfer.imports.listed import Contents

_DEPTH: Final = 8
_MANIFESTS: Final = 10_000
"""The most manifests of one image."""
_KINDS: Final = frozenset({"", OCI_MANIFEST, OCI_INDEX, OCI_ARTIFACT, DOCKER_MANIFEST, DOCKER_LIST})
"""Media types of manifests; the caches of BuildKit list blobs where others list manifests."""

Held = Callable[[Digest], Awaitable[bool]]
"""Whether the registry can give a blob that is not in the archive."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One manifest that is to be published; `sparse` where it names manifests that are not."""

    digest: Digest
    media_type: str
    sparse: bool


@dataclass(slots=True)
class Outline:
    """One image: its manifests, those that others name first, and its blobs."""

    sheets: list[Sheet] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    held: set[Digest] = field(default_factory=set)
    """Those of the blobs that are not in the archive, and that the registry has."""
    subject: Digest | None = None
    left_out: int = 0
    """Images of indexes that were not wanted, or that are not in the archive."""

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs.values())


async def outlined(contents: Contents, top: Descriptor, platforms: Sequence[str], held: Held) -> Outline:
    """What `top` consists of; of an index, the images for `platforms`, or all where none are named.

    Raises ArchiveRefused where anything of an image is missing, ManifestInvalid. An index may name images that are not
    in the archive, as long as one is: Docker and containerd write what they have of it.
    """
    walk = _Walk(contents, platforms or (EVERY,), held)
    missing = await walk.manifest(top, 0)
    if missing is not None:
        raise ArchiveRefused(missing)
    return walk.found


class _Walk:
    """The way through one image."""

    def __init__(self, contents: Contents, platforms: Sequence[str], held: Held) -> None:
        self.found = Outline()
        self._contents = contents
        self._platforms = platforms
        self._held = held
        self._seen: dict[Digest, str | None] = {}

    async def manifest(self, descriptor: Descriptor, depth: int) -> str | None:
        """Looks at a manifest and all below it; returns what is missing of it, if anything."""
        digest = descriptor.digest
        if digest in self._seen:
            return self._seen[digest]
        if depth > _DEPTH or len(self._seen) >= _MANIFESTS:
            raise ArchiveRefused("the indexes of the image are nested too deeply, or it has too many manifests")
        self._seen[digest] = "an index names itself"
        data = await self._contents.manifest(digest)
        if data is None:
            self._seen[digest] = f"the manifest {digest} is not in the archive"
            return self._seen[digest]
        if len(data) != descriptor.size:
            raise ArchiveRefused(f"the manifest {digest} has another size than its descriptor says")
        manifest = await off_loop(len(data), parse_manifest, data, descriptor.media_type or None)
        if depth == 0 and manifest.subject is not None:
            self.found.subject = manifest.subject.digest
        if manifest.is_index:
            missing, sparse = await self._children(manifest, data, depth)
        else:
            missing, sparse = await self._blobs(manifest.blobs), False
        if missing is None:
            self.found.sheets.append(Sheet(digest, manifest.media_type, sparse))
        self._seen[digest] = missing
        return missing

    async def _children(self, manifest: Manifest, data: bytes, depth: int) -> tuple[str | None, bool]:
        """What is missing of an index, and whether anything of it is left out."""
        picked, absent = await off_loop(len(data), chosen_of, data, self._platforms)
        chosen = set(picked)
        if absent and depth == 0:
            raise ArchiveRefused(f"the image is not there for {', '.join(absent)}")
        missing: str | None = None
        whole = left_out = 0
        for child in manifest.children:
            trouble: str | None = None
            if child.digest not in chosen:
                left_out += 1
                continue
            if child.media_type in _KINDS:
                trouble = await self.manifest(child, depth + 1)
            else:
                trouble = await self._blobs([child])
            if trouble is None:
                whole += 1
            else:
                left_out, missing = left_out + 1, missing or trouble
        self.found.left_out += left_out
        return (missing if not whole else None), left_out > 0

    async def _blobs(self, blobs: Sequence[Descriptor]) -> str | None:
        """Notes the blobs where all can be had; returns which one cannot."""
        held: set[Digest] = set()
        for blob in dict.fromkeys(blobs):
            if blob.digest in self.found.blobs:
                continue
            size = await self._contents.has(blob.digest)
            if size is not None and size != blob.size:
                raise ArchiveRefused(f"the blob {blob.digest} has another size than its descriptor says")
            if size is None:
                if not await self._held(blob.digest):
                    return f"the blob {blob.digest} is neither in the archive nor here"
                held.add(blob.digest)
        self.found.blobs |= {blob.digest: blob for blob in blobs}
        self.found.held |= held
        return None
