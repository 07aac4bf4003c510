"""The process: sockets, TLS, signals, workers."""

import asyncio
import os
import resource
import socket
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import FrameType

import uvicorn

from app.errors import StartError
from app.main import Service, background, log_line, open_driver, open_service
from app.protocol import guarded
from app.settings import HttpSettings, Settings
from app.telemetry.logs import open_log
from app.tls.context import ReloadingContext
from app.workers import supervise
from storage import StorageError

Announce = Callable[[str], None]
"""Called with the server's URL once it listens."""

_KEEP_ALIVE = 75
_BACKLOG = 2048


def run(settings: Settings, announce: Announce) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError before it listens."""
    _raise_file_limit()
    sock = _bind(settings.http)
    if settings.http.workers > 1:
        _run_workers(settings, sock, announce)
        return
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, [sock], announce))


def _raise_file_limit() -> None:
    """Each connection is an open file; the usual soft limit of 1,024 is for other programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))


async def _serve(settings: Settings, sockets: list[socket.socket], announce: Announce) -> None:
    log = open_log(settings.log.level, settings.log.format)
    async with AsyncExitStack() as stack:
        context = _tls(settings.http, partial(log_line, log))
        service = await stack.enter_async_context(open_service(settings, log))
        if context is not None:
            await stack.enter_async_context(background(context.watch()))
        config = _config(settings.http, service, context)
        await _Server(config, service, settings.http, partial(announce, _url(sockets[0], settings.http))).serve(sockets)


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens and, on SIGTERM, first fails readiness and then stops listening."""

    def __init__(
        self, config: uvicorn.Config, service: Service, http: HttpSettings, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._http = http
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first = not self._service.readiness.draining
        self._service.readiness.draining = True
        if first and self._http.drain_delay:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, self._http.drain_delay, self._stop)
        else:
            self.force_exit = not first
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True


def _config(http: HttpSettings, service: Service, context: ReloadingContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        service,
        http=guarded(http.header_timeout, http.connections),
        ws="none",
        lifespan="off",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(http.drain_timeout)),
        ssl_context_factory=(lambda _config, _default: context.context) if context else None,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


def _tls(http: HttpSettings, report: Callable[[str, str], None]) -> ReloadingContext | None:
    if http.tls.certificate is None and http.tls.key is None:
        return None
    if http.tls.certificate is None or http.tls.key is None:
        raise StartError("http.tls needs both a certificate and a key")
    return ReloadingContext(http.tls.certificate, http.tls.key, report=report)


def _bind(http: HttpSettings) -> socket.socket:
    host = http.host or "127.0.0.1"
    try:
        family = socket.getaddrinfo(host, http.port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, http.port))
        sock.listen(_BACKLOG)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise StartError(f"cannot listen on {host}:{http.port}: {reason}; choose another with --port") from exc
    sock.setblocking(False)
    sock.set_inheritable(True)
    return sock


def _url(sock: socket.socket, http: HttpSettings) -> str:
    host, port = sock.getsockname()[:2]
    scheme = "https" if http.tls.certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _run_workers(settings: Settings, sock: socket.socket, announce: Announce) -> None:
    """Several processes on one socket; each is a replica like any other. The parent only watches over them."""
    asyncio.run(_try_store(settings))
    with tempfile.TemporaryDirectory(prefix="edge-registry-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        announce(_url(sock, settings.http))
        supervise(partial(run_worker, settings, sock), settings.http.workers)


def run_worker(settings: Settings, sock: socket.socket) -> None:
    """One of several processes on a socket."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, [sock], lambda _url: None))


async def _try_store(settings: Settings) -> None:
    """What would make every worker fail is said once, by the parent."""
    driver = open_driver(settings)
    try:
        await driver.start()
    except StorageError as exc:
        raise StartError(str(exc)) from exc
    finally:
        await driver.close()
