"""The memory driver passes the suite, and keeps to the rules that a folder would enforce."""

from collections.abc import AsyncIterator

import pytest

from storage.conformance import DriverConformance
from storage.errors import FenceExpired, Unsupported
from storage.memory import MemoryDriver


class TestMemory(DriverConformance):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[MemoryDriver]:
        driver = MemoryDriver()
        await driver.start()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, driver: MemoryDriver) -> MemoryDriver:
        return driver.replica()


async def test_a_key_is_no_folder_of_another_key() -> None:
    driver = MemoryDriver()
    await driver.put("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(Unsupported):
            await driver.put(key, b"y")
    await driver.put("a!", b"beside")
    await driver.put("a/c", b"beside")


async def test_fences_and_dates_follow_the_clock_that_was_given() -> None:
    now = 1000.0
    driver = MemoryDriver(clock=lambda: now, fence_lifetime=10)
    fence = driver.fence()
    await driver.put("key", b"in time", fence=fence)
    assert (await driver.get("key")).modified == 1000.0
    now = 1010.0
    with pytest.raises(FenceExpired):
        await driver.put("key", b"late", fence=fence)
