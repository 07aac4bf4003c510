"""JSON documents that upstreams send, and the pages they come in."""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from app.proxy.client import Reply
from app.proxy.errors import Portal
from app.proxy.upstreams import Upstream

BYTES: Final = 8 << 20
"""The largest list that is read."""
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


def next_page(reply: Reply) -> dict[str, str] | None:
    """The query of the page that follows (RFC 8288), or None. Host and path are ours to say, not the answer's."""
    found = _NEXT.search(reply.headers.get("Link", ""))
    if found is None:
        return None
    return {name: values[0] for name, values in parse_qs(urlsplit(found[1]).query).items()}
