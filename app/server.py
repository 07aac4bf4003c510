"""The process: sockets, TLS, signals, workers."""

import asyncio
import gc
import os
import resource
import socket
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from types import FrameType

import uvicorn

from app.errors import StartError
from app.main import Application, Service, background, log_line, open_driver, open_service
from app.protocol import GuardedProtocol, guarded
from app.settings import HttpSettings, Listener, Settings
from app.telemetry.logs import open_log
from app.tls.context import ReloadingContext
from app.workers import supervise
from storage import StorageError

Announce = Callable[[list[str]], None]
"""Called once with the URLs of all listeners, in their order, when the server listens at all of them."""

_KEEP_ALIVE = 75
_BACKLOG = 2048


def run(settings: Settings, announce: Announce) -> None:
    """Serves until SIGTERM or SIGINT; `settings` are resolved ones. Raises StartError before it listens."""
    _raise_file_limit()
    settings, sockets = _listen(settings)
    if settings.http.workers > 1:
        _run_workers(settings, sockets, announce)
        return
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, sockets, announce))


def _raise_file_limit() -> None:
    """Each connection is an open file; the usual soft limit of 1,024 is for other programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))


async def _serve(settings: Settings, sockets: list[socket.socket], announce: Announce) -> None:
    """Serves the listeners of `settings`, whose sockets are `sockets`, in that order."""
    log = open_log(settings.log.level, settings.log.format)
    listeners = settings.listening()
    async with AsyncExitStack() as stack:
        context = _tls(settings, partial(log_line, log))
        service = await stack.enter_async_context(open_service(settings, log))
        if context is not None:
            await stack.enter_async_context(background(context.watch()))
        protocol = guarded(settings.http.header_timeout, settings.http.connections)
        configs = [
            _config(settings.http, service.on(listener), protocol, context if listener.tls else None)
            for listener in listeners
        ]
        server = _Server(configs, service, settings.http, partial(announce, _urls(listeners)))
        # What lives as long as the process is looked through by no collection any more, which held requests up by 35 ms.
        gc.collect()
        gc.freeze()
        await server.serve(sockets)


class _Server(uvicorn.Server):
    """uvicorn's server at several sockets, each with a configuration of its own: what it serves, and with which TLS.

    Signals, connections and the drain are common to all. It tells when it listens and, on SIGTERM, first fails
    readiness and then stops listening.
    """

    def __init__(
        self, configs: list[uvicorn.Config], service: Service, http: HttpSettings, announce: Callable[[], None]
    ) -> None:
        super().__init__(configs[0])
        self._configs = configs
        self._service = service
        self._http = http
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens at each socket; uvicorn makes the connections of a socket by the configuration that is set then."""
        servers: list[asyncio.base_events.Server] = []
        for config, sock in zip(self._configs, sockets or [], strict=True):
            if not config.loaded:
                config.load()
            self.config = config
            await super().startup([sock])
            servers += self.servers
        self.servers = servers
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


def _config(
    http: HttpSettings, application: Application, protocol: type[GuardedProtocol], context: ReloadingContext | None
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        interface="asgi3",
        http=protocol,
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


def _tls(settings: Settings, report: Callable[[str, str], None]) -> ReloadingContext | None:
    """The one certificate of all listeners that speak TLS; None where none does."""
    tls = settings.http.tls
    if tls.certificate is None or tls.key is None or not any(listener.tls for listener in settings.listening()):
        return None
    return ReloadingContext(tls.certificate, tls.key, report=report)


def _listen(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """A socket for each listener, and the settings with the port that was found where `http.port` is 0."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(_bind(listener)) for listener in settings.listening()]
        stack.pop_all()
    if not settings.listeners:
        port = sockets[0].getsockname()[1]
        settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
    return settings, sockets


def _bind(listener: Listener) -> socket.socket:
    try:
        family = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)[0][0]
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((listener.host, listener.port))
            sock.listen(_BACKLOG)
            stack.pop_all()
    except OSError as exc:
        place, cure = (f" ({listener.key})", "") if listener.key != "http" else ("", "; choose another with --port")
        reason = exc.strerror or str(exc)
        raise StartError(f"cannot listen on {listener.host}:{listener.port}{place}: {reason}{cure}") from exc
    sock.setblocking(False)
    sock.set_inheritable(True)
    return sock


def _urls(listeners: list[Listener]) -> list[str]:
    return [f"{'https' if one.tls else 'http'}://{_bracketed(one.host)}:{one.port}" for one in listeners]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _run_workers(settings: Settings, sockets: list[socket.socket], announce: Announce) -> None:
    """Several processes on the same sockets; each is a replica like any other. The parent only watches over them."""
    asyncio.run(_try_store(settings))
    with tempfile.TemporaryDirectory(prefix="edge-registry-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        announce(_urls(settings.listening()))
        supervise(partial(run_worker, settings, sockets), settings.http.workers)


def run_worker(settings: Settings, sockets: list[socket.socket]) -> None:
    """One of several processes on the same sockets."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, sockets, lambda _urls: None))


async def _try_store(settings: Settings) -> None:
    """What would make every worker fail is said once, by the parent."""
    driver = open_driver(settings)
    try:
        await driver.start()
    except StorageError as exc:
        raise StartError(str(exc)) from exc
    finally:
        await driver.close()
