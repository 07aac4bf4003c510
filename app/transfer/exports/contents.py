"""What an archive of images holds, file by file, in each of the formats."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from app.oci.digests import Digest, is_digest
from app.oci.errors import BlobUnknown, ManifestUnknown
from app.oci.manifests import OCI_INDEX
from app.proxy.namespace import is_host
from app.registry.blobs import Blob, Blobs
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.keys import Entry
from app.registry.manifests import Manifests
from app.registry.publishing import first_linked
from app.transfer.exports.choosing import Chosen
from app.transfer.exports.gathering import Image, Part, Referrer
from app.transfer.exports.loadable import Loadable, ending
from app.transfer.exports.tarball import Member

IMAGE_NAME: Final = "io.containerd.image.name"
REF_NAME: Final = "org.opencontainers.image.ref.name"
NAME: Final = "edge-registry.name"
"""What an image is called here, for `import`: plain names mean Docker Hub elsewhere, and signatures have no names."""
_HERE: Final = "localhost/"
"""What that begins with where an image was pushed here."""
DELTA: Final = "edge-registry.delta"
"""On an index: which blobs are left out, in words."""
_HINT: Final = "DELTA-for-edge-registry-import-only/README"
"""Where `docker load` finds no manifest.json it looks into the folders, in their order, and complains of the first."""
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_DELTA_LAYOUT: Final = b'{"imageLayoutVersion":"DELTA-for-edge-registry-import-only"}'
"""containerd and Docker with its store refuse it by these words; else they would load an image without its layers."""


class Format(StrEnum):
    """What is written: an OCI layout as one tar file with Docker's manifest.json in it, one without, Docker's own, a folder."""

    COMBINED = "combined"
    OCI = "oci"
    DOCKER = "docker"
    FOLDER = "oci-dir"


@dataclass(frozen=True, slots=True)
class Contents:
    """The files, in their order, and what is left out because the other side has it."""

    members: Sequence[Member]
    left_out: Sequence[Part]


def contents(
    bucket: Bucket,
    images: Sequence[Image],
    loadable: Mapping[str, Loadable],
    form: Format,
    have: Container[Digest] = (),
) -> Contents:
    """Lays out `images`, without the blobs in `have`; `loadable` holds what Docker can have, by the name of its image."""
    if form is Format.DOCKER:
        return _docker(bucket, images, loadable)
    parts = {part.digest: part for image in images for part in image.parts}
    kept = [part for part in _ordered(parts.values()) if part.manifest or part.digest not in have]
    left_out = [part for part in parts.values() if not part.manifest and part.digest in have]
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": _entries(images),
        **({"annotations": {DELTA: _said(left_out)}} if left_out else {}),
    }
    layout = _DELTA_LAYOUT if left_out and form is not Format.FOLDER else _LAYOUT
    members = [_small("oci-layout", layout), _small("index.json", _json(index))]
    if form is Format.COMBINED and loadable and not left_out:
        members.append(_small("manifest.json", _json(_manifest(images, loadable, _blob_path))))
    if left_out:
        members.append(_small(_HINT, f"{_said(left_out)}\n".encode()))
    return Contents([*members, *(_member(bucket, part, _blob_path(part.digest)) for part in kept)], left_out)


def _docker(bucket: Bucket, images: Sequence[Image], loadable: Mapping[str, Loadable]) -> Contents:
    """As crane writes it: layers keep their bytes, so that their digests are the same everywhere."""
    parts = {part.digest: part for image in images for part in image.parts}
    endings = {layer.digest: ending(layer) for image in loadable.values() for layer in image.layers}
    configs = {image.config.digest for image in loadable.values()}
    paths = {digest: f"{_hex(digest)}{kind}" for digest, kind in endings.items()}
    paths |= {digest: f"{_hex(digest)}.json" for digest in configs}
    manifest = _manifest(images, loadable, paths.__getitem__)
    members = [_member(bucket, part, paths[part.digest]) for part in _ordered(parts.values()) if part.digest in paths]
    return Contents([_small("manifest.json", _json(manifest)), *members], [])


def distinct(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of an index.json, such that skopeo can tell them apart.

    What they are called there is their tag, as Docker and containerd write it, or the whole name where several have the
    same tag.
    """
    listed = list(entries)
    often = Counter(entry.get("annotations", {}).get(REF_NAME) for entry in listed)
    return [
        _told_apart(entry) if often[entry.get("annotations", {}).get(REF_NAME)] > 1 else dict(entry) for entry in listed
    ]


