"""Wiring: builds the service from settings, innermost first, and takes it apart again."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from app.api.admin import AT_ONCE, PREFIX as ADMIN_PREFIX, AdminApi, AdminRules, Routes
from app.api.description import Site
from app.api.exchange import Pace, Receive, Scope, Send
from app.api.health import Readiness, health
from app.api.imports import Imports
from app.api.peer import PeerApi
from app.api.v2 import V2, Load, Rules
from app.auth.access import Access
from app.auth.authenticator import Authenticator
from app.auth.users import Users
from app.errors import StartError
from app.exports import export_routes
from app.imports import create_importer, namespaces, open_watcher, own_names, taking
from app.proxy.peers import PATH as PEER_PATH
from app.proxy.pins import Pins
from app.proxy.proxy import Proxy, open_proxy
from app.proxy.routing import SealedRouting
from app.registry.bucket import Bucket
from app.registry.leases import Leases
from app.registry.lifetimes import scaled
from app.registry.registry import Registry, Repositories
from app.settings import Listener, Settings
from app.telemetry.logs import Log, open_log
from app.telemetry.metrics import Metrics
from app.telemetry.upkeep import UpkeepMetrics
from app.telemetry.upstreams import UpstreamMetrics
from app.upkeep.upkeep import schedules
from app.web.docs import docs
from storage import Capabilities, Driver, StorageError
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.observed import Observed
from storage.s3 import S3Driver

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""


class Service:
    """The ASGI application: `/v2` goes straight to the registry's API, what admins and other replicas want to theirs, the
    rest to FastAPI."""

    def __init__(self, doors: Mapping[str, "Door"], peers: PeerApi | None, site: FastAPI, readiness: Readiness) -> None:
        """`doors` holds the APIs as each listener offers them, by the listener's key."""
        self._doors = doors
        self._first = next(iter(doors.values()))
        self._peers = peers
        self._site = site
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the first listener serves it."""
        await self._serve(self._first, scope, receive, send)

    def on(self, listener: Listener) -> Application:
        """The application as `listener` serves it."""
        door = self._doors[listener.key]

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(door, scope, receive, send)

        return application

    async def _serve(self, door: "Door", scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/v2/") or path == "/v2":
            await door.v2(scope, receive, send)
        elif path.startswith(ADMIN_PREFIX):
            await door.admin(scope, receive, send)
        elif self._peers is not None and path.startswith(self._peers.prefix):
            await self._peers(scope, receive, send)
        else:
            await self._site(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Door:
    """What one listener offers."""

    v2: V2
    admin: AdminApi


@asynccontextmanager
async def open_service(settings: Settings, log: Log) -> AsyncIterator[Service]:
    """The running service. Raises StartError, in one line, for what the operator must mend."""
    metrics = Metrics()
    users = await asyncio.to_thread(_load_users, settings, log)
    authenticator = Authenticator(users, realm=settings.auth.realm, verdict_seconds=settings.auth.verdict_seconds)
    async with AsyncExitStack() as stack:
        stack.callback(authenticator.close)
        bucket = await stack.enter_async_context(open_bucket(settings, metrics, log))
        readiness = Readiness(Registry(bucket).ready)
        pace = Pace(settings.http.minimum_rate, settings.http.stall_timeout)
        proxy = await stack.enter_async_context(open_proxy_of(settings, bucket, metrics, log))
        await stack.enter_async_context(_upkeep(settings, bucket, proxy, metrics, log))
        importer = create_importer(settings, bucket)
        doors = _doors(
            settings,
            authenticator if users else None,
            bucket,
            repositories=_repositories(settings, bucket, proxy),
            routes={
                "/api/v1/import": {"POST": Imports(taking(importer), settings.transfer.max_bytes).post},
                **export_routes(settings, bucket),
            },
            pace=pace,
            metrics=metrics,
            log=log,
        )
        watcher = await open_watcher(settings, bucket, importer, log)
        if watcher is not None:
            await stack.enter_async_context(background(watcher.run()))
        peers = PeerApi(PEER_PATH, proxy.shared, pace) if proxy else None
        yield Service(doors, peers, create_site(readiness, metrics), readiness)


@asynccontextmanager
async def _upkeep(
    settings: Settings, bucket: Bucket, proxy: Proxy | None, metrics: Metrics, log: Log
) -> AsyncIterator[None]:
    """Looks after the store while entered, unless the server must not change it."""
    if settings.registry.read_only:
        yield
        return
    leases = Leases(bucket.driver, supported=bucket.capabilities.conditional_put)
    noted = UpkeepMetrics(metrics.collector)
    async with AsyncExitStack() as stack:
        for schedule in schedules(bucket, proxy, settings.upkeep, leases, noted, partial(_note, log)):
            await stack.enter_async_context(background(schedule.run()))
        yield


@asynccontextmanager
async def open_bucket(settings: Settings, metrics: Metrics, log: Log) -> AsyncIterator[Bucket]:
    """The store, tried out, and what all repositories share. Raises StartError."""
    driver = Observed(open_driver(settings), lambda action, seconds: metrics.stored(driver.name, action, seconds))
    try:
        capabilities = await _start(driver, log)
        bucket = Bucket(
            driver,
            settings.registry,
            capabilities,
            lambda event, fields: _alarm(metrics, log, event, fields),
            settings.storage.s3.redirect_lifetime if settings.storage.s3.redirect else None,
        )
        _refuse_policies(settings, capabilities)
        await _told(bucket.signing.start())
        yield bucket
        await bucket.close()
    finally:
        await driver.close()


@asynccontextmanager
async def open_proxy_of(
    settings: Settings, bucket: Bucket, metrics: Metrics, log: Log, *, alone: bool = False
) -> AsyncIterator[Proxy | None]:
    """The proxy; None where no upstream is configured, or none may be dialled. `alone`: nobody can follow its transfers.

    Raises StartError.
    """
    if not settings.proxy.upstreams or settings.proxy.air_gapped:
        yield None
        return
    found = await asyncio.to_thread(_peer_url, settings)
    async with open_proxy(
        settings.proxy,
        bucket,
        Leases(bucket.driver, supported=bucket.capabilities.conditional_put and not alone),
        peer_url=settings.proxy.peer_url or found,
        own_names=own_names(settings),
        metrics=UpstreamMetrics(metrics.collector),
        note=partial(_note, log),
        report=partial(log_line, log),
        alone=alone,
    ) as proxy:
        yield proxy


@asynccontextmanager
async def open_pins(settings: Settings) -> AsyncIterator[Pins]:
    """The pins, for a command that works on them and ends; only errors are logged. Raises StartError."""
    if not settings.proxy.upstreams:
        raise StartError("proxy.upstreams is empty: there is no upstream whose images could be pinned")
    if settings.proxy.air_gapped:
        raise StartError("proxy.air_gapped is set: no upstream is ever asked, so that nothing can be pinned")
    if settings.storage.driver == "memory":
        raise StartError("storage.driver is memory, which no other process sees: there is nothing to pin images in")
    metrics, log = Metrics(), open_log("error", settings.log.format)
    async with (
        open_bucket(settings, metrics, log) as bucket,
        open_proxy_of(settings, bucket, metrics, log, alone=True) as proxy,
    ):
        assert proxy is not None  # noqa: S101  (there are upstreams)
        yield proxy.pins


def _doors(
    settings: Settings,
    authenticator: Authenticator | None,
    bucket: Bucket,
    *,
    repositories: Repositories,
    routes: Routes,
    pace: Pace,
    metrics: Metrics,
    log: Log,
) -> dict[str, Door]:
    """The APIs of every listener, by its key; `authenticator` is None where there are no users."""
    load, archives = Load(settings.http.requests), Load(AT_ONCE)
    doors = {}
    for listener in settings.listening():
        access = _access(settings, listener, users=authenticator is not None)
        asked = None if listener.open_door else authenticator
        rules = Rules(settings.registry.delete, listener.read_only, listener.default_upstream)
        hosts = own_names(settings) if listener.local and asked is None else None
        doors[listener.key] = Door(
            V2(
                Registry(bucket), repositories, asked, access,
                rules=rules, load=load, pace=pace, metrics=metrics, log=log,
            ),
            AdminApi(
                routes, asked, access,
                rules=AdminRules(listener.read_only, hosts), load=load, archives=archives, pace=pace, metrics=metrics, log=log,
            ),
        )  # fmt: skip
    return doors


def _repositories(settings: Settings, bucket: Bucket, proxy: Proxy | None) -> Repositories:
    """How names of requests are understood."""
    if proxy is not None:
        return proxy.routing
    if settings.proxy.air_gapped:
        return SealedRouting(bucket, namespaces(settings), own_names(settings))
    return Registry(bucket)


def _access(settings: Settings, listener: Listener, *, users: bool) -> Access:
    """Who may do what at one listener; behind an open door nobody is asked who they are."""
    return Access(
        realm=settings.auth.realm,
        users=users,
        anonymous=listener.anonymous,
        asks=not listener.open_door,
        rules=settings.auth.rules,
        local=listener.local,
    )


def _peer_url(settings: Settings) -> str:
    """Where other replicas reach this one: its own address as the store sees it, unless it listens at one only."""
    listener = settings.listening()[0]
    host = listener.host
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        store = urlsplit(settings.storage.s3.endpoint or "")
        host = "127.0.0.1"
        if settings.storage.driver == "s3" and store.hostname:
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((store.hostname, store.port or 443))  # sends nothing
                host = probe.getsockname()[0]
    scheme = "https" if listener.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.port}"


def _note(log: Log, event: str, fields: Mapping[str, Any]) -> None:
    level = "warning" if fields.get("error") else "info"
    getattr(log, level)(event, **fields)


def create_site(readiness: Readiness, metrics: Metrics) -> FastAPI:
    """Everything but `/v2`: health, metrics, documentation."""
    site = Site(title="Edge Registry", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    site.include_router(health(readiness, metrics))
    site.include_router(docs(site))
    return site


def open_driver(settings: Settings) -> Driver:
    """The driver that the settings choose, not yet started."""
    fence = scaled(settings.registry.time_scale).fence
    match settings.storage.driver:
        case "s3":
            s3 = settings.storage.s3
            if bool(s3.access_key) != bool(s3.secret_key):
                raise StartError("storage.s3 needs both access_key and secret_key, or neither to ask the AWS chain")
            if settings.proxy.air_gapped and not s3.access_key and "AWS_ACCESS_KEY_ID" not in os.environ:
                raise StartError(
                    "proxy.air_gapped is set, and without storage.s3.access_key and storage.s3.secret_key the AWS chain may "
                    "ask other services for keys: set both"
                )
            return S3Driver(settings.storage.s3, fence_lifetime=fence)
        case "memory":
            return MemoryDriver()
        case _:
            return FilesystemDriver(settings.storage.filesystem.root, fence_lifetime=fence)


async def _start(driver: Driver, log: Log) -> Capabilities:
    await _told(driver.start())
    try:
        capabilities = await driver.probe()
    except StorageError as exc:
        raise StartError(str(exc)) from exc
    log.info("store", driver=driver.name, works=", ".join(found.name for found in capabilities.findings if found.ok))
    for finding in capabilities.findings:
        if not finding.ok:
            log.warning("store", driver=driver.name, lacks=finding.name, therefore=finding.line)
    return capabilities


async def _told(work: Awaitable[None]) -> None:
    try:
        await work
    except StorageError as exc:
        raise StartError(str(exc)) from exc


def _load_users(settings: Settings, log: Log) -> Users | None:
    if settings.auth.htpasswd is None:
        return None
    return Users.load(settings.auth.htpasswd, report=lambda level, message: log_line(log, level, message))


def log_line(log: Log, level: str, message: str) -> None:
    """Reports of rooms that know nothing of logs."""
    getattr(log, level, log.warning)(message)


def _refuse_policies(settings: Settings, capabilities: Capabilities) -> None:
    if settings.registry.immutable_tags and not capabilities.conditional_put:
        raise StartError("registry.immutable_tags needs a store with conditional writes; this one ignores them")


def _alarm(metrics: Metrics, log: Log, event: str, fields: dict[str, str]) -> None:
    metrics.alarmed(event)
    log.error(event, **fields)


@asynccontextmanager
async def background(work: Awaitable[None]) -> AsyncIterator[None]:
    """Runs `work` while entered."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
