"""OCI image layouts, read: `index.json` says what there is, `blobs/` holds it by digest.

What `ctr image export`, skopeo, crane, buildx and Docker since 25 write; the names of images stand in annotations.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.oci.descriptors import Descriptor, parse_descriptor
from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.transfer.errors import ArchiveRefused, shown
from app.transfer.imports.archive import Archive, blob_path
from app.transfer.imports.listed import Listed
from app.transfer.imports.stash import Kept

INDEX: Final = "index.json"
_OWN: Final = "edge-registry.name"
"""What `edge-registry export` says that an image is called in a registry of this kind."""
_NAME: Final = "io.containerd.image.name"
_REFERENCE: Final = "org.opencontainers.image.ref.name"


class Layout:
    """The images of a layout."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tops: list[Descriptor] = []

    async def images(self) -> Sequence[Listed]:
        self._tops, listed = await asyncio.to_thread(_read, await self._archive.document(INDEX))
        return listed

    async def top(self, listed: Listed) -> Descriptor:
        return self._tops[listed.place]

    async def manifest(self, digest: Digest) -> bytes | None:
        if await self._archive.size(blob_path(digest)) is None:
            return None
        data = await self._archive.document(blob_path(digest))
        if await asyncio.to_thread(digest_of, data, algorithm_of(digest)) != digest:
            raise ArchiveRefused(f"{blob_path(digest)} has other bytes than its name says")
        return data

    async def has(self, digest: Digest) -> int | None:
        return await self._archive.size(blob_path(digest))

    async def keep(self, digest: Digest) -> Kept:
        return await self._archive.keep(blob_path(digest), digest)


def _read(data: bytes) -> tuple[list[Descriptor], list[Listed]]:
    """What index.json lists. Raises ArchiveRefused."""
    document = parsed(data, INDEX)
    entries = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ArchiveRefused("index.json lists no manifests")
    try:
        tops = [parse_descriptor(entry, "index.json") for entry in entries]
    except ManifestInvalid as exc:
        raise ArchiveRefused(exc.message) from exc
    return tops, [_listed(entry, place) for place, entry in enumerate(entries)]


def _listed(entry: Mapping[str, Any], place: int) -> Listed:
    said = entry.get("annotations")
    annotations = said if isinstance(said, dict) else {}
    own, name, reference = (annotations.get(key) for key in (_OWN, _NAME, _REFERENCE))
    for whole in (own, name):
        if isinstance(whole, str) and whole:
            return Listed(whole, "", place)
    if not isinstance(reference, str):
        return Listed("", "", place)
    # The specification lets a whole name stand here, and some write one; skopeo and buildah write the tag alone.
    return Listed(reference, "", place) if any(mark in reference for mark in "/:@") else Listed("", reference, place)


def parsed(data: bytes, called: str) -> Any:
    """A JSON document of an archive. Raises ArchiveRefused."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ArchiveRefused(f"{shown(called)} is no JSON document") from exc
