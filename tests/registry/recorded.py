"""A driver that writes down what it is asked, and does what a test says at the moment the test names."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from storage import PAGE, Condition, Entry, Fence, Object, Page, Reader
from storage.memory import MemoryDriver

Act = Callable[[], Awaitable[None]]
Acts = list[tuple[str, str, Act]]


class Clock:
    """Seconds since 1970, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Recorded:
    """A memory driver. `log` holds (action, key); acts run before or after an action.

    Keys are named by how they begin, or, with a `/` in front, by what they contain.
    """

    name = "memory"

    def __init__(self, driver: MemoryDriver) -> None:
        self._driver = driver
        self.log: list[tuple[str, str]] = []
        self._before: Acts = []
        self._after: Acts = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def before(self, action: str, part: str, act: Act) -> None:
        """Runs `act` once, before the first such request; what it raises is the request's failure."""
        self._before.append((action, part, act))

    def after(self, action: str, part: str, act: Act) -> None:
        """Runs `act` once, after the store applied the first such request and before its answer arrives."""
        self._after.append((action, part, act))

    def places(self, action: str, part: str) -> Sequence[int]:
        """Where in the log such requests stand."""
        return [at for at, (done, key) in enumerate(self.log) if done == action and _meant(part, key)]

    def place(self, action: str, part: str) -> int:
        """Where in the log the only such request stands."""
        (found,) = self.places(action, part)
        return found

    def open(self, key: str, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[Reader]:
        self.log.append(("open", key))
        return self._driver.open(key, start, end)

    async def get(self, key: str) -> Object:
        return await self._recorded("get", key, lambda: self._driver.get(key))

    async def stat(self, key: str) -> Entry:
        return await self._recorded("stat", key, lambda: self._driver.stat(key))

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        await self._recorded("put", key, lambda: self._driver.put(key, data, condition=condition, fence=fence))

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        await self._recorded("delete", key, lambda: self._driver.delete(key, fence=fence))

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        for key in keys:
            await self.delete(key, fence=fence)

    async def copy(self, source: str, target: str) -> None:
        await self._recorded("copy", source, lambda: self._driver.copy(source, target))

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        return await self._recorded("list", prefix, lambda: self._driver.list(prefix, after=after, limit=limit))

    async def _recorded(self, action: str, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        self.log.append((action, key))
        await self._run(self._before, action, key)
        answer = await work()
        await self._run(self._after, action, key)
        return answer

    @staticmethod
    async def _run(acts: Acts, action: str, key: str) -> None:
        for entry in [entry for entry in acts if entry[0] == action and _meant(entry[1], key)]:
            acts.remove(entry)
            await entry[2]()


def _meant(part: str, key: str) -> bool:
    return part in key if part.startswith("/") else key.startswith(part)
