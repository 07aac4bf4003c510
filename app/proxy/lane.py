"""The lane to one upstream: how many transfers run at once and how many bytes a second, people before prefetch."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary

_BURST: Final = 0.25
"""Seconds of bandwidth that may be taken at once after a pause."""
_TICK: Final = 0.001
"""Seconds that the least wait lasts, so that rounding does not make it spin."""
_PATIENCE: Final = 10.0
"""Most seconds that a background transfer is held back at a time: upstreams close connections that stand still."""


class Turn:
    """How urgent a transfer is. It may become urgent while it runs, when somebody asks for what it fetches."""

    def __init__(self, urgent: bool) -> None:
        """Urgent: somebody waits for it."""
        self._urgent = urgent
        self._watchers: set[Callable[[], None]] = set()

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it."""
        return self._urgent

    def hurry(self) -> None:
        """Makes it urgent, which moves it up where it waits."""
        if not self._urgent:
            self._urgent = True
            for look_again in self._watchers:
                look_again()

    def watch(self, look_again: Callable[[], None]) -> None:
        """Calls `look_again` when it becomes urgent; once, however often the same one is given."""
        self._watchers.add(look_again)


@dataclass(eq=False, slots=True)
class _Waiter:
    """One who waits for a connection, or for `size` bytes; `start` is its place by the bytes that its turn has had."""

    turn: Turn
    number: int
    size: int = 0
    start: float = 0.0
    overdue: bool = False
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def first(self) -> bool:
        return self.turn.urgent or self.overdue

    @property
    def rank(self) -> tuple[bool, float, int]:
        return not self.first, self.start, self.number


class Lane:
    """Connections and bandwidth of one upstream, in one process.

    One connection of several is never given to background transfers, so that an urgent one need not wait for a large
    prefetch to end. Of one connection it must.
    """

    def __init__(self, connections: int, bandwidth: int | None, *, patience: float = _PATIENCE) -> None:
        """`connections` transfers at once; `bandwidth` in bytes a second, None for no limit."""
        self._connections, self._patience = connections, patience
        self._bandwidth, self._bucket = bandwidth, _Bucket(bandwidth)
        self._numbers = count()
        self._running: list[Turn] = []
        self._arrivals: list[_Waiter] = []
        self._takers: list[_Waiter] = []
        self._shares: WeakKeyDictionary[Turn, float] = WeakKeyDictionary()
        self._served = 0.0  # the place up to which bytes were given
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, turn: Turn) -> AsyncIterator[None]:
        """A connection, from when it is free until the block ends; people first, then in the order of arrival."""
        turn.watch(self._look_again)
        await self._granted(_Waiter(turn, next(self._numbers)), self._arrivals, lambda: self._running.remove(turn))
        try:
            yield
        finally:
            self._running.remove(turn)
            self._look_again()

    async def pass_(self, size: int, turn: Turn) -> None:
        """Waits until `size` bytes may be taken: people first, and fair by bytes among them.

        A background turn waits while urgent transfers run, but at most for the patience, and then goes with the urgent.
        """
        if self._bandwidth is None and (turn.urgent or not self._busy()):
            return
        turn.watch(self._look_again)
        waiter = _Waiter(turn, next(self._numbers), size, max(self._served, self._shares.get(turn, 0.0)))
        timer = asyncio.get_running_loop().call_later(self._patience, self._promote, waiter)
        try:
            await self._granted(waiter, self._takers, lambda: self._bucket.give_back(size))
        finally:
            timer.cancel()

    async def _granted(self, waiter: _Waiter, queue: list[_Waiter], undo: Callable[[], None]) -> None:
        """Stands in the queue. Who is cancelled leaves it, or undoes what was given in that very moment."""
        queue.append(waiter)
        self._look_again()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
            else:
                undo()
            self._look_again()
            raise

    def _busy(self) -> bool:
        """Whether somebody's transfer runs."""
        return any(turn.urgent for turn in self._running)

    def _promote(self, waiter: _Waiter) -> None:
        waiter.overdue = True
        self._look_again()

    def _look_again(self) -> None:
        """Gives what can be given. Called whenever anything changed, so nobody polls."""
        self._open()
        self._give()

    def _open(self) -> None:
        """Gives free connections."""
        waiting = [waiter for waiter in self._arrivals if not waiter.granted.done()]
        for waiter in sorted(waiting, key=lambda waiter: waiter.rank):
            if not self._may_run(waiter.turn):
                return
            self._arrivals.remove(waiter)
            self._running.append(waiter.turn)
            waiter.granted.set_result(None)

    def _may_run(self, turn: Turn) -> bool:
        if len(self._running) >= self._connections:
            return False
        return turn.urgent or (not self._busy() and len(self._running) < max(1, self._connections - 1))

    def _give(self) -> None:
        """Gives bytes, to the one who had the fewest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while True:
            quiet = not self._busy()
            waiting = [taker for taker in self._takers if not taker.granted.done() and (taker.first or quiet)]
            if not waiting:
                return
            taker = min(waiting, key=lambda taker: taker.rank)
            wait = self._bucket.take(taker.size)
            if wait > 0:
                self._timer = asyncio.get_running_loop().call_later(wait, self._give)
                return
            self._takers.remove(taker)
            self._served = max(self._served, taker.start)
            self._shares[taker.turn] = taker.start + taker.size
            taker.granted.set_result(None)


class _Bucket:
    """Bytes that may be taken now: they come back with time, up to a quarter of a second's."""

    def __init__(self, bandwidth: int | None) -> None:
        self._bandwidth = bandwidth
        self._left = self._most = (bandwidth or 0) * _BURST
        self._filled: float | None = None

    def take(self, size: int) -> float:
        """Takes `size` bytes and returns 0, or the seconds until they may be taken. More than the burst is a debt."""
        if self._bandwidth is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        if self._filled is not None:
            self._left = min(self._most, self._left + (now - self._filled) * self._bandwidth)
        self._filled = now
        missing = min(size, self._most) - self._left
        if missing > 0:
            return max(missing / self._bandwidth, _TICK)
        self._left -= size
        return 0.0

    def give_back(self, size: int) -> None:
        """Undoes a take."""
        self._left = min(self._most, self._left + size)
