"""The service in this process: opened from settings, asked over ASGI as uvicorn asks it, its store watched."""

import asyncio
import io
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import unquote

import structlog

from app import main
from app.settings import Settings
from storage import Driver, Page
from tests.services.client import Answer, Body, Client

Log = structlog.typing.FilteringBoundLogger

_ASKED: Final = frozenset({"get", "stat", "open", "put", "delete", "delete_many", "list", "copy", "discard", "create"})


class ClientAbort(Exception):
    """Raised by a body: the client closes the connection instead of sending more."""


class CutOff(Exception):
    """The answer ended before its announced end; `answer` is what came."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} was cut after {len(answer.body)} bytes")
        self.answer = answer


class Watched:
    """A driver whose operations are noted in `asked` as (operation, key); `refuse` may raise instead of one."""

    def __init__(self, driver: Driver) -> None:
        self.asked: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], None] = lambda _operation, _key: None
        self.driver = driver

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.driver, name)
        if name not in _ASKED:
            return found

        @wraps(found)
        def noted(*args: Any, **kwargs: Any) -> Any:
            key = args[0] if isinstance(args[0], str) else ",".join(args[0])
            self.asked.append((name, key))
            self.refuse(name, key)
            return found(*args, **kwargs)

        return noted

    async def keys(self, prefix: str = "") -> list[str]:
        """Every key of the store below a prefix, unnoted; the replica's signing keys and probes excepted."""
        found: list[str] = []
        page = Page((), more=True)
        while page.more:
            page = await self.driver.list(prefix, after=found[-1] if found else "")
            found += [entry.key for entry in page.entries]
        return [key for key in found if not key.startswith(("upkeep/keys/", "upkeep/probe/"))]


@dataclass(frozen=True, slots=True)
class Running:
    """An opened service: `client` without credentials, its store, and what it logged."""

    app: main.Service
    client: Client
    store: Watched
    log: io.StringIO

    def events(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def with_headers(self, **headers: str) -> Client:
        """Another client; underscores in names are hyphens."""
        return Client(InProcess(self.app), {name.replace("_", "-"): value for name, value in headers.items()})


@asynccontextmanager
async def running(settings: Settings, driver: Driver | None = None) -> AsyncIterator[Running]:
    """Opens the service on the store that the settings choose, or on `driver`."""
    written = io.StringIO()
    store = Watched(driver or main.open_driver(settings))
    async with AsyncExitStack() as stack:
        with patch.object(main, "open_driver", lambda _settings: store):
            service = await stack.enter_async_context(main.open_service(settings, _log(written)))
        store.asked.clear()
        try:
            yield Running(service, Client(InProcess(service)), store, written)
        finally:  # pytest shows it where a test fails
            print(*[line for line in written.getvalue().splitlines() if '"info"' not in line], sep="\n")


def _log(target: io.StringIO) -> Log:
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return log


class InProcess:
    """Requests to an ASGI application. Answers are checked as HTTP would check them."""

    def __init__(self, app: Callable[..., Awaitable[None]], peer: str = "127.0.0.1") -> None:
        self._app, self._peer = app, peer

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        """One exchange. Raises CutOff, and ClientAbort when the body did."""
        path, _, query = target.partition("?")
        sent = {name.lower(): value for name, value in headers.items()}
        if isinstance(body, bytes) or (body is None and method in ("POST", "PUT", "PATCH")):
            sent.setdefault("content-length", str(len(body or b"")))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path, errors="replace"),
            "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in sent.items()],
            "client": (self._peer, 40000),
            "server": ("127.0.0.1", 5045),
        }
        exchange = _Exchange(body)
        await self._app(scope, exchange.receive, exchange.send)
        return exchange.answer(method)


class _Exchange:
    """The server's side of one request: the body as messages, the messages of the answer as an Answer."""

    def __init__(self, body: Body | None) -> None:
        self._chunks = _chunks(body)
        self._sent = self._complete = self._aborted = False
        self._ended = asyncio.Event()
        self._start: MutableMapping[str, Any] = {}
        self._body = bytearray()

    async def receive(self) -> dict[str, Any]:
        if self._sent:
            await self._ended.wait()
            return {"type": "http.disconnect"}
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except ClientAbort:
            self._sent = self._aborted = True
            self._ended.set()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self._start, "the answer began twice"
            self._start = message
            return
        assert self._start, "a body before the answer began"
        assert not self._complete, "a body after the end"
        self._body += message.get("body", b"")
        self._complete = not message.get("more_body", False)

    def answer(self, method: str) -> Answer:
        if self._aborted:
            raise ClientAbort
        assert self._start, "no answer"
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._start["headers"]]
        assert all(name == name.lower() for name, _ in headers), headers
        body = b"" if method == "HEAD" else bytes(self._body)  # uvicorn drops it too
        answer = Answer(self._start["status"], headers, body)
        if not self._complete:
            raise CutOff(answer)
        length = answer.header("content-length")
        if method != "HEAD" and length is not None and int(length) != len(answer.body):
            raise CutOff(answer)
        if method != "HEAD" and answer.status not in (204, 304):
            assert length is not None, "an answer without a length"
        return answer


async def _chunks(body: Body | None) -> AsyncIterator[bytes]:
    if isinstance(body, AsyncIterable):
        async for chunk in body:
            yield chunk
    elif body:
        yield body
