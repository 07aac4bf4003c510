"""Answers that the front gives itself: errors as registries write them, signed links, a rate limit as Docker Hub's."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

ELSEWHERE = "/elsewhere"
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def line(self) -> str:
        """The first line."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        return f"HTTP/1.1 {self.status} {phrase}"


def error(status: int, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error as registries write it."""
    code = _CODES.get(status, "UNKNOWN")
    if status == 404:
        code = "BLOB_UNKNOWN" if "/blobs/" in path else "MANIFEST_UNKNOWN"
    document = {"errors": [{"code": code, "message": f"the front says {status}", "detail": None}]}
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())


class Links:
    """URLs that are good for a while, as object stores sign them."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def sign(self, path: str, query: str, life: float) -> str:
        """The signed path and query of the same content."""
        until = f"{time.time() + life:.3f}"
        mark = {"X-Expires": until, "X-Signature": self._mark(path, until)}
        return f"{ELSEWHERE}{path}?{urlencode([*parse_qsl(query), *mark.items()])}"

    def refuse(self, path: str, query: str, authorization: str | None) -> Reply | None:
        """None where the link is good; `path` without the prefix. Refuses two ways of saying who asks, as S3 does."""
        said = dict(parse_qsl(query))
        if authorization is not None:
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        until = said.get("X-Expires", "0")
        if not hmac.compare_digest(self._mark(path, until), said.get("X-Signature", "")):
            return _xml(403, "SignatureDoesNotMatch", "The signature does not match")
        if float(until) < time.time():
            return _xml(403, "AccessDenied", "Request has expired")
        return None

    def _mark(self, path: str, until: str) -> str:
        return hmac.new(self._secret, f"{path} {until}".encode(), hashlib.sha256).hexdigest()


def _xml(status: int, code: str, message: str) -> Reply:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, {"Content-Type": "application/xml"}, text.encode())


@dataclass
class HubLimit:
    """Docker Hub's pull limit: each GET of a manifest counts, HEAD is free, both are told; 429 once none is left."""

    limit: int = 100
    remaining: int | None = None
    window: int = 21600
    retry_after: int | None = None
    source: str = field(default="192.0.2.1")

    def count(self, method: str) -> tuple[bool, dict[str, str]]:
        """Whether the request may pass, and the headers of its answer."""
        left = self.limit if self.remaining is None else self.remaining
        passes = method == "HEAD" or left > 0
        if method == "GET" and left:
            left -= 1
        self.remaining = left
        headers = {
            "ratelimit-limit": f"{self.limit};w={self.window}",
            "ratelimit-remaining": f"{left};w={self.window}",
            "docker-ratelimit-source": self.source,
        }
        if not passes and self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return passes, headers
