"""Registries whose garbage is collected: in memory, where requests are recorded, and on every real store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storage import Driver
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.registry.recorded import Clock, Recorded
from tests.services.minio import MinioServer
from tests.upkeep.yard import Later, Yard, yard

Pass = Callable[[float], Awaitable[None]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(clock: Clock) -> MemoryDriver:
    return MemoryDriver(clock)


@pytest.fixture
def pass_(clock: Clock) -> Pass:
    async def pass_(seconds: float) -> None:
        clock.now += seconds

    return pass_


@pytest.fixture
def recorded(shelf: MemoryDriver) -> Recorded:
    return Recorded(shelf.replica())


@pytest.fixture
async def here(recorded: Recorded, pass_: Pass) -> AsyncIterator[Yard]:
    """A replica whose requests are recorded."""
    async with yard(recorded, pass_) as found:
        yield found


@pytest.fixture
async def other(shelf: MemoryDriver, pass_: Pass, here: Yard) -> AsyncIterator[Yard]:
    """A second replica on the same store."""
    async with yard(shelf.replica(), pass_) as found:
        yield found


@pytest.fixture(
    params=[
        "memory",
        pytest.param("filesystem", marks=pytest.mark.slow),
        pytest.param("s3", marks=[pytest.mark.minio, pytest.mark.slow]),
    ]
)
async def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    """A replica on each kind of store."""
    driver: Driver = MemoryDriver()
    if request.param == "filesystem":
        driver = FilesystemDriver(tmp_path / "store")
    elif request.param == "s3":
        server: MinioServer = request.getfixturevalue("minio")
        named = {"bucket": request.getfixturevalue("bucket"), "buffer_bytes": 48 << 20}
        logins = {"access_key": server.access_key, "secret_key": server.secret_key}
        driver = S3Driver(S3Settings.model_validate({"endpoint": server.endpoint, **named, **logins}))
    await driver.start()
    later = Later(driver)
    async with yard(later, later.pass_) as found:
        yield found
    await driver.close()
