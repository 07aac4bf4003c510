"""bcrypt in threads of its own: bounded in number, in what waits, and in what one origin may have waiting."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import bcrypt

from app.oci.errors import Unavailable


class HashingPool:
    """Runs `check(password, line)`, which frees the interpreter's lock, beside the event loop.

    Once half of the `waiting` places are taken, an origin that holds a quarter of them gets no more: whoever floods
    leaves room for the others.
    """

    def __init__(
        self, *, threads: int = 2, waiting: int = 64, check: Callable[[bytes, bytes], bool] = bcrypt.checkpw
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._waiting = waiting
        self._check = check
        self._count = 0
        self._of: Counter[str] = Counter()
        self._closed = False

    def submit(self, password: bytes, line: bytes, source: str) -> asyncio.Future[bool]:
        """Whether a password (at most 72 bytes) fits a hash. Raises Unavailable with Retry-After when too many wait."""
        greedy = self._count >= self._waiting // 2 and self._of[source] >= self._waiting // 4
        if self._closed or greedy or self._count >= self._waiting:
            raise Unavailable("too many passwords wait to be checked", headers={"Retry-After": "2"})
        self._count += 1
        self._of[source] += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._fits, password, line)
        future.add_done_callback(partial(self._done, source))
        return future

    def close(self) -> None:
        """Ends the threads after the checks that run; those that wait are dropped."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fits(self, password: bytes, line: bytes) -> bool:
        try:
            return self._check(password, line)
        except ValueError:  # a salt that looks right and is not: nobody can log in with it
            return False

    def _done(self, source: str, future: asyncio.Future[bool]) -> None:
        self._count -= 1
        self._of[source] -= 1
        if not self._of[source]:
            del self._of[source]
