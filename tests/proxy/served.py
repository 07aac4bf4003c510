"""A server whose answers a test writes itself, and a client before it: for what no real registry does on demand."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from app.proxy.breaker import Breaker
from app.proxy.client import UpstreamClient
from app.proxy.credentials.login import Credentials, Login
from app.proxy.rates import RateLimit
from app.proxy.settings import UpstreamSettings

_LONG = 64 << 10
"""Bytes of an address that a server here takes; aiohttp's own limit is lower."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Served:
    """What a server was asked. `base` is its URL by address, `named` the same by a name: another host to a client."""

    port: int
    scheme: str
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def named(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.raw_path}" for request in self.requests]

    def authorizations(self, path: str = "/v2/") -> list[str | None]:
        """The Authorization headers of requests whose path begins so, in order."""
        return [request.headers.get("Authorization") for request in self.requests if request.path.startswith(path)]


@asynccontextmanager
async def serve(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Answers everything with `handler` on a free port of 127.0.0.1."""
    served = Served(0, "https" if context else "http")

    async def recorded(request: web.BaseRequest) -> web.StreamResponse:
        served.requests.append(request)
        served.bodies.append(await request.text())
        return await handler(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(
        web.Server(recorded, access_log=None, max_line_size=_LONG, max_field_size=_LONG), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        served.port = runner.addresses[0][1]
        yield served
    finally:
        await runner.cleanup()


class Logins:
    """Credentials that give these logins one after the other, the next one whenever one was refused."""

    def __init__(self, *logins: Login | None, identity: str = "test") -> None:
        self.identity = identity
        self.asked: list[tuple[str, bool]] = []
        self._logins = list(logins)

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        self.asked.append((host, renew))
        if renew and len(self._logins) > 1:
            self._logins.pop(0)
        return self._logins[0]


def anonymous() -> Logins:
    return Logins(None, identity="anonymous")


@dataclass
class Dialled:
    """A client with what it shares with others."""

    client: UpstreamClient
    breaker: Breaker
    rates: RateLimit
    reports: list[tuple[str, str]]


@asynccontextmanager
async def dial(url: str, credentials: Credentials | None = None, **settings: Any) -> AsyncIterator[Dialled]:
    """A started client of the upstream `up.test` at this URL."""
    breaker, rates, reports = Breaker("up.test", threshold=100), RateLimit(0), list[tuple[str, str]]()
    chosen = UpstreamSettings.model_validate({"name": "up.test", "url": url, "stall_timeout": 5, **settings})
    client = UpstreamClient(chosen, credentials or anonymous(), breaker, rates, lambda *line: reports.append(line))
    await client.start()
    try:
        yield Dialled(client, breaker, rates, reports)
    finally:
        await client.close()
