"""Three replicas over one MinIO that may be killed, and requests that go to any of them."""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from bench.ledger import Ledger
from tests.services.client import Answer, Body, Wire
from tests.services.minio import MinioServer
from tests.services.registry import RegistryServer, s3_store

REPLICAS: Final = 3
BUCKET: Final = "soak"
_TRIES: Final = 12
_SECONDS: Final = 60.0
_GONE: Final = (aiohttp.ClientError, OSError, TimeoutError)


class Lost(Exception):
    """A request got no answer: it may have been carried out, or not."""


class Fleet:
    """The replicas, and a client that asks any of them."""

    def __init__(
        self, folder: Path, minio: MinioServer, settings: Mapping[str, str], ledger: Ledger, dice: random.Random
    ) -> None:
        store = s3_store(minio.endpoint, BUCKET, minio.access_key, minio.secret_key)
        self.replicas = [RegistryServer(folder / f"replica-{n}", store, settings=settings) for n in range(REPLICAS)]
        self._ledger, self._dice = ledger, dice

    _session: aiohttp.ClientSession

    async def start(self) -> None:
        """Starts every replica."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
        )
        for replica in self.replicas:
            await asyncio.to_thread(replica.start)

    async def stop(self) -> None:
        """Ends them."""
        await self._session.close()
        for replica in self.replicas:
            await asyncio.to_thread(replica.kill)

    async def kill_now_and_then(self, every: tuple[float, float], away: tuple[float, float]) -> None:
        """For ever: kill -9 of any replica, which comes back seconds later."""
        while True:
            await asyncio.sleep(self._dice.uniform(*every))
            replica = self._dice.choice(self.replicas)
            await asyncio.to_thread(replica.kill)
            self._ledger.done["replicas killed"] += 1
            await asyncio.sleep(self._dice.uniform(*away))
            await asyncio.to_thread(replica.start)

    async def once(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Answer:
        """One request to any replica. Raises Lost where no answer comes; a 5xx that is no 503 breaks a promise."""
        replica = self._dice.choice(self.replicas)
        try:
            answer = await Wire(replica.url, self._session).request(method, target, headers or {}, body)
        except _GONE as exc:
            self._ledger.done["answers lost"] += 1
            raise Lost(f"{method} {target}") from exc
        if answer.status >= 500:
            self._ledger.done[f"status {answer.status}"] += 1
            if answer.status != 503:
                self._ledger.accuse(f"{method} {target} answered {answer.status}: {answer.body[:300]!r}")
        return answer

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """As `once`, again at another replica while there is no answer or a 503: for what may be repeated."""
        for _ in range(_TRIES):
            try:
                answer = await self.once(method, target, headers, body)
            except Lost:
                await asyncio.sleep(self._dice.uniform(0.05, 0.5))
                continue
            if answer.status != 503:
                return answer
            await asyncio.sleep(self._dice.uniform(0.1, 1))
        raise Lost(f"{method} {target}")
