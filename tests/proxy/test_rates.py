"""The rate limit: what headers say, how long a 429 lasts, and what is kept for people."""

import math

import pytest
from multidict import CIMultiDict

from app.proxy.rates import RateLimit


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(limit: str, remaining: str) -> CIMultiDict[str]:
    return CIMultiDict({"RateLimit-Limit": limit, "RateLimit-Remaining": remaining})


def test_docker_hubs_headers_are_read() -> None:
    rates = RateLimit(10)
    assert (rates.limit, rates.remaining, rates.window) == (None, None, None)
    rates.observe(answer("100;w=21600", "76;w=21600"))
    assert (rates.limit, rates.remaining, rates.window) == (100, 76, 21600)


@pytest.mark.parametrize("text", ["", "many", "-1", ";w=1", "w=21600", "\u0661"])
def test_headers_that_cannot_be_read_change_nothing(text: str) -> None:
    rates = RateLimit(10)
    rates.observe(answer("100;w=21600", "76;w=21600"))
    rates.observe(answer(text, text))
    rates.observe(CIMultiDict())
    assert (rates.limit, rates.remaining, rates.window) == (100, 76, 21600)


def test_a_number_without_a_window_and_a_list_are_read() -> None:
    rates = RateLimit(10)
    rates.observe(answer("100, 100;w=60", "5"))
    assert (rates.limit, rates.remaining, rates.window) == (100, 5, None)


def test_prefetch_stops_at_the_reserve() -> None:
    rates = RateLimit(10)
    assert rates.spare()
    rates.observe(answer("100;w=21600", "11;w=21600"))
    assert rates.spare()
    rates.observe(answer("100;w=21600", "10;w=21600"))
    assert not rates.spare()
    assert rates.refuses() is None  # people may go on


def test_a_count_is_forgotten_when_its_window_has_passed() -> None:
    clock = Clock()
    rates = RateLimit(10, clock=clock)
    rates.observe(answer("100;w=600", "0;w=600"))
    clock.now += 599
    assert (rates.remaining, rates.spare()) == (0, False)
    clock.now += 1
    assert (rates.remaining, rates.spare()) == (None, True)


def test_nobody_asks_during_the_seconds_that_a_429_named() -> None:
    clock = Clock()
    rates = RateLimit(10, clock=clock)
    rates.limited(30)
    clock.now += 10
    assert rates.refuses() == 20
    assert not rates.spare()
    clock.now += 20
    assert rates.refuses() is None
    assert rates.spare()


@pytest.mark.parametrize("said", [None, math.nan, -5])
def test_a_429_without_a_time_lasts_longer_each_time_it_comes_again(said: float | None) -> None:
    clock = Clock()
    rates = RateLimit(10, clock=clock)
    waits = []
    for _ in range(6):
        rates.limited(said)
        rates.limited(said)  # another request that ran into the same limit
        waits.append(rates.refuses())
        clock.now += waits[-1] or 0
    assert waits == [60, 120, 240, 480, 900, 900]
    clock.now += 3600
    rates.limited(said)
    assert rates.refuses() == 60


@pytest.mark.parametrize(("said", "believed"), [(0, 1), (1e12, 6 * 3600), (math.inf, 6 * 3600)])
def test_absurd_times_are_bounded(said: float, believed: float) -> None:
    rates = RateLimit(10, clock=Clock())
    rates.limited(said)
    assert rates.refuses() == believed


def test_a_second_429_does_not_shorten_the_first() -> None:
    clock = Clock()
    rates = RateLimit(10, clock=clock)
    rates.limited(100)
    rates.limited(5)
    rates.limited(None)
    assert rates.refuses() == 100
