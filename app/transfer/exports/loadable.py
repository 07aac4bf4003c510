"""What of an image `docker load` can take: one platform, a configuration and layers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.oci.descriptors import Descriptor, parse_descriptor
from app.oci.digests import Digest
from app.oci.platforms import choose
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.stored import first_entry, read_manifest
from app.transfer.exports.gathering import Image

_CONFIGS: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_ENDINGS: Final = {
    "application/vnd.oci.image.layer.v1.tar": ".tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": ".tar.gz",
    "application/vnd.oci.image.layer.v1.tar+zstd": ".tar.zst",
    "application/vnd.docker.image.rootfs.diff.tar": ".tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": ".tar.gz",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": ".tar.zst",
}


@dataclass(frozen=True, slots=True)
class Loadable:
    """One image as `docker load` has it: no manifest, so its digest there is another than here."""

    config: Descriptor
    layers: Sequence[Descriptor]

    @property
    def zstd(self) -> bool:
        """Whether Docker before version 23 cannot read the layers."""
        return any(ending(layer) == ".tar.zst" for layer in self.layers)


@translated
async def loadable(bucket: Bucket, image: Image, platform: str, *, else_only: bool = True) -> Loadable | None:
    """The image for `platform`, of those that go along; None where there is none that Docker could run.

    `else_only`: where none is for that platform, the only one that there is.
    """
    if not image.children:
        return await _read(bucket, image, image.chosen.entry.digest)
    offered = [child.document for child in image.children]
    found = await _first(bucket, image, choose(offered, [platform])[0])
    if found is None and else_only and len(image.platforms) == 1:
        found = await _first(bucket, image, [child.digest for child in image.children])
    return found


def ending(layer: Descriptor) -> str:
    """Of a layer's file name."""
    return _ENDINGS[layer.media_type]


async def _first(bucket: Bucket, image: Image, digests: Sequence[Digest]) -> Loadable | None:
    for digest in digests:
        found = await _read(bucket, image, digest)
        if found is not None:
            return found
    return None


async def _read(bucket: Bucket, image: Image, digest: Digest) -> Loadable | None:
    """A manifest as an image; None for charts, signatures, and images whose layers are to be had elsewhere."""
    entry = await first_entry(bucket, image.chosen.name, digest)
    if entry is None:
        return None
    document: dict[str, Any] = json.loads(await read_manifest(bucket, image.chosen.name, entry))
    if "config" not in document:
        return None
    config = parse_descriptor(document["config"], "config")
    layers = [parse_descriptor(layer, "layers") for layer in document.get("layers") or []]
    if config.media_type not in _CONFIGS or any(layer.media_type not in _ENDINGS for layer in layers):
        return None
    return Loadable(config, layers)
