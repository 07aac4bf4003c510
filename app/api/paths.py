"""The one parser of `/v2` paths: which endpoint, whose repository, what in it."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a path addresses; also the `handler` label of metrics."""

    BASE = "base"
    CATALOG = "catalog"
    BLOB = "blob"
    UPLOADS = "blob_upload"
    UPLOAD = "blob_upload_chunk"
    MANIFEST = "manifest"
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path. `name` and `reference` are still the client's text: endpoints make them valid or refuse them."""

    kind: Kind
    name: str = ""
    reference: str = ""


_BASE = Path(Kind.BASE)
_CATALOG = Path(Kind.CATALOG)
_ENDINGS = {"blobs": Kind.BLOB, "manifests": Kind.MANIFEST, "referrers": Kind.REFERRERS}


def parse_path(path: str) -> Path | None:
    """The decoded path of a request, or None when it is no part of the API. Reads from the right: names hold any word."""
    if path in ("/v2/", "/v2"):
        return _BASE
    if path == "/v2/_catalog":
        return _CATALOG
    head, _, last = path[4:].rpartition("/")
    name, _, ending = head.rpartition("/")
    if ending == "uploads" and name.endswith("/blobs"):
        return Path(Kind.UPLOAD if last else Kind.UPLOADS, name[:-6], last)
    if ending == "tags" and last == "list":
        return Path(Kind.TAGS, name)
    if ending == "blobs" and last == "uploads":
        return Path(Kind.UPLOADS, name)
    kind = _ENDINGS.get(ending)
    return Path(kind, name, last) if kind and name and last else None
