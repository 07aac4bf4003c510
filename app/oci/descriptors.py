"""Descriptors: what a manifest says about other content."""

from dataclasses import dataclass
from typing import Any

from app.oci.digests import Digest, parse_digest
from app.oci.errors import DigestInvalid, ManifestInvalid


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content named by digest; `size` in bytes."""

    media_type: str
    digest: Digest
    size: int


def parse_descriptor(value: Any, where: str) -> Descriptor:
    """A descriptor from parsed JSON; `where` names the field in ManifestInvalid."""
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where} is not a descriptor")
    media_type, digest, size = value.get("mediaType", ""), value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not isinstance(media_type, str):
        raise ManifestInvalid(f"{where} needs a digest and a media type")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestInvalid(f"{where} needs a size")
    try:
        return Descriptor(media_type, parse_digest(digest), size)
    except DigestInvalid as exc:
        raise ManifestInvalid(f"{where} has an invalid digest", detail={"digest": digest[:200]}) from exc