def _told_apart(entry: Mapping[str, Any]) -> dict[str, Any]:
    annotations = entry.get("annotations", {})
    if REF_NAME not in annotations or IMAGE_NAME not in annotations:
        return dict(entry)
    return {**entry, "annotations": {**annotations, REF_NAME: _plain(annotations)}}


def _plain(annotations: Mapping[str, str]) -> str:
    """The whole name as people say it: what was pushed here is not called an image of Docker Hub."""
    plain = annotations.get(NAME, "").removeprefix(_HERE)
    return plain if completed(plain) == annotations[IMAGE_NAME] else annotations[IMAGE_NAME]


def completed(name: str) -> str:
    """What Docker, nerdctl and Kubernetes make of the name; under another they do not find an image of containerd."""
    first, slash, _ = name.partition("/")
    if slash and is_host(first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _entries(images: Sequence[Image]) -> list[dict[str, Any]]:
    """What stands in index.json: the images, then what refers to them, each once."""
    found = {str(image.chosen): _entry(image.chosen.entry, _names(image.chosen)) for image in images}
    for referrer in sorted(_referrers(images), key=str):
        found.setdefault(str(referrer), _entry(referrer.entry, {NAME: f"{referrer.subject.home}{referrer.ending}"}))
    return distinct(found.values())


def _names(chosen: Chosen) -> dict[str, str]:
    names = {IMAGE_NAME: completed(str(chosen)), NAME: f"{chosen.home}{chosen.ending}"}
    return names if is_digest(chosen.reference) else names | {REF_NAME: chosen.reference}


def _referrers(images: Iterable[Image]) -> list[Referrer]:
    return [referrer for image in images for referrer in image.referrers]


def _entry(entry: Entry, annotations: Mapping[str, str]) -> dict[str, Any]:
    return {
        "mediaType": entry.media_type,
        "digest": entry.digest,
        "size": entry.size,
        "annotations": dict(annotations),
    }


def _manifest(
    images: Sequence[Image], loadable: Mapping[str, Loadable], path: Callable[[Digest], str]
) -> list[dict[str, Any]]:
    """Docker's manifest.json, with the tags of one image in one entry; `path` says where a blob is."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for image in images:
        known = loadable.get(str(image.chosen))
        if known is None:
            continue
        layers = [path(layer.digest) for layer in known.layers]
        new: dict[str, Any] = {"Config": path(known.config.digest), "RepoTags": [], "Layers": layers}
        entry = found.setdefault((new["Config"], *layers), new)
        if not is_digest(image.chosen.reference):
            entry["RepoTags"].append(str(image.chosen))
    return list(found.values())


def _ordered(parts: Iterable[Part]) -> list[Part]:
    """Manifests first, so that whoever reads the archive once knows early what it lacks; then by digest."""
    return sorted(parts, key=lambda part: (not part.manifest, part.digest))


def _said(left_out: Sequence[Part]) -> str:
    """For people who wonder why an archive cannot be loaded."""
    many = "1 blob is" if len(left_out) == 1 else f"{len(left_out)} blobs are"
    return f"{many} left out, because the other side has them: only `edge-registry import` there can take this archive"


def _small(path: str, data: bytes) -> Member:
    @asynccontextmanager
    async def read() -> AsyncIterator[AsyncIterator[bytes]]:
        yield _once(data)

    return Member(path, len(data), read)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _member(bucket: Bucket, part: Part, path: str) -> Member:
    return Member(
        path, part.size, partial(_manifest_bytes if part.manifest else _blob_bytes, bucket, part), part.digest
    )


@asynccontextmanager
async def _manifest_bytes(bucket: Bucket, part: Part) -> AsyncIterator[AsyncIterator[bytes]]:
    try:
        _, data = await Manifests(bucket, part.name).get(part.digest)
    except ManifestUnknown as exc:
        raise ManifestUnknown(f"{part.name}@{part.digest} was deleted meanwhile") from exc
    yield _once(data)


@asynccontextmanager
async def _blob_bytes(bucket: Bucket, part: Part) -> AsyncIterator[AsyncIterator[bytes]]:
    """From whichever copy is whole; where it was is asked now, because much may have happened since."""
    copy = await translated(first_linked)(bucket, part.name, part.digest)
    if copy is None:
        raise BlobUnknown(f"{part.name}@{part.digest} was deleted meanwhile")
    async with Blobs(bucket, part.name).open(Blob(part.digest, copy)) as reader:
        yield aiter(reader)


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _hex(digest: Digest) -> str:
    return digest.partition(":")[2]


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
