"""What admins do over HTTP, below `/api/v1/`: identified, authorized, handled, and logged, here and once.

Plain ASGI, because archives come and go as streams. A handler is a line of `routes`, which the wiring gives.
"""

import ipaddress
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from app.api.answering import CLIENT_GONE, answer, identify, note
from app.api.exchange import Exchange, Pace, Receive, Scope, Send
from app.api.v2 import Load
from app.auth.access import Access, Action
from app.auth.authenticator import Authenticator
from app.auth.caller import Caller
from app.oci.errors import Denied, NotFound, Unavailable, Unsupported
from app.oci.names import Name
from app.telemetry.logs import Level, Log
from app.telemetry.metrics import Metrics

PREFIX: Final = "/api/v1/"
AT_ONCE: Final = 3
"""Archives and inventories that one process takes and gives at once: each holds megabytes, and asks much of the store."""
_ELSEWHERE: Final = frozenset({"cross-site", "same-site"})
"""What browsers say in Sec-Fetch-Site for a page that is not ours."""


class Grants:
    """What the caller of one request may do. `user` is its name, `read_only` says that nothing is taken in here."""

    def __init__(self, access: Access, caller: Caller, *, read_only: bool) -> None:
        self._access = access
        self._caller = caller
        self.user = caller.name
        self.read_only = read_only

    def administers(self, name: Name) -> bool:
        """Whether the caller has the admin right on a repository."""
        return self._access.allows(self._caller, Action.ADMIN, name)

    def may_pull(self, name: Name) -> bool:
        """Whether the caller may pull from a repository."""
        return self._access.allows(self._caller, Action.PULL, name)


Handler = Callable[[Exchange, Grants], Awaitable[None]]
"""Answers a request of somebody who has the admin right on at least one repository, and asks `Grants` about each."""

Routes = Mapping[str, Mapping[str, Handler]]
"""By path, then by method."""


@dataclass(frozen=True, slots=True)
class AdminRules:
    """What holds at a listener. Where nobody is asked for credentials and everybody on this machine is an admin, `hosts` are
    the names under which it may be asked besides this machine's own; None: any."""

    read_only: bool
    hosts: Collection[str] | None


class AdminApi:
    """An ASGI application for paths that begin with PREFIX, as one listener offers it."""

    def __init__(
        self,
        routes: Routes,
        authenticator: Authenticator | None,
        access: Access,
        *,
        rules: AdminRules,
        load: Load,
        archives: Load,
        pace: Pace,
        metrics: Metrics,
        log: Log,
    ) -> None:
        """`archives` counts those that are on their way at all listeners together."""
        self._routes = routes
        self._authenticator = authenticator
        self._access = access
        self._rules = rules
        self._load = load
        self._archives = archives
        self._pace = pace
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._pace)
        began = time.perf_counter()
        self._load.running += 1
        error: str | None = "cancelled"
        try:
            error = await answer(exchange, self._serve(exchange), self._log)
        finally:
            self._load.running -= 1
            self._record(exchange, time.perf_counter() - began, error)

    async def _serve(self, exchange: Exchange) -> None:
        handlers = self._routes.get(exchange.scope["path"])
        if handlers is None:
            raise NotFound()
        if self._load.running > self._load.limit:
            raise Unavailable("too many requests at once", headers={"Retry-After": "2"})
        if self._authenticator is not None:
            await identify(exchange, self._authenticator)
        _refuse_other_pages(exchange, self._rules.hosts)
        handler = handlers.get(exchange.method)
        if handler is None:
            raise Unsupported(headers={"Allow": ", ".join(handlers)})
        self._access.authorize(exchange.caller, Action.ADMIN, None)
        if self._archives.running >= self._archives.limit:
            raise Unavailable("too many archives are on their way", headers={"Retry-After": "30"})
        self._archives.running += 1
        try:
            await handler(exchange, Grants(self._access, exchange.caller, read_only=self._rules.read_only))
        finally:
            self._archives.running -= 1

    def _record(self, exchange: Exchange, seconds: float, error: str | None) -> None:
        status = exchange.status or CLIENT_GONE
        method = exchange.method if exchange.method in ("GET", "HEAD", "POST") else "OTHER"
        self._metrics.answered("admin", method, status, seconds, exchange.received, exchange.sent)
        level: Level = "warning" if status >= 500 or (error is not None and status < 400) else "info"
        note(self._log, level, exchange, seconds, error)


def _refuse_other_pages(exchange: Exchange, hosts: Collection[str] | None) -> None:
    """Raises Denied for a request that a page of another site makes a browser send: it would bring the user's login, or
    come from this machine itself, where nobody is asked for one.

    `hosts` is None where somebody is asked. Elsewhere the Host must be this machine or one of them: for a page whose own
    name was made to mean 127.0.0.1, every request is of its own site.
    """
    origin, host = exchange.header(b"origin"), exchange.header(b"host")
    if exchange.header(b"sec-fetch-site") in _ELSEWHERE or (origin is not None and _split(origin).netloc != host):
        raise Denied("pages of other sites have no business here")
    if hosts is None or host is None:  # every browser says it
        return
    name = _split(f"//{host}").hostname or ""
    if name not in hosts and not _is_this_machine(name):
        raise Denied("without users, this is for http://localhost and for the host of http.public_url alone")


def _split(url: str) -> SplitResult:
    """Raises Denied for what is no URL."""
    try:
        return urlsplit(url)
    except ValueError as exc:
        raise Denied("Origin or Host is invalid") from exc


def _is_this_machine(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
