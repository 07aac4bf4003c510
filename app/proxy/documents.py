"""What upstreams send: JSON documents, the pages they come in, the digests they are said to have."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from app.oci.digests import Digest, parse_digest
from app.oci.errors import DigestInvalid, ManifestInvalid
from app.oci.manifests import Manifest
from app.proxy.client import Reply
from app.proxy.errors import Portal
from app.proxy.upstreams import Upstream
from app.registry.manifests import parsed

BYTES: Final = 8 << 20
"""The largest list that is read."""
_VAGUE: Final = frozenset({"application/json", "application/octet-stream", "text/plain"})
_NEXT: Final = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?', re.IGNORECASE)


def document(source: Upstream, reply: Reply) -> dict[str, Any]:
    """The parsed body. Raises Portal for what is no JSON object."""
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Portal(f"{source.name} answers with something that is no list")
    return found


def said_digest(reply: Reply) -> Digest | None:
    """What an answer says that its content hashes to; None where it says nothing, or nonsense."""
    try:
        return parse_digest(reply.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None


def next_page(reply: Reply) -> dict[str, str] | None:
    """The query of the page that follows (RFC 8288), or None. Host and path are ours to say, not the answer's."""
    found = _NEXT.search(reply.headers.get("Link", ""))
    if found is None:
        return None
    return {name: values[0] for name, values in parse_qs(urlsplit(found[1]).query).items()}


async def parsed_manifest(reply: Reply, *, certain: bool) -> tuple[Manifest, str | None]:
    """Reads the manifest as the type that the answer says, or, where that is nonsense, as the one it says itself.

    JSON that says nothing of itself is taken for a manifest only where it is `certain` that a registry sent it.
    Raises ManifestInvalid.
    """
    said = reply.headers.get("Content-Type")
    choices: Sequence[str | None] = (said, None)
    if said is None or said.partition(";")[0].strip() in _VAGUE:
        choices = (None, "application/json") if certain else (None,)
    failures: list[ManifestInvalid] = []
    for content_type in choices:
        try:
            return await parsed(reply.body, content_type), content_type
        except ManifestInvalid as exc:
            failures.append(exc)
    raise failures[0]
