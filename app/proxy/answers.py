"""What the answers of an upstream mean: the status codes, and the headers that say how the body is to be read."""

import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from multidict import CIMultiDictProxy

from app.proxy.errors import Denied, Failing, Missing, Portal, RateLimited, UpstreamError

_LONGEST_PAUSE: Final = 6 * 3600.0
"""Seconds of a Retry-After that are believed."""
_CONTENT_RANGE: Final = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_DEFINITE: Final = frozenset(
    {"NAME_UNKNOWN", "NAME_INVALID", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "TAG_INVALID", "DIGEST_INVALID"}
)
"""Codes of the specification that say no for good, whatever status they come with below 500."""


@dataclass
class Reply:
    """A whole answer; `headers` look up names in any case."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the bytes of an answer stand in the blob: `start`, `end` (exclusive) and `size` of the whole, if known."""

    start: int
    end: int | None
    size: int | None


def refusal(response: aiohttp.ClientResponse, body: bytes, name: str) -> UpstreamError:
    """The error that an answer without content means.

    404, 410 and the specification's own words for it are Missing; 429 RateLimited; 401 and 403 Denied; 408 and 5xx
    Failing, except 511, which a captive portal answers, and so are 416 and what is no status of a registry: Portal.
    Other 4xx are Failing: the registry cannot answer this, and asking again later is all that can be done.
    """
    status, after = response.status, retry_after(response.headers)
    if status in (404, 410) or (400 <= status < 500 and status not in (401, 403, 429) and _codes(body) & _DEFINITE):
        return Missing(f"{name} does not have that")
    if status == 429:
        return RateLimited(f"{name} has had too many requests", retry_after=after)
    if status in (401, 403):
        return Denied(f"{name} denies access ({status})")
    if status in (416, 511) or not 400 <= status < 600:
        return Portal(f"{name} answered {status}, which no registry should")
    # nginx says so in HTML, with this status, once the handshake is over
    hint = "; it wants a client certificate, or another one" if status == 400 and b"SSL certificate" in body else ""
    return Failing(f"{name} answered {status}{hint}", retry_after=after)


def counts(failure: UpstreamError, status: int) -> bool:
    """Whether a refusal says something about the health of the upstream, and not about what it was asked alone."""
    return isinstance(failure, Portal) or (isinstance(failure, Failing) and (status == 408 or status >= 500))


def check_content(response: aiohttp.ClientResponse, name: str) -> None:
    """Raises Portal for HTML, which no registry answers with 200."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Portal(f"{name} answered a web page: something else answers in its place")


def extent(response: aiohttp.ClientResponse, asked: int, name: str) -> Extent:
    """What part of a blob a 200 or 206 holds. Raises Portal where it is not what was `asked`: bytes from there on."""
    length = _length(response)
    if response.status != 206:
        return Extent(0, length, length)
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None:
        raise Portal(f"{name} answered a part of a blob without saying which")
    first, last = int(found[1]), int(found[2])
    size = None if found[3] == "*" else int(found[3])
    if first != asked or last < first or (size is not None and last >= size):
        raise Portal(f"{name} answered another part of a blob than it was asked for")
    if length is not None and length != last + 1 - first:
        raise Portal(f"{name} answered a part of a blob of another length than it says")
    return Extent(first, last + 1, size)


def retry_after(headers: CIMultiDictProxy[str]) -> float | None:
    """Seconds that Retry-After asks for, as a number or a date, at most six hours; None where it says nothing."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text):
        return min(float(text), _LONGEST_PAUSE)
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or time.time()  # its own clock, where it says what that shows
    return min(max(until - now, 0.0), _LONGEST_PAUSE)


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _length(response: aiohttp.ClientResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _codes(body: bytes) -> set[str]:
    try:
        errors = json.loads(body)["errors"]
        return {str(error["code"]).upper() for error in errors}
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()
