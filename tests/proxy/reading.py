"""A client that reads a blob as a test wishes: watched while bytes come, left before they all came."""

import asyncio
import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.api.exchange import CLIENT
from app.proxy.transfers import Transfers
from tests.proxy.pulling import UP, routing_of
from tests.services.app import Running
from tests.services.client import digest_of, noise
from tests.services.front import Fault, Front
from tests.services.pushing import Pusher

BLOBS = "/v2/*/blobs/sha*"
SIZE = 3_000_000
HALF = SIZE // 2
PATIENCE = 20.0


class Reading:
    """One GET, on its way from the start. `body` is what came, `whole` whether that was all."""

    def __init__(self, service: Running, path: str, **headers: str) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""
        self.whole = False
        self._gone = False
        self._grown = asyncio.Event()
        self._left = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 5045),
            "extensions": {CLIENT: {"gone": lambda: self._gone}},
        }
        self._task = asyncio.ensure_future(service.app(scope, self._receive, self._send))
        self._task.add_done_callback(lambda _: self._grown.set())

    async def has(self, size: int) -> None:
        """Waits until so many bytes came."""
        async with asyncio.timeout(PATIENCE):
            while len(self.body) < size:
                assert not self._task.done(), f"{self.status} ended after {len(self.body)} bytes: {self.body[:300]!r}"
                self._grown.clear()
                await self._grown.wait()

    async def ended(self) -> "Reading":
        """Waits until the service has nothing more to say."""
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self

    async def right(self, data: bytes) -> None:
        """Waits for the end, and fails unless these are the bytes."""
        await self.ended()
        assert self.whole, f"{self.status} was cut after {len(self.body)} bytes"
        assert self.body == data, f"{self.status} with {len(self.body)} bytes"

    def leave(self) -> None:
        """Closes the connection, which the service is told when it sends again."""
        self._gone = True
        self._left.set()

    async def cancel(self) -> None:
        """Ends the request as a server that stops does."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.body += message.get("body", b"")
        more = message.get("more_body", False)
        self.whole = not more and len(self.body) == int(self.headers.get("content-length", len(self.body)))
        self._grown.set()


def blob_path(digest: str, repository: str = "team/app", upstream: str = UP) -> str:
    """Where the service has a blob of an upstream."""
    return f"/v2/{upstream}/{repository}/blobs/{digest}"


def push(front: Front, size: int = SIZE, seed: str = "", repository: str = "team/app") -> tuple[str, bytes]:
    """Puts a blob into the registry behind the front; another `seed` makes another one."""
    data = noise(size, f"{seed} {size}")
    return Pusher(front.target).blob(repository, data), data


def transfers_of(service: Running) -> Transfers:
    """The transfers of a service."""
    return routing_of(service)._cache.transfers


async def settled(service: Running) -> None:
    """Waits until no transfer runs."""
    transfers = transfers_of(service)
    async with asyncio.timeout(PATIENCE):
        while tasks := [task for _, task in transfers._running.values()]:
            await asyncio.wait(tasks)


async def holds(service: Running, digest: str, data: bytes, repository: str = "team/app", upstream: str = UP) -> bool:
    """Whether the store has these bytes, linked into the cached repository, once no transfer runs any more."""
    await settled(service)
    algorithm, _, code = digest.partition(":")
    links = await service.store.keys(f"repositories/{upstream}/{repository}/_blobs/{algorithm}/{code}/")
    if not links:
        return False
    uuid = links[0].rpartition("/")[2].partition(".")[0]
    found = (await service.store.driver.get(f"data/{uuid}")).data
    assert found == data, f"the store holds {len(found)} other bytes"
    assert digest_of(found, algorithm) == digest
    return True


async def begun(service: Running, front: Front, digest: str, data: bytes) -> Reading:
    """A reader of a transfer that stands still half-way."""
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    reading = Reading(service, blob_path(digest))
    await reading.has(HALF)
    assert reading.body == data[:HALF]
    return reading


async def closed(folder: Path) -> None:
    """Waits until the threads of a spool have closed its files."""
    async with asyncio.timeout(10):
        while open_files(folder):
            await asyncio.sleep(0.02)


def open_files(folder: Path) -> list[str]:
    """What this process has open below a folder."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target.startswith(str(folder / "spool")):
            found.append(target)
    return found
