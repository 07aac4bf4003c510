"""A round-robin proxy before several replicas: each request goes to the next one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
from aiohttp import web
from yarl import URL

from tests.services.listening import listening, pass_on

SKIPPED = ("User-Agent", "Accept", "Content-Type", "Accept-Encoding")


class Balancer:
    """`url` is its own; `replicas` are base URLs; `shares` counts the requests that each of them got."""

    def __init__(self, replicas: Sequence[str]) -> None:
        self.url = ""
        self.shares = dict.fromkeys(replicas, 0)
        self._replicas = replicas
        self._turn = count()
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Balancer"]:
        """Listens on a free port of loopback while entered."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            self._session = session
            async with listening(self._handle) as self.url:
                yield self

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._session is not None
        replica = self._replicas[next(self._turn) % len(self._replicas)]
        self.shares[replica] += 1
        body = request.content if request.body_exists else None
        headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
        async with self._session.request(
            request.method,
            URL(replica + request.raw_path, encoded=True),
            headers=headers,
            data=body,
            skip_auto_headers=SKIPPED,
            allow_redirects=False,
        ) as answer:
            return await pass_on(request, answer)
