"""Archives of images, good ones and bad ones, written byte by byte; and a registry in memory that they are brought into."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from app.oci.digests import Digest
from app.oci.manifests import parse_manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.namespace import Namespace
from app.proxy.settings import UpstreamSettings
from app.registry.bucket import Bucket
from app.registry.registry import Registry
from app.registry.settings import RegistrySettings
from app.transfer.imports.importing import Imported, Importer, Wish
from app.transfer.settings import TransferSettings
from storage import Capabilities, Driver
from storage.memory import MemoryDriver
from tests.services.client import INDEX, MANIFEST, descriptor, digest_of, encode, make_image, make_index

NAME: Final = "io.containerd.image.name"
REFERENCE: Final = "org.opencontainers.image.ref.name"

How = Literal["file", "stream"]
"""A file is read where it is needed; a stream once, and what may be needed is stored as it comes."""

Files = list[tuple[str, bytes]]


def tar(files: Sequence[tuple[str, bytes]], links: Mapping[str, str] | None = None) -> bytes:
    """A tar of plain files in this order, then of symbolic links to these targets."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for path, leads in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, leads
            archive.addfile(member)
    return target.getvalue()


def header(
    name: bytes, kind: bytes = b"0", size: bytes | int = 0, link: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    """One header of a tar, its checksum right, whatever else is wrong in it."""
    large = isinstance(size, int) and size >= 8**11
    said = size if isinstance(size, bytes) else b"\x80" + size.to_bytes(11, "big") if large else b"%011o\0" % size
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + said.ljust(12, b"\0") + b"00000000000\0"
    block += b" " * 8 + kind + link.ljust(100, b"\0") + magic
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    """A member's bytes, filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


END: Final = bytes(1024)


def blob(data: bytes) -> tuple[str, bytes]:
    """A blob's member of a layout."""
    return f"blobs/{digest_of(data).replace(':', '/')}", data


def entry(data: bytes, media_type: str = MANIFEST, **annotations: str) -> dict[str, Any]:
    """What index.json says of a manifest; `name` and `tag` become the annotations of containerd and of the specification."""
    said = {{"name": NAME, "tag": REFERENCE}.get(key, key): text for key, text in annotations.items()}
    return {**descriptor(data, media_type), **({"annotations": said} if said else {})}


def index_json(*entries: Mapping[str, Any]) -> tuple[str, bytes]:
    """The member that lists the images of a layout."""
    return "index.json", encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)})


LAYOUT: Final = ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


@dataclass(frozen=True)
class Picture:
    """An image as a registry has it."""

    data: bytes
    blobs: Sequence[bytes]

    @property
    def digest(self) -> Digest:
        return Digest(digest_of(self.data))

    @property
    def files(self) -> Files:
        """Its members of a layout."""
        return [blob(data) for data in (*self.blobs, self.data)]


def picture(*layers: bytes, config: bytes = b"{}", **fields: Any) -> Picture:
    """An image of these layers, kept as they are."""
    made = make_image(*layers, config=config, **fields)
    return Picture(made.data, made.blobs)


def layout(*images: tuple[Picture, str], last: bool = False) -> Files:
    """A layout of images with whole names, which `ctr` writes first and Docker `last`."""
    files = {path: data for image, _ in images for path, data in image.files}
    lists = [LAYOUT, index_json(*[entry(image.data, name=name) for image, name in images])]
    return [*files.items(), *lists] if last else [*lists, *files.items()]


def several(
    *images: tuple[str, Picture], annotations: Mapping[str, str] | None = None, here: Sequence[str] = ()
) -> Files:
    """A layout of one index of images by architecture; those that are not `here`, if any is named, are left out."""
    children = [
        {**descriptor(image.data, MANIFEST), "platform": {"os": "linux", "architecture": name}}
        for name, image in images
    ]
    top = make_index(children)
    files = [file for name, image in images if not here or name in here for file in image.files]
    return [
        LAYOUT,
        index_json(entry(top, INDEX, **(annotations or {"name": "docker.io/team/many:v1"}))),
        blob(top),
        *files,
    ]


