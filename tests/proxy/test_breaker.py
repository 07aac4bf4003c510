"""The breaker: outages open it, answers close it, and only its own probe asks meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from app.proxy.breaker import Breaker, _span
from app.proxy.errors import Denied, Failing, Missing, Portal, RateLimited, Unreachable, UpstreamError


class Changes:
    """The states that a breaker went through, awaitable."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._moved = asyncio.Event()

    def __call__(self, state: str, reason: str) -> None:
        self.seen.append((state, reason))
        self._moved.set()

    @property
    def states(self) -> list[str]:
        return [state for state, _ in self.seen]

    async def until(self, *states: str) -> None:
        """Waits until the last states are these."""
        async with asyncio.timeout(10):
            while tuple(self.states[-len(states) :]) != states:
                self._moved.clear()
                await self._moved.wait()


@asynccontextmanager
async def watched(breaker: Breaker, probe: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(breaker.watch(probe))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def opened(**given: float) -> tuple[Breaker, Changes]:
    """A breaker that an outage opened, with pauses of milliseconds."""
    changes = Changes()
    pauses = {"first_pause": 0.01, "longest_pause": 0.02, **given}
    breaker = Breaker("docker.io", threshold=1, on_change=changes, **pauses)
    breaker.failed(Unreachable("docker.io: no route"))
    return breaker, changes


@pytest.mark.parametrize("failure", [Unreachable("x"), Failing("x"), Portal("x")])
def test_outages_in_a_row_open_it(failure: UpstreamError) -> None:
    breaker = Breaker("docker.io", threshold=2)
    breaker.failed(failure)
    breaker.admit()
    assert (breaker.state, breaker.since) == ("closed", None)
    before = time.time()
    breaker.failed(failure)
    assert breaker.state == "open"
    assert breaker.since is not None
    assert before <= breaker.since <= time.time()
    with pytest.raises(Unreachable, match=r"^docker\.io has been .* for 0 s \(") as refusal:
        breaker.admit()
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 10


def test_an_answer_between_two_outages_keeps_it_closed() -> None:
    breaker = Breaker("docker.io", threshold=2)
    for _ in range(3):
        breaker.failed(Unreachable("x"))
        breaker.succeeded()
    assert breaker.state == "closed"


@pytest.mark.parametrize("failure", [Missing("x"), Denied("x"), RateLimited("x")])
def test_an_error_that_the_registry_answered_is_an_answer(failure: UpstreamError) -> None:
    breaker = Breaker("docker.io", threshold=2)
    breaker.failed(Unreachable("x"))
    breaker.failed(failure)
    breaker.failed(Unreachable("x"))
    assert breaker.state == "closed"


def test_many_failures_at_once_open_it_once() -> None:
    changes = Changes()
    breaker = Breaker("docker.io", on_change=changes)
    for number in range(50):
        breaker.failed(Unreachable(f"failure {number}"))
    assert changes.seen == [("open", "failure 1")]


def test_the_late_answer_to_an_older_request_closes_it() -> None:
    breaker, changes = opened()
    breaker.succeeded()
    breaker.admit()
    assert (breaker.state, breaker.since) == ("closed", None)
    assert changes.seen[-1] == ("closed", "docker.io answers again after 0 s")


def test_a_miss_while_open_costs_microseconds() -> None:
    breaker, _ = opened()
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(Unreachable):
            breaker.admit()
    assert (time.perf_counter() - began) / 1000 < 0.005


async def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, changes = opened()

    async def probe() -> None:
        breaker.admit()  # as the client's ping does

    async with watched(breaker, probe):
        await changes.until("open", "half_open", "closed")
    breaker.admit()


async def test_probes_go_on_until_one_succeeds_and_a_later_outage_is_probed_too() -> None:
    breaker, changes = opened()
    asked = 0

    async def probe() -> None:
        nonlocal asked
        asked += 1
        if asked in (1, 2, 4):
            raise Unreachable(f"probe {asked}")

    async with watched(breaker, probe):
        await changes.until("closed")
        assert changes.states == ["open", "half_open", "open", "half_open", "open", "half_open", "closed"]
        assert ("open", "probe 2") in changes.seen
        breaker.failed(Portal("docker.io: HTML"))
        await changes.until("open", "half_open", "open", "half_open", "closed")
    assert asked == 5


async def test_requests_are_refused_while_the_probe_is_on_its_way() -> None:
    breaker, changes = opened()
    answer = asyncio.Event()

    async def probe() -> None:
        await answer.wait()

    async with watched(breaker, probe):
        await changes.until("half_open")
        with pytest.raises(Unreachable):
            breaker.admit()
        breaker.failed(Unreachable("an older request"))  # says nothing about the probe
        assert breaker.state == "half_open"
        answer.set()
        await changes.until("closed")


async def test_a_probe_that_is_refused_by_the_registry_closes_it() -> None:
    breaker, changes = opened()

    async def probe() -> None:
        raise RateLimited("docker.io: 429")

    async with watched(breaker, probe):
        await changes.until("open", "half_open", "closed")


async def test_a_probe_with_a_defect_does_not_leave_it_open_for_ever() -> None:
    breaker, changes = opened()
    asked = 0

    async def probe() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyError("secret")

    async with watched(breaker, probe):
        await changes.until("closed")
    assert changes.states == ["open", "half_open", "open", "half_open", "closed"]
    assert changes.seen[2][1] == "the probe of docker.io failed: KeyError"


async def test_a_watch_that_is_cancelled_leaves_it_open() -> None:
    breaker, changes = opened()

    async def probe() -> None:
        await asyncio.Event().wait()

    async with watched(breaker, probe):
        await changes.until("half_open")
    assert breaker.state == "open"
    with pytest.raises(Unreachable):
        breaker.admit()


async def test_nothing_is_probed_once_a_late_answer_closed_it_nor_too_soon_when_it_opens_again() -> None:
    breaker, changes = opened(first_pause=60, longest_pause=60)
    asked = asyncio.Event()

    async def probe() -> None:
        asked.set()

    async with watched(breaker, probe):
        await asyncio.sleep(0)
        breaker.succeeded()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.is_set()
        assert changes.states == ["open", "closed"]
        breaker.failed(Unreachable("docker.io: no route"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.is_set()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 m"), (7300, "2 h"), (2e5, "2 d")])
def test_spans_are_said_in_one_unit(seconds: float, text: str) -> None:
    assert _span(seconds) == text


def test_one_thing_that_cannot_be_had_opens_nothing_but_two_do() -> None:
    breaker = Breaker("up.example", threshold=2)
    states = []
    for one in [*["one"] * 5, "two"]:
        breaker.failed(Failing("up.example answered 500"), f"team/app/blobs/{one}")
        states.append(breaker.state)
    assert states == [*["closed"] * 5, "open"]
