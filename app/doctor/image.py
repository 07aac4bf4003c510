"""A tiny image that nobody else has: its bytes are new each time."""

import gzip
import io
import json
import secrets
import tarfile
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest, digest_of

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Image:
    """`blobs` are its layer and its config, by digest."""

    manifest: bytes
    blobs: dict[Digest, bytes]

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return digest_of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.manifest) + sum(map(len, self.blobs.values()))


def tiny_image() -> Image:
    """One layer with one file of random text."""
    file = io.BytesIO()
    data = secrets.token_hex(256).encode()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("doctor")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    layer = gzip.compress(file.getvalue(), mtime=0)
    history = {"type": "layers", "diff_ids": [digest_of(file.getvalue())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": history}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": digest_of(layer), "size": len(layer)}],
    }
    return Image(json.dumps(manifest).encode(), {digest_of(layer): layer, digest_of(config): config})
