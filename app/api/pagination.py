"""Pages of lists: `n`, `last`, and the Link to the next one (RFC 8288)."""

from typing import Final
from urllib.parse import urlencode

from app.api.exchange import Exchange, Headers
from app.oci.errors import PaginationInvalid

MOST: Final = 1000
"""Entries of one answer; a larger `n` gets this many and a Link."""


def page_size(exchange: Exchange) -> int:
    """What `n` asks for, at most MOST. Raises PaginationInvalid for anything but a decimal number."""
    text = exchange.parameter("n")
    if text is None:
        return MOST
    if not text.isdecimal() or not text.isascii() or len(text) > 19:
        raise PaginationInvalid(detail={"n": text[:32]})
    return min(int(text), MOST)


def next_link(path: str, **parameters: str | int | None) -> Headers:
    """The Link header of the page that follows; parameters that are None are left out."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return [(b"link", f'<{path}?{query}>; rel="next"'.encode())]
