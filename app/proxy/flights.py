"""Single flight: whoever asks for a key while it is being worked on shares that work."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """Runs of work, at most one a key. A run belongs to nobody: it goes on when the caller that began it leaves."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[T]] = {}

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the run of `key` returns or raises, begun with `work` where there is none.

        A failure is that of all who joined, and of nobody after them. Raises CancelledError when `close` ended the run.
        """
        task = self._running.get(key)
        if task is None or task.done():
            task = self._running[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        await asyncio.wait((task,))  # unlike awaiting the task, this leaves it alone when the caller is cancelled
        return task.result()

    async def close(self) -> None:
        """Cancels what runs, and waits until it has ended."""
        while self._running:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # `_ended` runs after the tasks have ended

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not complain where every caller has left