def config_of(*layers: bytes) -> bytes:
    """A config that names layers which are not compressed."""
    diff_ids = [digest_of(layer) for layer in layers]
    return encode({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def docker_save(names: Sequence[str] | None, *layers: bytes) -> Files:
    """As Docker wrote before 25: a folder for each layer, the list last."""
    config = config_of(*layers)
    folders = [hashlib.sha256(b"%d" % place + layer).hexdigest() for place, layer in enumerate(layers)]
    files: Files = []
    for folder, layer in zip(folders, layers, strict=True):
        files += [(f"{folder}/VERSION", b"1.0"), (f"{folder}/json", b"{}"), (f"{folder}/layer.tar", layer)]
    path = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = {"Config": path, "RepoTags": names, "Layers": [f"{folder}/layer.tar" for folder in folders]}
    return [*files, (path, config), ("manifest.json", json.dumps([listed]).encode())]


def crane(name: str, *layers: bytes) -> Files:
    """As `crane pull` writes: layers compressed, called by their digest."""
    config = config_of(*layers)
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    paths = [f"{hashlib.sha256(data).hexdigest()}.tar.gz" for data in packed]
    listed = {"Config": digest_of(config), "RepoTags": [name], "Layers": paths}
    return [
        (digest_of(config), config),
        *zip(paths, packed, strict=True),
        ("manifest.json", json.dumps([listed]).encode()),
    ]


@dataclass
class Target:
    """A registry in memory; `upstreams` are names of such, or their settings, `own` its own."""

    folder: Path
    upstreams: Sequence[str | UpstreamSettings] = ()
    own: Sequence[str] = ()
    limit: int = 64 << 20
    driver: Driver = field(default_factory=MemoryDriver)

    def __post_init__(self) -> None:
        rules = RegistrySettings(immutable_tags=["fixed/*:*"])
        self.alarms: list[str] = []
        self.bucket = Bucket(self.driver, rules, Capabilities(), lambda event, _: self.alarms.append(event))
        self.registry = Registry(self.bucket)
        names = [
            Namespace(UpstreamSettings(name=said, url="https://127.0.0.1:1") if isinstance(said, str) else said)
            for said in self.upstreams
        ]
        self.importer = Importer(self.bucket, names, self.own, TransferSettings(max_bytes=self.limit))

    async def bring(self, data: bytes | Files, how: How = "file", **wish: Any) -> list[Imported]:
        """Imports an archive."""
        archive = data if isinstance(data, bytes) else tar(data)
        if how == "stream":
            return await self.importer.from_stream(chunked(archive), Wish(**wish))
        path = self.folder / f"{hashlib.sha256(archive).hexdigest()[:16]}.tar"
        path.write_bytes(archive)
        return await self.importer.from_path(path, Wish(**wish))

    async def whole(self, name: str, reference: str) -> Digest:
        """The digest of a manifest that is here with all that it names, every byte looked at."""
        repository = self.registry.repository(Name(name))
        if ":" in reference:
            stored, data = await repository.manifests.get(Digest(reference))
        else:
            stored, data = await repository.manifests.get_tag(Tag(reference))
        assert digest_of(data) == stored.digest
        manifest = parse_manifest(data, stored.media_type)
        for child in manifest.children:
            await self.whole(name, child.digest)
        for named in manifest.blobs:
            async with repository.blobs.open(await repository.blobs.stat(named.digest)) as reader:
                found = b"".join([chunk async for chunk in reader])
            assert (digest_of(found), len(found)) == (named.digest, named.size)
        return stored.digest

    async def keys(self) -> list[str]:
        """All that is in the store, once what runs in the background has ended."""
        await self.bucket.close()
        page = await self.driver.list("")
        assert not page.more
        return [found.key for found in page.entries]

    async def loose(self) -> set[str]:
        """Bytes that nothing links."""
        found = await self.keys()
        linked = {key.rpartition("/")[2].partition(".")[0] for key in found if "/_blobs/" in key}
        return {key for key in found if key.startswith("data/") and key.removeprefix("data/") not in linked}


async def chunked(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    """A stream that comes in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
