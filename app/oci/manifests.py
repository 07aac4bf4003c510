"""Manifests: which kinds there are, and what one refers to. Bytes are never changed, only read."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.oci.descriptors import Descriptor, parse_descriptor
from app.oci.errors import ManifestInvalid

MAX_BYTES: Final = 4 << 20
"""The largest manifest: what containerd accepts, and the least the specification asks for."""

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MINIO_FOLDER: Final = "__XLDIR__"
"""MinIO's mark of a folder on disk: a key that ends so is listed as one. No media type in the world does."""
_VERSION_2: Final = INDEXES | {OCI_MANIFEST, DOCKER_MANIFEST}
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
_FOREIGN: Final = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the registry needs to know of a manifest: all else is the client's."""

    media_type: str
    blobs: Sequence[Descriptor]
    children: Sequence[Descriptor]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: dict[str, str] | None

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests rather than blobs."""
        return self.media_type in INDEXES


def parse_media_type(text: str) -> str:
    """A media type without its parameters, or ManifestInvalid (RFC 6838, section 4.2)."""
    media_type = text.partition(";")[0].strip()
    if not _MEDIA_TYPE.fullmatch(media_type) or media_type.endswith(MINIO_FOLDER):
        raise ManifestInvalid("invalid Content-Type", detail={"mediaType": media_type[:200]})
    return media_type


def parse_manifest(data: bytes, content_type: str | None) -> Manifest:
    """Reads a manifest of at most MAX_BYTES. Raises ManifestInvalid with the reason.

    A document that could be taken for two kinds is refused (CVE-2021-41190), as is schema 1.
    """
    document = _load(data)
    ancient = document.get("schemaVersion") == 1  # its bytes alone name no media type
    media_type = _SCHEMA_1 if ancient else _media_type(document, content_type)
    if media_type.startswith(_SCHEMA_1):
        raise ManifestInvalid("schema 1 manifests are not supported: push the image with a client newer than 2016")
    _refuse_confusion(document, media_type)
    _demand_shape(document, media_type)
    subject = document.get("subject")
    return Manifest(
        media_type=media_type,
        blobs=_blobs(document, media_type),
        children=_children(document, media_type),
        subject=None if subject is None else parse_descriptor(subject, "subject"),
        artifact_type=_artifact_type(document, media_type),
        annotations=_annotations(document),
    )


def digests_named(data: bytes) -> set[str]:
    """Every digest that stands in any string of a stored manifest, whatever its kind (design, section 5, rule 4).

    Raises ManifestInvalid when the bytes are no JSON: then nothing may be concluded.
    """
    found: set[str] = set()
    rest: list[Any] = [_load(data)]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.update(_DIGEST.findall(item))
        elif isinstance(item, dict):
            rest.extend(item)
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return found


def _refuse_confusion(document: dict[str, Any], media_type: str) -> None:
    lists_manifests = "manifests" in document
    if lists_manifests and ("layers" in document or "config" in document):
        raise ManifestInvalid("a manifest cannot have both layers and manifests")
    if lists_manifests and media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
        raise ManifestInvalid("an image manifest cannot list manifests")


def _demand_shape(document: dict[str, Any], media_type: str) -> None:
    if media_type not in _VERSION_2:
        return
    if document.get("schemaVersion") != 2:
        raise ManifestInvalid("schemaVersion is not 2")
    if media_type not in INDEXES and not ("config" in document or "layers" in document):
        raise ManifestInvalid("an image manifest needs a config and layers")


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise ManifestInvalid("not a JSON document") from exc
    if not isinstance(document, dict):
        raise ManifestInvalid("not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ManifestInvalid("a key stands twice in one object")
    return found


def _media_type(document: dict[str, Any], content_type: str | None) -> str:
    declared = document.get("mediaType")
    if declared is not None and not isinstance(declared, str):
        raise ManifestInvalid("mediaType is not a string")
    if content_type is None:
        return parse_media_type(declared or _guess(document))
    media_type = parse_media_type(content_type)
    if declared and declared != media_type:
        raise ManifestInvalid("mediaType differs from Content-Type", detail={"mediaType": declared[:200]})
    return media_type


def _guess(document: dict[str, Any]) -> str:
    if "manifests" in document:
        return OCI_INDEX
    if "layers" in document or "config" in document:
        return OCI_MANIFEST
    raise ManifestInvalid("the manifest says no media type")


def _blobs(document: dict[str, Any], media_type: str) -> list[Descriptor]:
    if media_type in INDEXES:
        return []
    found = [] if document.get("config") is None else [parse_descriptor(document["config"], "config")]
    for field in ("layers", "blobs"):
        found += [parse_descriptor(item, field) for item in _list(document, field)]
    return [blob for blob in found if blob.media_type not in _FOREIGN]


def _children(document: dict[str, Any], media_type: str) -> list[Descriptor]:
    if media_type in INDEXES and "manifests" not in document:
        raise ManifestInvalid("an index needs manifests")
    return [parse_descriptor(item, "manifests") for item in _list(document, "manifests")]


def _list(document: dict[str, Any], field: str) -> list[Any]:
    items = document.get(field)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ManifestInvalid(f"{field} is not a list")
    return items


def _artifact_type(document: dict[str, Any], media_type: str) -> str | None:
    """The specification's rule for referrers: its own, else the config's media type; an index has no config."""
    own = document.get("artifactType")
    if isinstance(own, str) and own:
        return own
    config = document.get("config")
    if media_type in INDEXES or not isinstance(config, dict):
        return None
    fallback = config.get("mediaType")
    return fallback if isinstance(fallback, str) and fallback else None


def _annotations(document: dict[str, Any]) -> dict[str, str] | None:
    value = document.get("annotations")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ManifestInvalid("annotations is not a map of strings")
    return value
