"""A driver that is observed is still that driver, and each action is timed once."""

from collections.abc import AsyncIterator

import pytest

from storage.conformance import DriverConformance
from storage.errors import NotFound
from storage.memory import MemoryDriver
from storage.observed import Observed


class TestObserved(DriverConformance):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[Observed]:
        driver = Observed(MemoryDriver(), lambda action, seconds: None)
        await driver.start()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, driver: Observed) -> Observed:
        return Observed(driver.replica(), lambda action, seconds: None)


async def test_each_action_is_reported_once_with_its_seconds() -> None:
    seen: list[tuple[str, float]] = []
    driver = Observed(MemoryDriver(), lambda action, seconds: seen.append((action, seconds)))
    await driver.put("key", b"x")
    await driver.get("key")
    await driver.stat("key")
    await driver.list("")
    async with driver.open("key") as reader:
        assert [chunk async for chunk in reader] == [b"x"]
    await driver.copy("key", "copy")
    await driver.delete("key")
    await driver.delete_many(["copy"])
    writer = driver.create("data/key", "uploads/one/")
    await writer.write(b"x")
    state = await writer.suspend()
    await driver.resume("data/key", "uploads/one/", state).commit()
    await driver.create("data/other", "uploads/two/").abort()
    await driver.discard("uploads/one/")
    await driver.ready()
    assert [action for action, _ in seen] == [
        "put", "get", "stat", "list", "open", "copy", "delete", "delete_many", "suspend", "commit", "abort", "discard",
        "ready",
    ]  # fmt: skip
    assert all(0 <= seconds < 10 for _, seconds in seen)


async def test_failures_are_timed_too_and_pass_through() -> None:
    seen: list[str] = []
    driver = Observed(MemoryDriver(), lambda action, seconds: seen.append(action))
    with pytest.raises(NotFound):
        await driver.get("absent")
    with pytest.raises(NotFound):
        async with driver.open("absent"):
            pass
    assert seen == ["get", "open"]
    assert driver.name == "memory"
