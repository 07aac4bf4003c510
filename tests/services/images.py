"""Images made from nothing: OCI layouts with layers of known files, written without any client."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
TAG_ANNOTATION: Final = "org.opencontainers.image.ref.name"
CREATED: Final = "2026-01-01T00:00:00Z"
EXECUTABLE: Final = 0o755


def digest(data: bytes) -> str:
    """The sha256 digest, as it stands in descriptors."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """A reproducible tar of `files`, all executable."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path, data in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), EXECUTABLE
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI layout in a folder, with one tagged image or index."""

    folder: Path
    tag: str
    digest: str
    """Of the tagged manifest or index."""
    layers: tuple[str, ...]

    def blob(self, named: str) -> bytes:
        """The bytes of one blob."""
        return (self.folder / "blobs/sha256" / named.removeprefix("sha256:")).read_bytes()

    def archive(self, target: Path) -> Path:
        """Writes the layout as one tar file, as `ctr images import` reads it."""
        with tarfile.open(target, "w") as archive:
            archive.add(self.folder, arcname=".")
        return target


class _Writer:
    def __init__(self, folder: Path) -> None:
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.folder = folder

    def blob(self, media_type: str, data: bytes) -> dict[str, Any]:
        named = digest(data)
        (self.folder / "blobs/sha256" / named.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": named, "size": len(data)}

    def document(self, media_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        return self.blob(media_type, json.dumps(content).encode())

    def image(self, layers: Sequence[Mapping[str, bytes]], architecture: str) -> tuple[dict[str, Any], list[str]]:
        tars = [layer_tar(files) for files in layers]
        config = {
            "created": CREATED,
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox"], "Cmd": ["cat", "/etc/last"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
            "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(len(tars))],
        }
        held = [self.blob(LAYER, gzip.compress(tar, mtime=0)) for tar in tars]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.document(CONFIG, config),
            "layers": held,
        }
        return self.document(MANIFEST, manifest), [layer["digest"] for layer in held]

    def finish(self, top: Mapping[str, Any], tag: str, layers: Sequence[str]) -> Layout:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**top, "annotations": {TAG_ANNOTATION: tag}}]}
        (self.folder / "index.json").write_text(json.dumps(index))
        return Layout(self.folder, tag, top["digest"], tuple(layers))


def write_image(folder: Path, layers: Sequence[Mapping[str, bytes]], tag: str = "latest") -> Layout:
    """One image for linux/amd64 in the new layout `folder`; `layers` map paths without a leading slash to bytes."""
    writer = _Writer(folder)
    top, digests = writer.image(layers, "amd64")
    return writer.finish(top, tag, digests)


def write_index(folder: Path, platforms: Mapping[str, Sequence[Mapping[str, bytes]]], tag: str = "latest") -> Layout:
    """An index with one image for each architecture of `platforms` in the new layout `folder`."""
    writer = _Writer(folder)
    entries, digests = [], []
    for architecture, layers in platforms.items():
        entry, held = writer.image(layers, architecture)
        entries.append({**entry, "platform": {"architecture": architecture, "os": "linux"}})
        digests += held
    top = writer.document(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    return writer.finish(top, tag, digests)
