"""What a tag's object says, read strictly."""

import json
from typing import Any

from app.oci.digests import parse_digest
from app.oci.errors import RegistryError
from app.oci.manifests import parse_media_type
from app.registry.keys import Entry


def said(body: bytes) -> tuple[Entry, str]:
    """What a tag names, and who wrote it ("" where that is not said), as app/registry/tags.py writes that.

    Raises ValueError for nonsense.
    """
    try:
        fields: dict[str, Any] = json.loads(body)
        digest = parse_digest(fields["digest"])
        entry = Entry(digest, str(fields["nonce"]), parse_media_type(fields["mediaType"]), int(fields["size"]))
        float(fields["time"])
        return entry, str(fields.get("by") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError, RecursionError) as exc:
        raise ValueError("it does not say what a tag does") from exc
