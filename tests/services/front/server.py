"""The front: a server in a thread of its own before a real registry, driven from the test's thread."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.services.front.answers import HubLimit
from tests.services.front.connection import Connection, serve
from tests.services.front.faults import Fault, Rule
from tests.services.front.records import Records, Request
from tests.services.front.scene import Scene, Target
from tests.services.front.target import LIMIT
from tests.services.front.tokens import TokenService
from tests.services.registry import Credentials

T = TypeVar("T")
Outage = Literal["refused", "silent", "blackhole"]
LOOPBACK = "127.0.0.1"


class Front:
    """An HTTP(S) server on 127.0.0.1 before the registry at the URL `target`; without rules it adds nothing.

    `certificate` and `key` (PEM files) make it speak TLS; `name` is how it calls itself in URLs. `target_ca` is the
    authority of a target with https, `target_login` its user. `port`: 0 for a free one. The second port, `elsewhere_url`,
    is the other host of redirects. Attributes may be changed at any time, from any thread:
    `tokens` and `login` make it ask who is there, `hub` counts pulls, `rate` is the bytes a second of all answers.
    """

    def __init__(
        self,
        target: str,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        name: str = LOOPBACK,
        port: int = 0,
        target_ca: Path | None = None,
        target_login: Credentials | None = None,
    ) -> None:
        context = ssl.create_default_context(cafile=target_ca) if target.startswith("https:") else None
        self._scene = Scene(Target(target.rstrip("/"), context, target_login))
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate, key)
        self._name = name
        self._ports = [port, 0]
        self._bound: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._fillers: list[socket.socket] = []
        self._running: dict[asyncio.Task[None], Connection] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    @property
    def port(self) -> int:
        """Where it listens; stays the same while it is down."""
        return self._ports[0]

    @property
    def host(self) -> str:
        """`name:port`, as it stands in image names."""
        return f"{self._name}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return self._scene.url

    @property
    def elsewhere_url(self) -> str:
        """The base URL of the second port, which refuses requests with Authorization."""
        return self._scene.elsewhere_url

    @property
    def target(self) -> str:
        """The URL of the registry behind it; a new one, of the same scheme, serves the next requests."""
        return self._scene.target.url

    @target.setter
    def target(self, url: str) -> None:
        self._scene.target.url = url.rstrip("/")

    @property
    def rate(self) -> int | None:
        """Bytes a second of all bodies together; None: as fast as they come."""
        return self._scene.rate.limit

    @rate.setter
    def rate(self, limit: int | None) -> None:
        self._scene.rate.limit = limit

    @property
    def tokens(self) -> TokenService | None:
        """Bearer tokens, which clients must bring; None: they need not."""
        return self._scene.tokens

    @tokens.setter
    def tokens(self, service: TokenService | None) -> None:
        self._scene.tokens = service

    @property
    def login(self) -> Credentials | None:
        """The user that clients must be, by Basic authentication; None: they need not."""
        return self._scene.login

    @login.setter
    def login(self, user: Credentials | None) -> None:
        self._scene.login = user

    @property
    def hub(self) -> HubLimit | None:
        """The pull limit; None: there is none."""
        return self._scene.hub

    @hub.setter
    def hub(self, limit: HubLimit | None) -> None:
        self._scene.hub = limit

    def on(self, path: str, fault: Fault, *, method: str | None = None, times: int | None = None) -> Rule:
        """From now on, `fault` happens to requests whose path matches, the next `times` of them or (None) to all.

        `path` is a pattern in which `*` matches slashes too; on the second port paths begin with `/elsewhere/v2/`.
        Where several rules match, their faults add up. What only bodies show does not happen to HEAD, is not counted
        for it, and not for requests that were refused or redirected.
        """
        rule = Rule(path, fault, method=method, times=times)
        with self._scene.lock:
            self._scene.rules.append(rule)
        return rule

    def off(self, rule: Rule) -> None:
        """Ends a rule; one that is over already is none of its business."""
        with self._scene.lock:
            self._scene.rules = [other for other in self._scene.rules if other is not rule]

    def clear(self) -> None:
        """Ends every rule."""
        with self._scene.lock:
            self._scene.rules = []

    @property
    def records(self) -> Records:
        """Everything that was asked."""
        return self._scene.records

    @property
    def requests(self) -> list[Request]:
        """Every request so far."""
        return self.records.find()

    def count(self, path: str = "*", method: str | None = None) -> int:
        """How many requests came whose path matches."""
        return len(self.records.find(path, method))

    def sent(self, path: str = "*") -> int:
        """How many bytes of bodies went out for such paths."""
        return sum(request.sent for request in self.records.find(path))

    def forget(self) -> None:
        """Counts from nothing again."""
        self.records.forget()

    def wait_until(self, holds: Callable[[], bool], timeout: float = 20.0) -> None:
        """Blocks until `holds()` after some event of the front; raises AssertionError after `timeout` seconds.

        Where an event loop must go on, await it in a thread: `await asyncio.to_thread(front.wait_until, ...)`.
        """
        self.records.wait_until(holds, timeout)

    def cut_all(self) -> None:
        """Ends every connection that is open now, with RST."""
        self._call(self._cut_all())

    def down(self, how: Outage = "refused") -> None:
        """Takes it off the net.

        `refused`: new connections are refused, those that are open are reset. `silent`: connections are taken, and no
        byte goes over them nor over those that are open. `blackhole`: the same, but new ones are not even taken.
        """
        self._call(self._down(how))

    def up(self) -> None:
        """Brings it back at the same ports; what was frozen goes on."""
        self._call(self._up())

    def start(self) -> "Front":
        """Returns when it listens. Raises OSError."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="front", daemon=True)
        self._thread.start()
        ready.result(20)
        return self

    def stop(self) -> None:
        """Ends every connection and returns when the thread has ended."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(20)
            assert not self._thread.is_alive(), "the front does not stop"
            self._thread = None

    def __enter__(self) -> "Front":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "the front was not started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _run(self, ready: "Future[None]") -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._bound = [self._bind(at) for at in (0, 1)]
            scheme = "http" if self._context is None else "https"
            self._scene.url, self._scene.elsewhere_url = (f"{scheme}://{self._name}:{port}" for port in self._ports)
            await self._up()
        except OSError as exc:
            ready.set_exception(exc)
            return
        ready.set_result(None)
        await self._stopping.wait()
        await self._close()

    def _bind(self, at: int) -> socket.socket:
        """A socket that holds the port; it is refused until somebody listens."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, self._ports[at]))
        self._ports[at] = bound.getsockname()[1]
        return bound

    async def _up(self) -> None:
        self._release()
        if not self._servers:
            self._bound = self._bound or [self._bind(at) for at in (0, 1)]
            for at, bound in enumerate(self._bound):
                self._servers.append(
                    await asyncio.start_server(
                        self._taker(elsewhere=at == 1), sock=bound, limit=LIMIT, ssl=self._context
                    )
                )
            self._bound = []
        self._scene.gate.set()

    async def _down(self, how: Outage) -> None:
        if how == "refused":
            await self._cut_all()
        else:
            self._scene.gate.clear()
        if how == "silent":
            return
        for server in self._servers:
            server.close()
        self._servers = []
        await asyncio.sleep(0)  # the loop lets go of the sockets
        self._bound = self._bound or [self._bind(at) for at in (0, 1)]
        if how == "blackhole":
            self._fill()

    def _fill(self) -> None:
        """Fills the queues of the ports with connections that nobody takes: the kernel drops all further ones."""
        for at, bound in enumerate(self._bound):
            bound.listen(0)
            for _ in range(4):
                filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                filler.setblocking(False)
                filler.connect_ex((LOOPBACK, self._ports[at]))
                self._fillers.append(filler)

    def _release(self) -> None:
        if self._fillers:
            for held in (*self._fillers, *self._bound):
                held.close()
            self._fillers, self._bound = [], []

    def _taker(self, *, elsewhere: bool) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(self._scene, reader, writer, elsewhere=elsewhere)
            task = asyncio.ensure_future(serve(connection))
            self._running[task] = connection
            task.add_done_callback(lambda done: self._running.pop(done, None))

        return take

    async def _cut_all(self) -> None:
        tasks = list(self._running)
        for task, connection in list(self._running.items()):
            connection.abort()
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._cut_all()
        self._release()
        for bound in self._bound:
            bound.close()
        await asyncio.sleep(0.01)  # transports close their sockets in the loop's next rounds
