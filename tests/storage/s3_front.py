"""An HTTP server that stands in front of MinIO and fails where a test says: refuses, loses answers, cuts, waits."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

Forward = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.BaseRequest, Forward], Awaitable[web.StreamResponse]]

_HOP = {"transfer-encoding", "connection", "keep-alive", "content-length"}


class Front:
    """`endpoint` is its URL; `log` holds (method, path and query). Each fault happens once, to the first that fits."""

    def __init__(self, target: str) -> None:
        self.endpoint = ""
        self.log: list[tuple[str, str]] = []
        self._target = target
        self._faults: list[tuple[str, str, Fault]] = []
        self._session: aiohttp.ClientSession | None = None

    def fail(self, method: str, part: str, *faults: Fault) -> None:
        """The next requests with this method whose path and query contain `part` meet these faults, one each."""
        self._faults += [(method, part, fault) for fault in faults]

    def count(self, method: str, part: str) -> int:
        """How many such requests came."""
        return sum(1 for done, path in self.log if done == method and part in path)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Front"]:
        """Listens on loopback while entered."""
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        self.log.append((request.method, path))
        body = await request.content.read()

        async def forward() -> web.Response:
            assert self._session is not None
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
            url = URL(self._target + path, encoded=True)
            async with self._session.request(request.method, url, data=io.BytesIO(body), headers=headers) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                data = await answer.read()
                if request.method == "HEAD":
                    kept["Content-Length"] = answer.headers.get("Content-Length", "0")
                return web.Response(status=answer.status, headers=kept, body=data)

        for entry in self._faults:
            if entry[0] == request.method and entry[1] in path:
                self._faults.remove(entry)
                return await entry[2](request, forward)
        return await forward()


def refuses(status: int, code: str) -> Fault:
    """Answers with an S3 error; MinIO sees nothing."""

    async def fault(_: web.BaseRequest, __: Forward) -> web.StreamResponse:
        return web.Response(status=status, body=f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    return fault


def fails_late(code: str) -> Fault:
    """200, and an error in the body: what Complete and copies do when they fail after they began to answer."""

    async def fault(_: web.BaseRequest, __: Forward) -> web.StreamResponse:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
        return web.Response(status=200, body=body.encode())

    return fault


async def loses_the_request(request: web.BaseRequest, _: Forward) -> web.StreamResponse:
    """The connection ends before MinIO sees anything."""
    return _cut(request)


async def loses_the_answer(request: web.BaseRequest, forward: Forward) -> web.StreamResponse:
    """MinIO does it, and the connection ends before the answer."""
    await forward()
    return _cut(request)


def cuts_after(size: int, then: Callable[[], Awaitable[None]] | None = None) -> Fault:
    """The answer's body ends after `size` bytes; `then` runs before that."""

    async def fault(request: web.BaseRequest, forward: Forward) -> web.StreamResponse:
        whole = await forward()
        assert isinstance(whole.body, bytes)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[:size])
        if then is not None:
            await then()
        _cut(request, gently=True)
        return response

    return fault


def hangs(until: asyncio.Event) -> Fault:
    """No answer before `until`."""

    async def fault(_: web.BaseRequest, forward: Forward) -> web.StreamResponse:
        await until.wait()
        return await forward()

    return fault


def _cut(request: web.BaseRequest, *, gently: bool = False) -> web.Response:
    assert request.transport is not None
    if gently:
        request.transport.close()  # what was written still arrives
    else:
        request.transport.abort()
    return web.Response()
