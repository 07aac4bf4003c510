"""Wiring: builds the service from settings, innermost first, and takes it apart again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from app.api.description import Site
from app.api.exchange import Pace, Receive, Scope, Send
from app.api.health import Readiness, health
from app.api.v2 import V2, Rules
from app.auth.access import Access
from app.auth.authenticator import Authenticator
from app.auth.users import Users
from app.errors import StartError
from app.registry.bucket import Bucket
from app.registry.lifetimes import scaled
from app.registry.registry import Registry
from app.settings import Listener, Settings
from app.telemetry.logs import Log
from app.telemetry.metrics import Metrics
from app.web.docs import docs
from storage import Capabilities, Driver, StorageError
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.observed import Observed
from storage.s3 import S3Driver

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""


class Service:
    """The ASGI application: `/v2` goes straight to the registry's API, everything else to FastAPI."""

    def __init__(self, v2: V2, site: FastAPI, readiness: Readiness) -> None:
        self._v2 = v2
        self._site = site
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"].startswith("/v2/") or scope["path"] == "/v2"):
            await self._v2(scope, receive, send)
        else:
            await self._site(scope, receive, send)

    def on(self, listener: Listener) -> Application:
        """The application as `listener` serves it: `scope["state"]["listener"]` is that listener."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["listener"] = listener
            await self(scope, receive, send)

        return application


@asynccontextmanager
async def open_service(settings: Settings, log: Log) -> AsyncIterator[Service]:
    """The running service. Raises StartError, in one line, for what the operator must mend."""
    metrics = Metrics()
    driver = Observed(open_driver(settings), lambda action, seconds: metrics.stored(driver.name, action, seconds))
    users = await asyncio.to_thread(_load_users, settings, log)
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
        registry = Registry(bucket)
        readiness = Readiness(registry.ready)
        authenticator = Authenticator(users, realm=settings.auth.realm, verdict_seconds=settings.auth.verdict_seconds)
        access = Access(realm=settings.auth.realm, users=users is not None, anonymous=settings.auth.anonymous)
        v2 = V2(
            registry,
            authenticator if users else None,
            access,
            rules=Rules(delete=settings.registry.delete, read_only=settings.registry.read_only),
            limit=settings.http.requests,
            pace=Pace(settings.http.minimum_rate, settings.http.stall_timeout),
            metrics=metrics,
            log=log,
        )
        yield Service(v2, create_site(readiness, metrics), readiness)
        await bucket.close()
        authenticator.close()
    finally:
        await driver.close()


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
