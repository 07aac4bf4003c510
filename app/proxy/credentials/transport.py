"""The requests of one token exchange: how google-auth reaches the network, with an end and without surprises."""

import json
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import certifi
import urllib3

from app.proxy.errors import Unreachable

_CONNECT_SECONDS: Final = 3.0
_LARGEST: Final = 256 << 10
_STRIDE: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, in the shape that google-auth expects."""

    status: int
    headers: Mapping[str, str]
    data: bytes = field(repr=False)


class Transport:
    """Called as `google.auth.transport.Request` is.

    Whatever is worth another try raises Unreachable, which google-auth does not know and so does not retry: it would do
    so for half a minute. That is no answer, 408, 429, 5xx, and a redirect, which is never followed: it would carry
    secrets elsewhere. `status` is that of the last answer, `refusal` its error code, such as `invalid_grant`.
    """

    def __init__(self, context: ssl.SSLContext, seconds: float) -> None:
        """All requests together may take `seconds`, but for the look-up of a name, which cannot be bounded."""
        self._pool = urllib3.PoolManager(ssl_context=context)
        self._end = time.monotonic() + seconds
        self.status: int | None = None
        self.refusal = ""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            response = self._request(method, url, body, headers)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise Unreachable(f"{host} does not answer ({type(exc).__name__})") from None
        self.status = response.status
        if response.status in (408, 429) or response.status >= 500 or 300 <= response.status < 400:
            raise Unreachable(f"{host} answers {response.status}")
        self.refusal = _code(response.data) if response.status >= 400 else ""
        return response

    def close(self) -> None:
        """Closes its connections."""
        self._pool.clear()

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None) -> Response:
        left = self._left()
        answer = self._pool.request(
            method,
            url,
            body=body,
            headers=dict(headers or {}),
            timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, left), read=left),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        with closing(answer):
            return Response(answer.status, dict(answer.headers), self._read(answer))

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        data = bytearray()
        while chunk := answer.read1(_STRIDE):
            data += chunk
            self._left()
            if len(data) > _LARGEST:
                raise urllib3.exceptions.ResponseError("too large")
        return bytes(data)

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def trust() -> ssl.SSLContext:
    """The system's authorities, and Mozilla's for images that have none. Blocking."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _code(data: bytes) -> str:
    """The error's code in the answer of OAuth (`invalid_grant`) or of a Google API (`PERMISSION_DENIED`), else nothing."""
    try:
        content: Any = json.loads(data)
    except ValueError:
        return ""
    code = content.get("error") if isinstance(content, dict) else None
    if isinstance(code, dict):
        code = code.get("status")
    return code if isinstance(code, str) and len(code) <= 40 and code.replace("_", "").isalpha() else ""
