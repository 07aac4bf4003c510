"""The lane: so many transfers and bytes a second, people before prefetch, and nothing lost when somebody leaves."""

import asyncio
import time
from collections.abc import Callable

import pytest

from app.proxy.lane import Lane, Turn


class Transfer:
    """One that takes a slot, and keeps it until it is told to end."""

    def __init__(self, lane: Lane, urgent: bool = True) -> None:
        self.turn = Turn(urgent)
        self.runs, self.end = asyncio.Event(), asyncio.Event()
        self._lane = lane
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._lane.slot(self.turn):
            self.runs.set()
            await self.end.wait()

    async def began(self) -> None:
        async with asyncio.timeout(10):
            await self.runs.wait()

    async def finish(self) -> None:
        self.end.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def settle() -> None:
    """Lets every task go as far as it can without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


async def running(*transfers: Transfer) -> list[bool]:
    await settle()
    return [transfer.runs.is_set() for transfer in transfers]


async def took(work: Callable[[], object]) -> float:
    began = time.monotonic()
    await work()  # type: ignore[misc]
    return time.monotonic() - began


async def test_no_more_transfers_run_than_there_are_connections() -> None:
    lane = Lane(2, None)
    transfers = [Transfer(lane) for _ in range(4)]
    assert await running(*transfers) == [True, True, False, False]
    await transfers[1].finish()
    assert await running(*transfers) == [True, True, True, False]
    for transfer in transfers:
        await transfer.finish()


async def test_the_urgent_go_first_whoever_came_first() -> None:
    lane = Lane(1, None)
    holder = Transfer(lane)
    await holder.began()
    background, urgent = Transfer(lane, urgent=False), Transfer(lane)
    await settle()
    await holder.finish()
    assert await running(background, urgent) == [False, True]
    await urgent.finish()
    assert await running(background) == [True]
    await background.finish()


async def test_no_prefetch_begins_while_somebody_is_served() -> None:
    lane = Lane(4, None)
    urgent = Transfer(lane)
    await urgent.began()
    background = Transfer(lane, urgent=False)
    assert await running(background) == [False]
    await urgent.finish()
    await background.began()
    await background.finish()


async def test_prefetch_leaves_a_connection_for_people() -> None:
    lane = Lane(3, None)
    prefetch = [Transfer(lane, urgent=False) for _ in range(3)]
    assert await running(*prefetch) == [True, True, False]
    urgent = Transfer(lane)
    assert await running(urgent) == [True]
    await urgent.finish()
    for transfer in prefetch:
        await transfer.finish()


async def test_a_prefetch_that_somebody_asks_for_moves_up() -> None:
    lane = Lane(1, None)
    holder = Transfer(lane)
    await holder.began()
    first, second = Transfer(lane, urgent=False), Transfer(lane, urgent=False)
    await settle()
    second.turn.hurry()
    second.turn.hurry()
    await holder.finish()
    assert await running(first, second) == [False, True]
    await second.finish()
    await first.finish()


async def test_a_prefetch_that_somebody_asks_for_begins_beside_other_peoples_transfers() -> None:
    lane = Lane(3, None)
    urgent = Transfer(lane)
    await urgent.began()
    background = Transfer(lane, urgent=False)
    assert await running(background) == [False]
    background.turn.hurry()
    assert await running(background) == [True]
    await urgent.finish()
    await background.finish()


async def test_who_leaves_the_queue_takes_nothing() -> None:
    lane = Lane(1, None)
    holder = Transfer(lane)
    await holder.began()
    waiter, next_one = Transfer(lane), Transfer(lane)
    await settle()
    await waiter.cancel()
    await holder.finish()
    assert await running(next_one) == [True]
    await next_one.finish()


async def test_an_urgent_one_that_leaves_the_queue_lets_prefetch_begin() -> None:
    lane = Lane(2, None)
    holders = [Transfer(lane) for _ in range(2)]
    await holders[1].began()
    urgent, background = Transfer(lane), Transfer(lane, urgent=False)
    await settle()
    await urgent.cancel()
    for holder in holders:
        await holder.finish()
    await background.began()
    await background.finish()


async def test_who_is_cancelled_in_the_moment_of_the_grant_gives_it_back() -> None:
    lane = Lane(1, None)
    holder = Transfer(lane)
    await holder.began()
    waiter, next_one = Transfer(lane), Transfer(lane)
    await settle()
    holder.end.set()
    while lane._running != [waiter.turn]:  # granted, and not yet awake
        await asyncio.sleep(0)
    await waiter.cancel()
    assert not waiter.runs.is_set()
    assert await running(next_one) == [True]
    await next_one.finish()
    await holder.task


async def test_a_transfer_that_fails_gives_its_connection_back() -> None:
    lane = Lane(1, None)
    with pytest.raises(OSError, match="broken"):
        async with lane.slot(Turn(urgent=True)):
            raise OSError("broken")
    async with asyncio.timeout(10), lane.slot(Turn(urgent=True)):
        assert len(lane._running) == 1
    assert lane._running == []


async def test_bytes_of_people_are_not_held_back_without_a_limit() -> None:
    lane = Lane(1, None)
    turn = Turn(urgent=True)

    async def take() -> None:
        for _ in range(1000):
            await lane.pass_(512 << 10, turn)

    assert await took(take) < 1


async def test_prefetch_stands_still_while_people_are_served_but_not_for_ever() -> None:
    lane = Lane(2, None, patience=0.05)
    background = Transfer(lane, urgent=False)
    await background.began()
    await lane.pass_(1, background.turn)
    urgent = Transfer(lane)
    await urgent.began()
    assert 0.04 < await took(lambda: lane.pass_(1, background.turn)) < 5
    await urgent.finish()
    await background.finish()


@pytest.mark.parametrize("event", ["the urgent one ends", "somebody asks for it"])
async def test_prefetch_goes_on_at_once_when(event: str) -> None:
    lane = Lane(2, None, patience=3600)
    background = Transfer(lane, urgent=False)
    await background.began()
    urgent = Transfer(lane)
    await urgent.began()
    held_back = asyncio.create_task(lane.pass_(1, background.turn))
    await settle()
    assert not held_back.done()
    if event == "the urgent one ends":
        await urgent.finish()
    else:
        background.turn.hurry()
    async with asyncio.timeout(10):
        await held_back
    await urgent.finish()
    await background.finish()


async def test_the_bandwidth_is_kept_after_a_small_burst() -> None:
    lane = Lane(1, 1_000_000)
    turn = Turn(urgent=True)

    async def take() -> None:
        for _ in range(9):
            await lane.pass_(50_000, turn)

    assert 0.19 < await took(take) < 5  # 450 kB, of which 250 kB may be taken at once


async def test_a_piece_larger_than_the_burst_passes_and_is_paid_for_afterwards() -> None:
    lane = Lane(1, 1_000_000)
    turn = Turn(urgent=True)
    assert await took(lambda: lane.pass_(400_000, turn)) < 5
    assert 0.15 < await took(lambda: lane.pass_(1_000, turn)) < 5  # a debt of 150 kB


async def test_two_transfers_get_the_same_bytes_whatever_the_size_of_their_pieces() -> None:
    lane = Lane(2, 2_000_000)
    await lane.pass_(500_000, Turn(urgent=True))  # the burst is used up
    taken = {"large": 0, "small": 0}

    async def take(name: str, size: int) -> None:
        turn = Turn(urgent=True)
        while True:
            await lane.pass_(size, turn)
            taken[name] += size
            if sum(taken.values()) > 600_000:
                return

    takers = [asyncio.create_task(take("large", 50_000)), asyncio.create_task(take("small", 5_000))]
    await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
    assert abs(taken["large"] - taken["small"]) <= 100_000
    await asyncio.gather(*takers)


async def test_a_newcomer_gets_its_share_and_no_more() -> None:
    lane = Lane(2, 400_000)
    old, new = Turn(urgent=True), Turn(urgent=True)
    for _ in range(10):
        await lane.pass_(10_000, old)  # alone, and inside the burst
    await lane.pass_(10_000, old)
    order: list[str] = []

    async def take(name: str, turn: Turn, times: int) -> None:
        for _ in range(times):
            await lane.pass_(1_000, turn)
            order.append(name)

    await asyncio.gather(take("old", old, 5), take("new", new, 40))
    assert order.index("old") <= 12  # it makes up for the last piece of 10 kB, not for all of them


async def test_people_take_bytes_before_prefetch() -> None:
    lane = Lane(2, 100_000)
    await lane.pass_(26_000, Turn(urgent=True))  # the burst is used up
    order: list[str] = []

    async def take(name: str, turn: Turn) -> None:
        await lane.pass_(1_000, turn)
        order.append(name)

    background, hurried = Turn(urgent=False), Turn(urgent=False)
    takers = [
        asyncio.create_task(take(name, turn))
        for name, turn in [("background", background), ("hurried", hurried), ("urgent", Turn(urgent=True))]
    ]
    await settle()
    hurried.hurry()
    await asyncio.gather(*takers)
    assert order == ["hurried", "urgent", "background"]


async def test_prefetch_is_not_starved_by_people_who_use_all_the_bandwidth() -> None:
    lane = Lane(2, 200_000, patience=0.1)
    done = False

    async def hog(turn: Turn) -> None:
        while not done:
            await lane.pass_(2_000, turn)

    hogs = [asyncio.create_task(hog(Turn(urgent=True))) for _ in range(3)]
    await lane.pass_(60_000, Turn(urgent=True))
    async with asyncio.timeout(10):
        await lane.pass_(100, Turn(urgent=False))
    done = True
    await asyncio.gather(*hogs)


async def test_who_is_cancelled_while_waiting_for_bytes_takes_none() -> None:
    lane = Lane(1, 1_000_000)
    await lane.pass_(300_000, Turn(urgent=True))
    waiters = [asyncio.create_task(lane.pass_(250_000, Turn(urgent=True))) for _ in range(20)]
    await settle()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    assert lane._takers == []
    assert lane._timer is None
    assert await took(lambda: lane.pass_(1_000, Turn(urgent=True))) < 1  # 20 pieces would have taken 5 s


async def test_who_is_cancelled_in_the_moment_bytes_are_given_gives_them_back() -> None:
    lane = Lane(2, 1_000, patience=3600)
    urgent = Transfer(lane)
    await urgent.began()
    waiter = asyncio.create_task(lane.pass_(2_500, Turn(urgent=False)))
    await settle()
    urgent.end.set()
    while lane._takers:  # given, and not yet awake
        await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert await took(lambda: lane.pass_(250, Turn(urgent=True))) < 1.5  # else a debt of 2.5 s
    await urgent.task
