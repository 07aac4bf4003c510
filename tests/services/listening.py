"""A server of a test's own in the event loop of the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Answers with `handler` on a free port of loopback while entered; yields its URL, without a slash at the end."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def passed_on(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    """The headers of another server's answer that are not its connection's."""
    headers = answer.headers.copy()
    for name in ("Connection", "Transfer-Encoding"):
        headers.popall(name, None)
    return headers


async def pass_on(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Answers as another server did, with its bytes as they come."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed_on(answer))
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    await response.write_eof()
    return response
