"""A store in memory that is filled with images and exported from, and what archives of it hold."""

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.namespace import Namespace
from app.proxy.settings import UpstreamSettings
from app.registry.bucket import Bucket
from app.registry.registry import Registry
from app.registry.settings import RegistrySettings
from app.transfer.exports.exporting import Export, Exporter, Format, Wish
from storage import Capabilities, Driver
from storage.memory import MemoryDriver

CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


async def stream(data: bytes) -> AsyncIterator[bytes]:
    """A request's body."""
    yield data


def described(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


class Shelf:
    """One store, with names of upstreams; `alarms` are what it lost."""

    def __init__(self, driver: Driver | None = None, upstreams: Sequence[str] = (), default: str | None = None) -> None:
        self.driver = driver or MemoryDriver()
        self.alarms: list[str] = []
        self.bucket = Bucket(
            self.driver, RegistrySettings(), Capabilities(), lambda event, _fields: self.alarms.append(event)
        )
        names = [Namespace(UpstreamSettings(name=name, url="https://127.0.0.1:1")) for name in upstreams]
        self.exporter = Exporter(self.bucket, names, default)

    async def blob(self, repository: str, data: bytes) -> Digest:
        digest = digest_of(data)
        await Registry(self.bucket).repository(Name(repository)).uploads.put(digest, stream(data))
        return digest

    async def manifest(self, repository: str, tag: str | None, document: Mapping[str, Any], **more: Any) -> bytes:
        data = json.dumps(document, indent=3).encode()
        tagged = [Tag(tag)] if tag else []
        put = Registry(self.bucket).repository(Name(repository)).manifests.put
        await put(data, None, digest=None, tagged=tagged, by=None, **more)
        return data

    async def image(
        self, repository: str, tag: str | None, *layers: bytes, platform: str = "linux/amd64", **fields: Any
    ) -> bytes:
        """An image of gzipped layers; returns its manifest."""
        system, architecture = platform.split("/")
        config = json.dumps({"os": system, "architecture": architecture, "rootfs": {"diff_ids": []}}).encode()
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        for data in (config, *packed):
            await self.blob(repository, data)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(CONFIG, config),
            "layers": [described(LAYER, data) for data in packed],
        }
        return await self.manifest(repository, tag, document | fields)

    async def index(self, repository: str, tag: str, images: Mapping[str, bytes], **more: Any) -> bytes:
        """An index of these manifests, by platform; `more` goes to the push."""
        children = [
            described(OCI_MANIFEST, data, platform=dict(zip(("os", "architecture"), name.split("/"), strict=True)))
            for name, data in images.items()
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return await self.manifest(repository, tag, document, **more)

    async def prepare(self, *references: str, **wish: Any) -> Export:
        return await self.exporter.prepare(Wish(references, **wish))

    async def archive(self, *references: str, **wish: Any) -> "Unpacked":
        """Exported, and read again."""
        tarball = (await self.prepare(*references, **wish)).tarball()
        data = b"".join([chunk async for chunk in tarball.chunks()])
        assert len(data) == tarball.size
        return Unpacked(data)

    async def close(self) -> None:
        await self.bucket.close()


class Unpacked:
    """An archive: its files in their order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            self.members = archive.getmembers()
            files = {member.name: archive.extractfile(member) for member in self.members if member.isreg()}
            self.files = {name: file.read() for name, file in files.items() if file}

    @property
    def index(self) -> Any:
        return json.loads(self.files["index.json"])

    @property
    def manifest(self) -> Any:
        return json.loads(self.files["manifest.json"])

    @property
    def blobs(self) -> set[str]:
        """Digests of the blobs and manifests, each of which is what its name says."""
        found = {path: data for path, data in self.files.items() if path.startswith("blobs/")}
        for path, data in found.items():
            algorithm, hexadecimal = path.split("/")[1:]
            assert digest_of(data, algorithm) == f"{algorithm}:{hexadecimal}"
        return {path.removeprefix("blobs/").replace("/", ":") for path in found}

    def names(self, annotation: str) -> list[str | None]:
        """What that annotation says of each entry of the index."""
        return [entry["annotations"].get(annotation) for entry in self.index["manifests"]]


def inventory_file(folder: Path, *digests: str) -> Path:
    path = folder / "have.txt"
    path.write_text("\n".join(["# edge-registry inventory 1", *digests, ""]))
    return path


__all__ = ["Export", "Format", "Shelf", "Unpacked", "described", "inventory_file"]
