"""Memory is shared in order, comes back whole, and retries are rationed."""

import asyncio

import pytest
from hypothesis import given, settings, strategies as st

from storage.budget import ByteBudget, RetryBudget


async def test_what_fits_is_taken_at_once_and_what_does_not_waits() -> None:
    budget = ByteBudget(10)
    assert budget.take(7)
    assert not budget.take(4)
    waiting = asyncio.create_task(budget.wait(4))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.give(1)
    await waiting
    assert not budget.take(1)


async def test_a_small_taker_does_not_overtake_a_large_one() -> None:
    budget = ByteBudget(10)
    assert budget.take(8)
    order: list[str] = []

    async def taker(name: str, size: int) -> None:
        await budget.wait(size)
        order.append(name)

    tasks = []
    for name, size in (("large", 9), ("small", 1), ("smaller", 1)):
        tasks.append(asyncio.create_task(taker(name, size)))
        await asyncio.sleep(0)
    assert not budget.take(1)
    assert order == []
    budget.give(8)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["large", "small"]
    budget.give(9)
    await asyncio.gather(*tasks)
    assert order == ["large", "small", "smaller"]


async def test_a_cancelled_taker_lets_those_behind_it_pass() -> None:
    budget = ByteBudget(10)
    assert budget.take(8)
    large, small = asyncio.create_task(budget.wait(9)), asyncio.create_task(budget.wait(2))
    await asyncio.sleep(0)
    large.cancel()
    await small
    with pytest.raises(asyncio.CancelledError):
        await large
    budget.give(10)
    assert budget.take(10)


async def test_a_taker_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    budget = ByteBudget(10)
    assert budget.take(10)
    waiting = asyncio.create_task(budget.wait(10))
    await asyncio.sleep(0)
    budget.give(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.take(10)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10), st.booleans()), max_size=25))
def test_nothing_is_lost_whoever_is_cancelled(takers: list[tuple[int, bool]]) -> None:
    async def check() -> None:
        budget, held, most = ByteBudget(10), 0, 0

        async def one(size: int) -> None:
            nonlocal held, most
            await budget.wait(size)
            held += size
            most = max(most, held)
            try:
                await asyncio.sleep(0)
            finally:
                held -= size
                budget.give(size)

        tasks = [asyncio.create_task(one(size)) for size, _ in takers]
        for turn, (task, (_, cancelled)) in enumerate(zip(tasks, takers, strict=True)):
            if turn % 3 == 0:
                await asyncio.sleep(0)
            if cancelled:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (held, most <= 10) == (0, True)
        assert budget.take(10)

    asyncio.run(check())


def test_retries_end_in_an_outage_and_come_back_with_successes() -> None:
    budget = RetryBudget(limit=3, earned=0.5)
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
