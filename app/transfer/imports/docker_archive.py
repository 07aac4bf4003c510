"""Archives of `docker save` before 25, `podman save` and `crane pull`, read: `manifest.json` names a config and layers.

They hold no manifest, so one is made, always the same from the same archive. Bytes are kept as they are: layers that are
not compressed stay so, and have the digest that the config names; compressed ones have the digest that they had in a registry.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest, digest_of, parse_digest
from app.oci.errors import DigestInvalid
from app.oci.manifests import DOCKER_MANIFEST
from app.transfer.errors import ArchiveRefused, shown
from app.transfer.imports.archive import Archive, blob_at
from app.transfer.imports.layout import parsed
from app.transfer.imports.listed import Listed
from app.transfer.imports.stash import Kept
from app.transfer.imports.tar_reader import clean

LIST: Final = "manifest.json"
_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_COMPRESSED: Final = ((b"\x1f\x8b", f"{_LAYER}.gzip"), (b"\x28\xb5\x2f\xfd", f"{_LAYER}.zstd"))
_MOST_LAYERS: Final = 4096
_MANIFESTS: Final = 32 << 20
"""Bytes of all manifests that are made of one archive, which lie in memory: whole systems have a few KiB."""


class DockerArchive:
    """The images of such an archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._entries: list[Any] = []
        self._tops: dict[int, Descriptor] = {}
        self._manifests: dict[Digest, bytes] = {}
        self._made = 0
        self._blobs: dict[Digest, str] = {}

    async def images(self) -> Sequence[Listed]:
        entries = await asyncio.to_thread(parsed, await self._archive.document(LIST), LIST)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ArchiveRefused("manifest.json lists no images")
        self._entries = entries
        found: list[Listed] = []
        for place, entry in enumerate(entries):
            names = entry.get("RepoTags") or [""]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ArchiveRefused("the RepoTags of manifest.json are no list of names")
            found += [Listed(name, "", place) for name in names]
        return found

    async def top(self, listed: Listed) -> Descriptor:
        if listed.place not in self._tops:
            self._tops[listed.place] = await self._top(self._entries[listed.place])
        return self._tops[listed.place]

    async def _top(self, entry: Mapping[str, Any]) -> Descriptor:
        """Makes the manifest of an image. Raises ArchiveRefused, Unavailable."""
        config, layers = entry.get("Config"), entry.get("Layers") or []
        if not isinstance(config, str) or not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
            raise ArchiveRefused("manifest.json names no config, or no layers")
        config = clean(config)
        named = await self._diff_ids(config)
        if len(named) != len(layers) or not all(isinstance(layer, str) for layer in layers):
            raise ArchiveRefused(f"{shown(config)} names {len(named)} layers, and manifest.json {len(layers)}")
        described = [await self._layer(path, diff_id) for path, diff_id in zip(layers, named, strict=True)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": await self._described(config, _CONFIG, blob_at(config)),
            "layers": described,
        }
        data = json.dumps(manifest, indent=3).encode()
        digest = digest_of(data)
        self._made += len(data)
        if self._made > _MANIFESTS:
            raise ArchiveRefused("the images of the archive have too many layers")
        self._manifests[digest] = data
        return Descriptor(DOCKER_MANIFEST, digest, len(data))

    async def manifest(self, digest: Digest) -> bytes | None:
        return self._manifests.get(digest)

    async def has(self, digest: Digest) -> int | None:
        path = self._blobs.get(digest)
        return None if path is None else await self._archive.size(path)

    async def keep(self, digest: Digest) -> Kept:
        return await self._archive.keep(self._blobs[digest], digest)

    async def _diff_ids(self, config: str) -> Sequence[Digest]:
        """The digests of the layers, not compressed, as the config names them."""
        if await self._archive.size(config) is None:
            raise ArchiveRefused(f"{shown(config)} is not in the archive")
        document = await asyncio.to_thread(parsed, await self._archive.document(config), config)
        rootfs = document.get("rootfs") if isinstance(document, dict) else None
        found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        try:
            return [parse_digest(str(text)) for text in found or ()] if isinstance(found, list | None) else []
        except DigestInvalid as exc:
            raise ArchiveRefused(f"{shown(config)} names a layer by what is no digest") from exc

    async def _layer(self, path: str, diff_id: Digest) -> Mapping[str, Any]:
        path = clean(path)
        if await self._archive.size(path) is None:
            raise ArchiveRefused(f"{shown(path)} is not in the archive")
        head = await self._archive.head(path)
        for magic, media_type in _COMPRESSED:
            if head.startswith(magic):
                return await self._described(path, media_type, blob_at(path))
        return await self._described(path, _LAYER, diff_id)

    async def _described(self, path: str, media_type: str, expected: Digest | None) -> Mapping[str, Any]:
        kept = await self._archive.keep(path, expected)
        self._blobs[kept.digest] = path
        return {"mediaType": media_type, "size": kept.size, "digest": kept.digest}
