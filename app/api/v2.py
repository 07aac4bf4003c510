"""The `/v2` API: every request is parsed, identified, authorized, handled, and its failure rendered, here and once."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from app.api import blobs, catalog, manifests, referrers, tags, uploads
from app.api.answering import CLIENT_GONE, answer, identify, note
from app.api.exchange import Exchange, Pace, Receive, Scope, Send
from app.api.paths import Kind, Path, parse_path
from app.auth.access import Access, Action
from app.auth.authenticator import Authenticator
from app.auth.caller import Caller
from app.oci.errors import NotFound, Unavailable, Unsupported
from app.oci.names import Name
from app.registry.asked import Asked
from app.registry.registry import Registry, Repositories, Repository
from app.telemetry.logs import Level, Log
from app.telemetry.metrics import Metrics

T = TypeVar("T")
Handler = Callable[[Exchange, Repository, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one method of one kind of path does, and the right that it takes."""

    handle: Handler
    action: Action


ENDPOINTS: Final[Mapping[Kind, Mapping[str, Endpoint]]] = {
    Kind.BLOB: {
        "HEAD": Endpoint(blobs.head_blob, Action.PULL),
        "GET": Endpoint(blobs.get_blob, Action.PULL),
        "DELETE": Endpoint(blobs.delete_blob, Action.DELETE),
    },
    Kind.MANIFEST: {
        "HEAD": Endpoint(manifests.head_manifest, Action.PULL),
        "GET": Endpoint(manifests.get_manifest, Action.PULL),
        "PUT": Endpoint(manifests.put_manifest, Action.PUSH),
        "DELETE": Endpoint(manifests.delete_manifest, Action.DELETE),
    },
    Kind.UPLOAD: {
        "GET": Endpoint(uploads.get_upload, Action.PUSH),
        "PATCH": Endpoint(uploads.patch_upload, Action.PUSH),
        "PUT": Endpoint(uploads.put_upload, Action.PUSH),
        "DELETE": Endpoint(uploads.delete_upload, Action.PUSH),
    },
    Kind.TAGS: {"GET": Endpoint(tags.get_tags, Action.PULL)},
    Kind.REFERRERS: {"GET": Endpoint(referrers.get_referrers, Action.PULL)},
}
"""Every endpoint below a repository but the start of an upload, which needs the decision about other repositories."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows at a listener; `upstream` is asked for plain names that are not here."""

    delete: bool
    read_only: bool
    upstream: str | None = None


@dataclass(slots=True)
class Load:
    """Requests that are being answered at all listeners together, and how many that may be."""

    limit: int
    running: int = 0


class V2:
    """An ASGI application for paths that begin with `/v2`."""

    def __init__(
        self,
        registry: Registry,
        repositories: Repositories,
        authenticator: Authenticator | None,
        access: Access,
        *,
        rules: Rules,
        load: Load,
        pace: Pace,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._registry = registry
        self._repositories = repositories
        self._authenticator = authenticator
        self._access = access
        self._rules = rules
        self._load = load
        self._pace = pace
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._pace)
        path = parse_path(scope["path"])
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        self._load.running += 1
        error: str | None = "cancelled"
        try:
            error = await answer(exchange, self._serve(exchange, path), self._log)
        finally:
            self._load.running -= 1
            self._metrics.in_flight.dec()
            self._record(exchange, path, time.perf_counter() - began, error)

    async def _serve(self, exchange: Exchange, path: Path | None) -> None:
        if path is None:
            raise NotFound()
        if self._load.running > self._load.limit:
            raise Unavailable("too many requests at once", headers={"Retry-After": "2"})
        if self._authenticator is not None:
            await identify(exchange, self._authenticator)
        if path.kind is Kind.BASE or path.kind is Kind.CATALOG:
            return await self._serve_all(exchange, path)
        if path.kind is Kind.UPLOADS:
            _method(exchange, {"POST": None})
            repository = self._authorized(exchange, path, Action.PUSH)
            return await uploads.post_upload(exchange, repository, self._access)
        endpoint = _method(exchange, ENDPOINTS[path.kind])
        repository = self._authorized(exchange, path, endpoint.action)
        return await endpoint.handle(exchange, repository, path.reference)

    async def _serve_all(self, exchange: Exchange, path: Path) -> None:
        """What concerns no single repository."""
        _method(exchange, {"GET": None, "HEAD": None})
        if path.kind is Kind.BASE:
            self._access.may_ping(exchange.caller)
            return await catalog.get_base(exchange)
        self._access.authorize(exchange.caller, Action.CATALOG, None)
        return await catalog.get_catalog(exchange, self._registry, self._access.visible(exchange.caller))

    def _authorized(self, exchange: Exchange, path: Path, action: Action) -> Repository:
        """The repository, once its name is valid and the caller may do this to it."""
        repository = self._repositories.find(self._asked(exchange, path), partial(self._may_pull, exchange.caller))
        exchange.notes = repository.notes
        if action is not Action.PULL and self._rules.read_only:
            raise Unsupported("the registry is read-only")
        self._access.authorize(exchange.caller, action, repository.name)
        if action is Action.DELETE and not self._rules.delete:
            raise Unsupported("deleting is switched off")
        return repository

    def _asked(self, exchange: Exchange, path: Path) -> Asked:
        return Asked(
            path.name,
            namespace=exchange.parameter("ns"),
            upstream=exchange.header(b"x-registry"),
            fallback=self._rules.upstream,
            agent=exchange.header(b"user-agent") or "",
            writable=not self._rules.read_only,
        )

    def _may_pull(self, caller: Caller, name: Name) -> bool:
        return self._access.allows(caller, Action.PULL, name)

    def _record(self, exchange: Exchange, path: Path | None, seconds: float, error: str | None) -> None:
        status = exchange.status or CLIENT_GONE
        handler = path.kind.value if path else "none"
        method = exchange.method if exchange.method in _METHODS else "OTHER"
        self._metrics.answered(handler, method, status, seconds, exchange.received, exchange.sent)
        level: Level = (
            "info" if status < 500 and (error is None or status < 400 or status == CLIENT_GONE) else "warning"
        )
        if status in (401, 404):
            level = "info"
        note(self._log, level, exchange, seconds, error)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _method(exchange: Exchange, table: Mapping[str, T]) -> T:
    """What the table has for the request's method; what answers GET answers HEAD too (RFC 9110, section 9.3.2)."""
    method = "GET" if exchange.method == "HEAD" and "HEAD" not in table else exchange.method
    try:
        return table[method]
    except KeyError:
        allowed = [*table, *(["HEAD"] if "GET" in table and "HEAD" not in table else [])]
        raise Unsupported(headers={"Allow": ", ".join(allowed)}) from None
