"""A proxy before a store that fails chosen requests: refuses, loses, cuts or freezes the k-th."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from tests.services.listening import listening, pass_on, passed_on

BUSY: Final = "busy"
"""503 SlowDown; nothing was applied."""
LOST: Final = "lost"
"""The connection is reset before the store sees the request."""
UNTOLD: Final = "untold"
"""The store applied the request; the connection is reset before the answer."""
CUT: Final = "cut"
"""The store applied the request; half of the answer's body comes, then a reset."""
FROZEN: Final = "frozen"
"""Nothing happens for ever, to this and every later request; nothing was applied."""
FROZEN_AFTER: Final = "frozen after"
"""The store applied the request; then as FROZEN."""

_SLOW_DOWN: Final = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"


class FaultProxy:
    """Forwards to the store at `url`. `endpoint` is its own URL, `seen` the requests since `arm`."""

    def __init__(self, url: str) -> None:
        self.endpoint = ""
        self.seen: list[str] = []
        self.down = False
        self.struck = asyncio.Event()
        self._url = url
        self._strike: Callable[[int, str], str | None] = lambda _number, _line: None
        self._session: aiohttp.ClientSession | None = None

    def arm(self, fault: str | None, which: int = 1, matching: str = "") -> None:
        """The `which`-th request (from 1) from now on whose `METHOD path` contains `matching` meets `fault`."""
        self.seen.clear()
        self.struck = asyncio.Event()
        count = 0

        def strike(_number: int, line: str) -> str | None:
            nonlocal count
            count += matching in line
            if fault in (FROZEN, FROZEN_AFTER) and self.struck.is_set():
                return FROZEN
            return fault if count == which and matching in line else None

        self._strike = strike

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        """Listens on a free port of loopback while entered."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            async with listening(self._handle) as self.endpoint:
                yield self

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.seen.append(line)
        fault = LOST if self.down else self._strike(len(self.seen), line)
        if fault is not None:
            self.struck.set()
        match fault:
            case "busy":
                await request.read()
                return web.Response(status=503, body=_SLOW_DOWN)
            case "frozen":
                await asyncio.Event().wait()
            case "lost":
                return self._reset(request)
        return await self._forward(request, fault)

    async def _forward(self, request: web.BaseRequest, fault: str | None) -> web.StreamResponse:
        assert self._session is not None
        body = request.content if request.headers.get("Content-Length", "0") != "0" else None
        skip = ("User-Agent", "Accept", "Content-Type", "Accept-Encoding")
        async with self._session.request(
            request.method,
            URL(self._url + request.raw_path, encoded=True),
            headers=request.headers,
            data=body,
            skip_auto_headers=skip,
            allow_redirects=False,
        ) as answer:
            if fault is None:
                return await pass_on(request, answer)
            data = await answer.read()
        if fault == FROZEN_AFTER:
            await asyncio.Event().wait()
        if fault == CUT and data:
            response = web.StreamResponse(status=answer.status, headers=passed_on(answer))
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
        return self._reset(request)

    @staticmethod
    def _reset(request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
