"""Requests to one bucket: signed, bounded, retried within a budget, and their failures as our errors."""

import asyncio
import io
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from storage.budget import RetryBudget
from storage.credentials import ChainCredentials, Credentials, StaticCredentials
from storage.driver import Fence
from storage.errors import (
    AccessDenied,
    ConditionFailed,
    FenceExpired,
    NoStore,
    NotFound,
    OutcomeUnknown,
    StorageError,
    StoreFull,
    Unavailable,
    Unsupported,
)
from storage.s3_xml import parse_fields, parse_late_failure
from storage.settings import S3Settings
from storage.sigv4 import Keys, Signer, encode_path, encode_query

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""Bytes, or a function that yields them from the start each time it is called: a retry sends them again."""

SMALL: Final = 10.0
"""Seconds for a request that carries no payload to speak of, its retries included."""
LARGE: Final = 300.0
"""Seconds for a part, a completion or a copy, its retries included."""

_STREAMS: Final = 1024
"""Bodies read at once; the server's own limit on requests is lower."""
_READ_BUFFER: Final = 512 << 10
_ATTEMPTS: Final = 8
_DENIED: Final = 3
"""How often a denied write is tried: MinIO denies one (403 AccessDenied) whose folder another request is just emptying."""
_AT_ONCE: Final = 1 << 20
"""The most bytes given to a connection in one piece: more would hold up the event loop."""
_CONNECT: Final = 5.0
_SILENCE: Final = 30.0
_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES: Final = frozenset(
    {"RequestTimeout", "SlowDown", "InternalError", "OperationAborted", "IncompleteBody", "BadDigest"}
)
_REFUSALS: Final = (FenceExpired, ConditionFailed, AccessDenied, StoreFull)
"""What is no answer to a write while an earlier attempt of it may have been carried out."""
_FULL_CODES: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})


class _Denied(AccessDenied):
    """The store denies this one request: a policy, or MinIO's folder that went away below it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(slots=True)
class _Request:
    """What is asked, independent of the attempt."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body = None
    length: int | None = None
    fence: Fence | None = None


