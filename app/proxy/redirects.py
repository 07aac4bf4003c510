"""Redirects: where an upstream may send us."""

from typing import Final

from yarl import URL

from app.proxy.addresses import is_host
from app.proxy.errors import Portal

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MOST: Final = 5
"""Redirects that one request follows."""

_LONGEST: Final = 16 << 10


def next_address(current: URL, location: str | None, name: str) -> URL:
    """The absolute URL to ask next. `name` is the upstream's. Raises Portal, whose reason names no more than hosts.

    A user and password in the Location are dropped, and so is its fragment.
    """
    if not location or len(location) > _LONGEST:
        raise Portal(f"{name} answered a redirect that leads nowhere")
    try:
        # Signed addresses are passed on as they came: another encoding of the same path is another signature.
        target = current.join(URL(location, encoded=True)).with_user(None).with_fragment(None)
        port, host = target.port, target.raw_host if target.host else None  # `host` raises for what is no IDNA
    except (ValueError, UnicodeError):
        raise Portal(f"{name} answered a redirect that leads nowhere") from None
    if target.scheme not in ("http", "https") or not host or not port:
        raise Portal(f"{name} answered a redirect that leads to no web server")
    if current.scheme == "https" and target.scheme == "http":
        raise Portal(f"{name} redirects from https to http, which is refused")
    if not is_host(host) or not str(target).isascii() or any(character <= " " for character in str(target)):
        raise Portal(f"{name} answered a redirect that leads nowhere")
    return target


def same_origin(one: URL, other: URL) -> bool:
    """Whether scheme, host and port are the same: only then may one see what was meant for the other."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
