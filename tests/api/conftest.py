"""What the tests of the API share: the service in this process, on each of the three drivers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from storage.memory import MemoryDriver
from tests.services.app import Running, running
from tests.services.client import Client
from tests.services.minio import MinioServer

Create = Callable[..., Awaitable[Running]]
"""Opens a service; keyword arguments are sections of the settings."""

DRIVERS = ["memory", "filesystem", pytest.param("s3", marks=pytest.mark.minio)]


def s3_section(minio: MinioServer, bucket: str) -> dict[str, Any]:
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    return {"driver": "s3", "s3": {"endpoint": minio.endpoint, "bucket": bucket, **keys}}


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The `storage` section of each driver in turn."""
    if request.param == "s3":
        return s3_section(request.getfixturevalue("minio"), request.getfixturevalue("bucket"))
    return {"driver": request.param, "filesystem": {"root": tmp_path / "store"}}


@pytest.fixture
async def create(store: dict[str, Any]) -> AsyncIterator[Create]:
    """Opens services on each driver in turn, all on one store as replicas are; they are closed when the test ends."""
    memory = MemoryDriver()
    async with AsyncExitStack() as stack:

        async def build(**sections: Any) -> Running:
            settings = Settings.model_validate({"storage": store, **sections})
            driver = memory.replica() if store["driver"] == "memory" else None
            return await stack.enter_async_context(running(settings, driver))

        yield build


@pytest.fixture
async def create_light() -> AsyncIterator[Create]:
    """Opens services on one memory store, for what does not depend on the driver."""
    memory = MemoryDriver()
    async with AsyncExitStack() as stack:

        async def build(**sections: Any) -> Running:
            settings = Settings.model_validate({"storage": {"driver": "memory"}, **sections})
            return await stack.enter_async_context(running(settings, memory.replica()))

        yield build


@pytest.fixture
async def service(create: Create) -> Running:
    """The service as it comes, on each driver in turn."""
    return await create()


@pytest.fixture
async def api(service: Running) -> Client:
    """A client of the service, on each driver in turn."""
    return service.client


@pytest.fixture
async def light(create_light: Create) -> Running:
    """The service as it comes, on the memory driver."""
    return await create_light()