class S3Client:
    """One bucket. `start` before use."""

    def __init__(self, settings: S3Settings, endpoint: str | None = None) -> None:
        self._settings = settings
        url = urlsplit(endpoint or settings.endpoint or f"https://s3.{settings.region}.amazonaws.com")
        host = url.netloc if settings.path_style else f"{settings.bucket}.{url.netloc}"
        self._base = f"{url.scheme}://{host}"
        self._root = f"{url.path.rstrip('/')}/{settings.bucket}" if settings.path_style else url.path.rstrip("/")
        self._secure = url.scheme == "https"
        self._signer = Signer(host, settings.region)
        self._credentials = _credentials(settings)
        self._retries = RetryBudget()
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the connection pools; sends nothing. Streams have their own: slow readers hold up nobody's requests."""
        context = await asyncio.to_thread(self._context) if self._secure else True
        self._session = _session(self._settings.connections, context)
        self._streams = _session(_STREAMS, context)

    async def close(self) -> None:
        """Closes the pools."""
        for session in (self._session, self._streams):
            if session is not None:
                await session.close()

    async def call(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        length: int | None = None,
        fence: Fence | None = None,
        within: float = SMALL,
    ) -> Answer:
        """One operation, repeated on passing failures for at most `within` seconds. Raises storage.errors.

        A write whose earlier attempt got no definite answer ends in OutcomeUnknown unless a repetition succeeds.
        """
        request = _Request(method, key, query or {}, headers or {}, body, length, fence)
        deadline = time.monotonic() + within
        failure: StorageError = Unavailable("the store gave no answer")
        reads = method in ("GET", "HEAD")
        settled = True  # every attempt so far had a definite answer, or never reached the store
        for attempt in range(_ATTEMPTS):
            try:
                answer = await self._once(request, deadline - time.monotonic())
                refusal = _failure(answer, key, fence)
                if refusal is None:
                    self._retries.earn()
                    return answer
                failure = refusal
                settled = settled and not isinstance(failure, Unavailable)
            except aiohttp.ClientConnectorError as exc:
                failure = Unavailable(f"the store at {self._base} cannot be reached: {_reason(exc)}")
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                failure, settled = Unavailable(f"no answer from the store: {type(exc).__name__}"), False
            except StorageError as exc:  # from the body
                failure = exc
            denied = isinstance(failure, _Denied) and method in ("PUT", "POST") and attempt + 1 < _DENIED
            if not isinstance(failure, Unavailable) and not denied:
                if not (settled or reads) and isinstance(failure, _REFUSALS):
                    raise OutcomeUnknown(str(failure)) from failure
                raise failure
            pause = random.uniform(0, min(1.0, 0.05 * 2**attempt))  # noqa: S311  (jitter)
            # A policy that denies for good must not take the retries from everybody else.
            if time.monotonic() + pause >= deadline or not (denied or self._retries.spend()):
                break
            await asyncio.sleep(pause)
        raise failure if settled or reads else OutcomeUnknown(str(failure))

    @asynccontextmanager
    async def stream(self, key: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """One GET whose body is read by the caller; a failure before the body is retried. Raises storage.errors."""
        response = await self._opened(_Request("GET", key, {}, headers))
        try:
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def presign(
        self, key: str, query: Mapping[str, str], lifetime: int, headers: Mapping[str, str] | None = None
    ) -> str:
        """A URL with which anybody may GET the key for `lifetime` seconds from now."""
        path = encode_path(f"{self._root}/{key}")
        keys = await self._credentials.keys()
        signed = self._signer.query(keys, "GET", path, query, headers or {}, time.time(), lifetime)
        return f"{self._base}{path}?{signed}"

    def source(self, key: str) -> str:
        """The value of `x-amz-copy-source` for a key of this bucket."""
        return encode_path(f"/{self._settings.bucket}/{key}")

    async def _opened(self, request: _Request) -> aiohttp.ClientResponse:
        deadline = time.monotonic() + SMALL
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
        failure: StorageError = Unavailable("the store gave no answer")
        for attempt in range(_ATTEMPTS):
            try:
                response = await self._send(self._streams, request, timeout)
                if response.status in (200, 206):
                    self._retries.earn()
                    return response
                answer = Answer(response.status, response.headers, await response.read())
                failure = _failure(answer, request.key, None) or Unavailable(f"the store answered {answer.status}")
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                failure = Unavailable(f"no answer from the store: {_reason(exc)}")
            pause = random.uniform(0, min(1.0, 0.05 * 2**attempt))  # noqa: S311  (jitter)
            if (
                not isinstance(failure, Unavailable)
                or time.monotonic() + pause >= deadline
                or not self._retries.spend()
            ):
                break
            await asyncio.sleep(pause)
        raise failure

    async def _once(self, request: _Request, left: float) -> Answer:
        timeout = aiohttp.ClientTimeout(total=max(left, 0.1), sock_connect=_CONNECT, sock_read=_SILENCE)
        response = await self._send(self._session, request, timeout)
        try:
            body = await response.read()
        finally:
            response.release()
        return Answer(response.status, response.headers, body)

    async def _send(
        self, session: aiohttp.ClientSession | None, request: _Request, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        assert session is not None, "start() first"  # noqa: S101
        url, headers = self._signed(request, await self._credentials.keys())
        data: AsyncIterator[bytes] | io.BytesIO | bytes | None
        data = request.body() if callable(request.body) else request.body or None  # no payload object for no bytes
        if isinstance(data, bytes) and len(data) > _AT_ONCE:
            data = io.BytesIO(data)
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        try:
            return await session.request(
                request.method,
                URL(url, encoded=True),
                data=data,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectionError as exc:
            if isinstance(exc.__cause__, StorageError):  # the body is read from the store, and that failed
                raise exc.__cause__ from exc
            raise

    def _signed(self, request: _Request, keys: Keys) -> tuple[str, dict[str, str]]:
        path = encode_path(f"{self._root}/{request.key}" if request.key else self._root or "/")
        if request.fence is not None:
            at, lifetime = request.fence.signed_at, max(1, round(request.fence.lifetime))
            query = self._signer.query(keys, request.method, path, request.query, request.headers, at, lifetime)
            return f"{self._base}{path}?{query}", dict(request.headers)
        query = encode_query(request.query)
        headers = self._signer.headers(keys, request.method, path, query, request.headers)
        return (f"{self._base}{path}?{query}" if query else f"{self._base}{path}"), headers

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._settings.ca is not None:
            context.load_verify_locations(self._settings.ca)
        if not self._settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class _Connection(ResponseHandler):
    """A connection that sends nothing more once it is closed, which it is only when idle or given up.

    asyncio would go on sending what is buffered: up to a part, counted by nobody, for as long as a store takes that
    stopped reading. At the end of the event loop the socket would be left open.
    """

    def close(self) -> None:
        self.abort()


def _session(limit: int, context: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=50, ssl=context)
    # It has no public name; a test proves its effect.
    connector._factory = partial(_Connection, asyncio.get_running_loop())  # type: ignore[assignment]  # noqa: SLF001
    session = aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Content-Type", "Accept"),
        headers={"Accept-Encoding": "identity"},  # MinIO gzips listings otherwise
        read_bufsize=_READ_BUFFER,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    # aiohttp would repeat a PUT or DELETE whose answer was lost, and show the second answer alone: a write of
    # unknown outcome would look refused, and a publisher would release its intent.
    session._retry_connection = False  # noqa: SLF001  (it has no public name; a test proves its effect)
    return session


def _credentials(settings: S3Settings) -> Credentials:
    if settings.access_key and settings.secret_key:
        return StaticCredentials(Keys(settings.access_key, settings.secret_key.get_secret_value()))
    return ChainCredentials()


def _reason(exc: BaseException) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"its certificate cannot be trusted ({exc.certificate_error})"[:200]
    if isinstance(exc, ssl.SSLError | aiohttp.ClientSSLError):
        return "TLS failed: does it speak TLS at this port?"
    number = exc.os_error.errno if isinstance(exc, aiohttp.ClientConnectorError) else getattr(exc, "errno", None)
    return os.strerror(number) if number and number > 0 else type(exc).__name__


def _failure(answer: Answer, key: str, fence: Fence | None) -> StorageError | None:
    """The error that an answer means, or None."""
    if answer.status < 300:
        return _late_failure(answer, fence) if b"<Error>" in answer.body[:200] else None
    fields = parse_fields(answer.body)
    code, message = fields.get("Code", ""), fields.get("Message", "")
    if code in _FULL_CODES or answer.status == 507:
        return StoreFull("the store is full")
    if answer.status in _TRANSIENT or code in _TRANSIENT_CODES:
        return Unavailable(f"the store answered {answer.status} {code}".rstrip())
    if answer.status == 404:
        return NoStore("the bucket is not there") if code == "NoSuchBucket" or not key else NotFound(key)
    if answer.status in (409, 412):
        return ConditionFailed(key)
    if answer.status == 501:
        return Unsupported(message)
    if answer.status == 403:
        if fence is not None and "expired" in message.lower():
            return FenceExpired("the store refused a write whose deadline has passed")
        return (_Denied if code == "AccessDenied" else AccessDenied)(_denial(code))
    return StorageError(f"the store answered {answer.status} {code}".rstrip())


def _late_failure(answer: Answer, fence: Fence | None) -> StorageError | None:
    """What went wrong after a 200: a completion, a copy, or some keys of a bulk delete, which may be repeated whole."""
    failure = parse_late_failure(answer.body)
    if failure is None:
        return None
    code, message = failure
    if fence is not None and "expired" in message.lower():  # MinIO says so key by key
        return FenceExpired("the store refused a write whose deadline has passed")
    return Unavailable(f"the store failed late: {code}")


def _denial(code: str) -> str:
    if code == "RequestTimeTooSkewed":
        return "the store refuses this machine's clock: it differs by more than 15 minutes"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return f"the store refuses these credentials ({code}): check storage.s3.access_key and secret_key"
    return f"the store denies access ({code or 'Forbidden'}): check the user's policy"
