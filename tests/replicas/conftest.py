"""What the tests of several replicas share: real server processes over one MinIO bucket, and ways to their store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.settings import Settings
from storage.s3 import S3Driver
from tests.services.client import Client, Wire
from tests.services.faults import FaultProxy
from tests.services.minio import MinioServer
from tests.services.registry import RegistryServer, s3_store

Start = Callable[..., RegistryServer]


@pytest.fixture
def start(minio: MinioServer, bucket: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a replica on the bucket; `endpoint` may lead through a proxy. They are killed when the test ends."""
    started: list[RegistryServer] = []

    def build(endpoint: str | None = None, **settings: str) -> RegistryServer:
        store = s3_store(endpoint or minio.endpoint, bucket, minio.access_key, minio.secret_key)
        variables = {f"EDGE_REGISTRY_{name}": value for name, value in settings.items()}
        replica = RegistryServer(tmp_path / f"replica-{len(started)}", store, settings=variables)
        started.append(replica)
        return replica.start()

    yield build
    for replica in started:
        replica.kill()


@pytest.fixture
async def start_soon(start: Start) -> Callable[..., Any]:
    """As `start`, while the proxies of the test go on."""

    async def build(endpoint: str | None = None, **settings: str) -> RegistryServer:
        return await asyncio.to_thread(start, endpoint, **settings)

    return build


@pytest.fixture
async def proxy(minio: MinioServer) -> AsyncIterator[FaultProxy]:
    """A proxy before MinIO that may fail requests."""
    async with FaultProxy(minio.endpoint).serving() as serving:
        yield serving


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Client]]:
    """Makes clients of a URL; each request has a connection of its own."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        yield lambda url: Client(Wire(url, session))


@pytest.fixture
async def contents(minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
    """The bucket itself."""
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    settings = Settings.model_validate({"storage": {"s3": {"endpoint": minio.endpoint, "bucket": bucket, **keys}}})
    driver = S3Driver(settings.storage.s3)
    await driver.start()
    yield driver
    await driver.close()
