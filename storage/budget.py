"""Limits that all requests of a process share: bytes held in memory, and retries."""

import asyncio
from collections import deque


class ByteBudget:
    """Bytes that may be held at once. Takers wait in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int) -> bool:
        """Takes `size` bytes at once, or returns False; never overtakes somebody who waits."""
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    async def wait(self, size: int) -> None:
        """Takes `size` bytes, when others have given enough back. A cancelled wait takes nothing."""
        if self.take(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                self._wake()
            raise

    def give(self, size: int) -> None:
        """Gives bytes back."""
        self._free += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)


class RetryBudget:
    """Retries a process may spend: each costs one, each success earns a little back, so an outage is not multiplied."""

    def __init__(self, limit: float = 500.0, earned: float = 0.2) -> None:
        self._limit = limit
        self._left = limit
        self._earned = earned

    def spend(self) -> bool:
        """Whether one more retry may be made."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self) -> None:
        """Notes a success."""
        self._left = min(self._limit, self._left + self._earned)
