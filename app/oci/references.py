"""References: a tag or a digest."""

import re
from typing import Final, NewType

from app.oci.digests import Digest, is_digest, parse_digest
from app.oci.errors import TagInvalid

Tag = NewType("Tag", str)
"""A valid tag; only `parse_tag` makes one. Tags are case-sensitive."""

_SHAPE: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def parse_tag(text: str) -> Tag:
    """The tag, or TagInvalid (specification, "Pulling manifests")."""
    if not _SHAPE.fullmatch(text):
        raise TagInvalid(detail={"tag": text[:128]})
    return Tag(text)


def parse_reference(text: str) -> tuple[Tag | None, Digest | None]:
    """Exactly one of both is set. Raises TagInvalid or DigestInvalid."""
    if is_digest(text):
        return None, parse_digest(text)
    return parse_tag(text), None
