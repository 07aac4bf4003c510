"""Connections to one upstream and to the hosts it sends us to."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import aiohttp
from yarl import URL

from app.proxy.addresses import AddressRefused, AddressRule, GuardedResolver
from app.proxy.errors import Portal, Unreachable, UpstreamError
from app.proxy.settings import UpstreamSettings
from app.proxy.upstream_tls import Contexts, Report, open_contexts

READ: Final = 512 << 10
"""Bytes that are buffered of an answer, and the most that are handed on at once."""

_KEEPALIVE: Final = 30.0
_HEADER: Final = 32 << 10
"""Bytes of one header: signed addresses of some clouds are longer than aiohttp expects."""
_STALLS: Final = 8
"""How many times `stall_timeout` a small answer may take in all."""
_CERTIFICATE_FAULTS: Final = {
    10: "has expired",
    9: "is not valid yet",
    18: "is signed by itself",
    19: "is signed by an authority that is not trusted",
    20: "is signed by an authority that is not trusted",
    21: "is signed by an authority that is not trusted",
    62: "is for another host",
    64: "is for another address",
}
"""OpenSSL's verification codes in words, where they can be said better than it does."""


class Transport:
    """One upstream. `start` before use; every failure becomes an UpstreamError, and what is waited for is bounded."""

    def __init__(self, settings: UpstreamSettings, origin: URL, report: Report) -> None:
        """`origin` is what is dialled; its host and the hosts in `token_hosts` may have private addresses."""
        self._name = settings.name
        self._settings = settings
        self._host = origin.host or ""
        named = [self._host, *(host.rpartition(":")[0] or host for host in settings.token_hosts)]
        self._rule = AddressRule(named, allow_private=settings.allow_private)
        self._report = report
        self._session: aiohttp.ClientSession | None = None
        self._contexts: Contexts | None = None

    @property
    def patience(self) -> float:
        """Seconds without a byte of content after which an answer is given up."""
        return self._settings.stall_timeout

    async def start(self) -> None:
        """Reads the certificates, and dials nobody. Raises StartError."""
        self._contexts = await asyncio.to_thread(open_contexts, self._settings.tls, self._name, self._report)
        agent = await asyncio.to_thread(_agent)
        self._session = aiohttp.ClientSession(
            # How many transfers run at once is decided elsewhere; a waiting HEAD must not hang behind them.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEPALIVE, resolver=GuardedResolver(self._rule), ttl_dns_cache=10
            ),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Content-Type"),
            headers={"Accept-Encoding": "identity", "User-Agent": agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ,
            trust_env=False,
            max_line_size=_HEADER,
            max_field_size=_HEADER,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._settings.connect_timeout,
                sock_connect=self._settings.connect_timeout,
                sock_read=self._settings.stall_timeout,
            ),
        )

    async def close(self) -> None:
        """Closes all connections; running transfers break off."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], *, form: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, whose answer is read by the caller; no redirect is followed.

        Entering raises Unreachable, or Portal for a host whose address is not allowed. Leaving gives the connection
        back when the answer was read to its end, and closes it otherwise.
        """
        assert self._session is not None, "start() first"  # noqa: S101
        assert self._contexts is not None  # noqa: S101
        own = url.host == self._host
        try:
            self._rule.check_literal(url.host or "")
            async with asyncio.timeout(self._settings.connect_timeout + _STALLS * self._settings.stall_timeout):
                response = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=form,
                    ssl=self._contexts.own if own else self._contexts.others,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self.failure(exc, url) from None  # the text of the original may hold a signed address
        try:
            yield response
        finally:
            response.release() if response.content.at_eof() else response.close()

    async def read(self, response: aiohttp.ClientResponse, limit: int) -> bytes | None:
        """The whole body of an answer; None above `limit` bytes. Raises Unreachable, and Portal for an encoded body."""
        check_encoding(response, self._name)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_STALLS * self._settings.stall_timeout):  # a byte now and then is no progress
                while chunk := await response.content.read(READ):
                    size += len(chunk)
                    if size > limit:
                        return None
                    parts.append(chunk)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self.failure(exc, response.url) from None
        return b"".join(parts)

    async def drain(self, response: aiohttp.ClientResponse, limit: int = 64 << 10) -> bytes:
        """What a refusal says, up to `limit` bytes; nothing where it breaks off: its status says enough."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._settings.stall_timeout):
                while limit > 0 and (chunk := await response.content.read(limit)):
                    limit -= len(chunk)
                    parts.append(chunk)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return b""
        return b"".join(parts)

    def failure(self, exc: Exception, url: URL) -> UpstreamError:
        """What an exception of a connection means. Its reason holds host names, and nothing else of the URL."""
        where = self._name if url.host == self._host else f"{self._name}: {(url.raw_host or '')[:100]}"
        if isinstance(exc, aiohttp.InvalidURL):
            return Portal(f"{where} is no host name that can be dialled")
        for cause in _causes(exc):
            if isinstance(cause, AddressRefused):
                return Portal(f"{where} has a private address, which is refused; see allow_private")
            if isinstance(cause, aiohttp.ClientError):  # some are SSLErrors too, without what those say
                continue
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Unreachable(f"{where} cannot be trusted: its certificate {_fault(cause)}")
            if isinstance(cause, ssl.SSLError):
                return Unreachable(f"{where}: TLS failed: {_alert(cause)}")
        return Unreachable(f"{where} {_trouble(exc, self._settings)}")


def check_encoding(response: aiohttp.ClientResponse, name: str) -> None:
    """Raises Portal for a body that is compressed although we asked for none: its digest would be another."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Portal(f"{name} answered an encoded body, which was not asked for")


def _trouble(exc: Exception, settings: UpstreamSettings) -> str:
    if isinstance(exc, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "cannot be reached: its name cannot be resolved"
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return f"cannot be reached: no connection within {settings.connect_timeout:g} s"
    if isinstance(exc, TimeoutError):
        return f"sent nothing for {settings.stall_timeout:g} s"
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno
        return f"cannot be reached: {os.strerror(number) if number and number > 0 else 'no connection'}"
    if isinstance(exc, aiohttp.ClientResponseError):
        return "does not speak HTTP"
    return "broke off"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = exc
    for _ in range(8):
        if seen is None:
            return
        yield seen
        inner = seen.os_error if isinstance(seen, aiohttp.ClientConnectorError) else None
        if isinstance(seen, aiohttp.ClientConnectorCertificateError):
            inner = seen.certificate_error  # type: ignore[assignment]
        seen = inner or seen.__cause__ or seen.__context__


def _fault(exc: ssl.SSLCertVerificationError) -> str:
    return _CERTIFICATE_FAULTS.get(exc.verify_code, f"is refused: {exc.verify_message}")


def _alert(exc: ssl.SSLError) -> str:
    reason = (exc.reason or "no reason given").replace("_", " ").lower()
    if "certificate required" in reason or "handshake failure" in reason:
        return f"{reason} (does it ask for a client certificate?)"
    return reason


def _agent() -> str:
    try:
        return f"edge-registry/{version('edge-registry')}"
    except PackageNotFoundError:
        return "edge-registry"
