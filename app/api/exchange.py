"""One request and its answer, over ASGI: what handlers read and write. Thin, because the hot path goes through it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs

from app.auth.caller import Caller
from app.oci.errors import EncodingUnsupported, RegistryError, SizeInvalid, TooLarge, TooSlow
from app.registry.notes import Notes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_COMMON: Final[Headers] = [
    (b"docker-distribution-api-version", b"registry/2.0"),
    (b"x-content-type-options", b"nosniff"),
]
_ENTRIES: Final = 1000
"""The most errors of one answer: an index may name 20,000 manifests that are not here, and nobody reads 4 MiB of them."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT: Final = "edge-registry.client"
"""The extension of ASGI in which `gone` is a function that says whether the client has closed its connection. Where the
server does not have it, clients are believed to stay."""
_JSON: Final = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed the connection before it had sent all, or taken all."""


class Pace:
    """The least that a client must send or take: `rate` bytes a second, on average over `window` seconds."""

    def __init__(self, rate: int, window: float) -> None:
        self.rate = rate
        self.window = window

    def longest(self, size: int) -> float:
        """Seconds that `size` bytes may take, at most four windows: what is taken all at once shows no rate."""
        return min(max(self.window, size / self.rate), 4 * self.window)


class Exchange:
    """A request, and the one answer to it."""

    __slots__ = (
        "_headers", "_query", "_receive", "_send", "caller", "id", "notes", "pace", "received", "scope", "sent", "status"
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, pace: Pace) -> None:
        self.scope = scope
        self.pace = pace
        self.caller = Caller(None)
        self.notes: Notes | None = None
        self.status = 0
        self.received = 0
        self.sent = 0
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, bytes] | None = None
        self._query: dict[str, list[str]] | None = None
        given = self.header(b"x-request-id")
        self.id = given if given and _ID.fullmatch(given) else secrets.token_hex(8)
        """Names the request in the log; a client or proxy may bring one."""

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method

    @property
    def peer(self) -> str:
        """The address that the connection comes from."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str | None:
        """A request header by its lower-case name; the last one where it stands twice."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self, name: str) -> list[str]:
        """Every value of a query parameter. Raises SizeInvalid for more than 200 of them."""
        if self._query is None:
            text = self.scope["query_string"].decode("latin-1")
            try:
                self._query = parse_qs(text, keep_blank_values=True, max_num_fields=200) if text else {}
            except ValueError as exc:
                raise SizeInvalid("too many parameters") from exc
        return self._query.get(name, [])

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.query(name)
        return values[0] if values else None

    def content_length(self) -> int | None:
        """Bytes that the client announced, or None for a chunked body."""
        text = self.header(b"content-length")
        return int(text) if text and text.isdecimal() and len(text) < 20 else None

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises TooLarge above `limit` bytes, TooSlow, ClientGone."""
        announced = self.content_length()
        if announced is not None and announced > limit:
            raise TooLarge(f"at most {limit} bytes")
        chunks: list[bytes] = []
        async for chunk in self.chunks():
            chunks.append(chunk)
            if self.received > limit:
                raise TooLarge(f"at most {limit} bytes")
        return b"".join(chunks)

    async def chunks(self, exactly: int | None = None) -> AsyncIterator[bytes]:
        """The body as it comes. Raises TooSlow, ClientGone, and SizeInvalid when it is not `exactly` so many bytes."""
        if self.header(b"content-encoding") not in (None, "", "identity"):
            raise EncodingUnsupported()
        now = asyncio.get_running_loop().time
        quota = self.pace.rate * self.pace.window
        deadline, counted, more = now() + self.pace.window, 0, True
        while more:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self._receive()
            except TimeoutError as exc:
                raise TooSlow(headers={"Connection": "close"}) from exc  # else the rest may trickle in for ever
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            self.received += len(chunk)
            counted += len(chunk)
            if counted >= quota:
                deadline, counted = now() + self.pace.window, 0
            if exactly is not None and (self.received > exactly or (not more and self.received != exactly)):
                raise SizeInvalid(detail={"received": self.received, "expected": exactly})
            if chunk:
                before = now()
                yield chunk
                deadline += now() - before  # the time that we took is not the client's

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """A whole answer."""
        if body or status not in (204, 304):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._start(status, headers)
        self.sent += len(body)
        await self._send({"type": "http.response.body", "body": body})

    async def head(self, status: int, headers: Headers) -> None:
        """The answer to HEAD: `headers` already say the length."""
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": b""})

    async def json(self, status: int, document: Any, headers: Headers | None = None) -> None:
        """A JSON answer; `headers` may bring a content type of their own."""
        headers = headers or []
        if not any(name == b"content-type" for name, _ in headers):
            headers = [_JSON, *headers]
        await self.answer(status, headers, json.dumps(document, separators=(",", ":")).encode())

    async def stream(self, status: int, headers: Headers, chunks: AsyncIterator[bytes]) -> None:
        """Sends chunks whose total length `headers` announce. Whatever fails from here on cuts the connection."""
        await self._start(status, headers)
        now, renew = asyncio.get_running_loop().time, 0.0
        gone = self.scope.get("extensions", {}).get(CLIENT, {}).get("gone")
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in chunks:
                    if (at := now()) > renew:  # once a second: moving a timer for each chunk is felt
                        patience.reschedule(at + 1 + self.pace.longest(len(chunk)))
                        renew = at + 1
                    if gone is not None and gone():
                        raise ClientGone
                    if not chunk:  # nothing yet, which is not the client's fault
                        continue
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                    self.sent += len(chunk)
                await self._send({"type": "http.response.body", "body": b""})
        except TimeoutError as exc:
            raise TooSlow("the client took the answer too slowly") from exc

    async def fail(self, error: RegistryError) -> None:
        """An error in the specification's form; of very many entries, the first."""
        headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
        await self.json(error.status, {"errors": error.entries()[:_ENTRIES]}, headers)

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*_COMMON, (b"x-request-id", self.id.encode()), *_noted(self.notes), *headers],
            }
        )


def _noted(notes: Notes | None) -> Headers:
    """The headers of what the repository says beside its content."""
    if notes is None:
        return []
    found: Headers = []
    if notes.namespace is not None:
        found.append((b"oci-namespace", notes.namespace.encode("ascii", "replace")))
    if notes.age is not None:
        found.append((b"age", b"%d" % notes.age))
    if notes.warning is not None:
        text = re.sub(r"[^ !#-\[\]-~]", "?", notes.warning)[:1024]
        found.append((b"warning", f'299 - "{text}"'.encode()))
    return found
