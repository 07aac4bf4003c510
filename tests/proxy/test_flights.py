"""Single flight: one run for all who ask at once, which outlives each of them."""

import asyncio
import gc
from contextlib import suppress

import pytest

from app.proxy.flights import Flights


class Work:
    """Counts its runs; each ends when it is let go."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.runs = self.ended = 0
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self._failure = failure

    async def __call__(self) -> int:
        self.runs += 1
        self.began.set()
        await self.go.wait()
        self.ended += 1
        if self._failure is not None:
            raise self._failure
        return self.runs


async def test_callers_of_one_key_share_one_run() -> None:
    flights: Flights[str, int] = Flights()
    work, other = Work(), Work()
    joined = [asyncio.create_task(flights.join("a", work)) for _ in range(20)]
    apart = asyncio.create_task(flights.join("b", other))
    await work.began.wait()
    work.go.set()
    other.go.set()
    assert await asyncio.gather(*joined) == [1] * 20
    assert await apart == 1
    assert (work.runs, other.runs) == (1, 1)


async def test_the_failure_is_everybodys_and_the_next_caller_tries_again() -> None:
    flights: Flights[str, int] = Flights()
    work = Work(OSError("broken"))
    joined = [asyncio.create_task(flights.join("a", work)) for _ in range(5)]
    await work.began.wait()
    work.go.set()
    assert [str(failure) for failure in await asyncio.gather(*joined, return_exceptions=True)] == ["broken"] * 5
    with pytest.raises(OSError, match="broken"):
        await flights.join("a", work)
    assert work.runs == 2


async def test_a_caller_that_fails_and_asks_again_at_once_gets_a_new_run() -> None:
    flights: Flights[str, int] = Flights()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OSError
        return runs

    async def stubborn() -> int:
        with suppress(OSError):
            return await flights.join("a", work)
        return await flights.join("a", work)

    assert await asyncio.gather(*(stubborn() for _ in range(3))) == [2, 2, 2]


async def test_who_comes_in_the_moment_a_run_ends_begins_one_that_others_share() -> None:
    flights: Flights[str, int] = Flights()
    ending, go = asyncio.Event(), asyncio.Event()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            ending.set()  # wakes `late` after this run has ended and before its callbacks
        else:
            await go.wait()
        return runs

    async def late() -> int:
        await ending.wait()
        return await flights.join("a", work)

    second = asyncio.create_task(late())
    await asyncio.sleep(0)
    assert await flights.join("a", work) == 1
    third = asyncio.create_task(flights.join("a", work))
    await asyncio.sleep(0)
    go.set()
    assert (await second, await third) == (2, 2)
    assert runs == 2


async def test_the_run_goes_on_when_callers_leave() -> None:
    flights: Flights[str, int] = Flights()
    work = Work()
    first, second = (asyncio.create_task(flights.join("a", work)) for _ in range(2))
    await work.began.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.go.set()
    assert await second == 1
    assert (work.runs, work.ended) == (1, 1)


async def test_a_failure_that_nobody_waits_for_is_no_complaint_of_asyncio() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    flights: Flights[str, int] = Flights()
    work = Work(OSError("broken"))
    caller = asyncio.create_task(flights.join("a", work))
    await work.began.wait()
    caller.cancel()
    with suppress(asyncio.CancelledError):
        await caller
    work.go.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.ended == 1
    del caller  # its traceback holds the run
    gc.collect()
    assert complaints == []


async def test_close_cancels_what_runs() -> None:
    flights: Flights[str, int] = Flights()
    work = Work()
    caller = asyncio.create_task(flights.join("a", work))
    await work.began.wait()
    await flights.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.ended == 0
    work.go.set()
    assert await flights.join("a", work) == 2


async def test_nothing_is_kept_of_runs_that_ended() -> None:
    flights: Flights[int, int] = Flights()

    async def work() -> int:
        return 1

    for key in range(100):
        await flights.join(key, work)
    await asyncio.sleep(0)
    assert flights._running == {}
