"""What replicas keep in memory, how they hash, and how they work side by side."""

import asyncio
import hashlib
import time

import pytest
from hypothesis import given, strategies as st

from app.registry.bucket import ByteCache, side_by_side
from app.registry.hashing import Hashes, StreamHash, digest_of_stream
from app.registry.lifetimes import HOUR, scaled
from tests.registry.conftest import stream


@given(st.floats(1e-6, 1))
def test_lifetimes_end_in_the_order_that_the_protocol_needs(scale: float) -> None:
    lives = scaled(scale)
    skew = lives.fence  # stores refuse clocks that differ by more than a fence
    assert lives.fence + skew < lives.intent < lives.tombstone < lives.grace
    assert 2 * (lives.fence + skew) < lives.tombstone
    assert lives.upload + lives.fence < lives.tombstone


def test_the_real_fence_is_what_stores_enforce() -> None:
    assert scaled(1).fence == HOUR / 4


@given(st.lists(st.binary(max_size=4000), max_size=8), st.sampled_from(["sha256", "sha512"]), st.integers(1, 400))
def test_a_stream_hashes_as_its_bytes_do(chunks: list[bytes], algorithm: str, repeat: int) -> None:
    chunks = [chunk * repeat for chunk in chunks]

    async def hashed() -> str:
        running = StreamHash(algorithm)
        for chunk in chunks:
            await running.update(chunk)
        half = await running.digest()
        assert half == await running.digest()
        await running.update(b"more")
        assert running.size == sum(map(len, chunks)) + 4
        return await running.digest()

    expected = hashlib.new(algorithm, b"".join([*chunks, b"more"])).hexdigest()
    assert asyncio.run(hashed()) == f"{algorithm}:{expected}"


async def test_hashing_megabytes_does_not_hold_up_the_loop() -> None:
    data = bytes(1 << 20)
    worst, done = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        before = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now

    watching = asyncio.create_task(watch())
    await digest_of_stream(stream(*[data * 8] * 12), "sha512")  # 96 MiB: about 150 ms on one core
    done.set()
    await watching
    assert worst < 0.1


def test_a_suspended_hash_is_taken_once_and_only_at_its_offset() -> None:
    known, running = Hashes(), StreamHash("sha256")
    known.keep("upload", running)
    assert known.take("upload", 1) is None
    assert known.take("other", 0) is None
    assert known.take("upload", 0) is running
    assert known.take("upload", 0) is None


def test_hashes_of_uploads_that_never_go_on_are_dropped() -> None:
    known = Hashes()
    for number in range(5000):
        known.keep(str(number), StreamHash("sha256"))
    assert known.take("0", 0) is None
    assert known.take("4999", 0) is not None


@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 200)), max_size=60))
def test_a_cache_never_exceeds_its_limit_and_never_lies(puts: list[tuple[str, int]]) -> None:
    cache = ByteCache(800)
    for key, size in puts:
        data = f"{key}:".encode() + bytes(size)
        if cache.get(key) is None:
            cache.put(key, data)
    kept = {key: found for key, _ in puts if (found := cache.get(key)) is not None}
    assert all(found.startswith(f"{key}:".encode()) for key, found in kept.items())
    assert sum(map(len, kept.values())) <= 800
    assert all(len(found) <= 100 for found in kept.values())


def test_the_least_recently_used_bytes_are_dropped_first() -> None:
    cache = ByteCache(80)
    for letter in "abcdefgh":
        cache.put(letter, bytes(10))
    assert cache.get("a") is not None
    cache.put("i", bytes(10))
    assert cache.get("b") is None
    assert cache.get("a") is not None


async def test_side_by_side_keeps_the_order_and_bounds_what_runs() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number * 2

    assert await side_by_side(work, range(300)) == [number * 2 for number in range(300)]
    assert 1 < most <= 24
    assert await side_by_side(work, [21]) == [42]
    assert await side_by_side(work, []) == []


async def test_side_by_side_raises_the_first_failure_and_cancels_the_rest() -> None:
    cancelled = 0

    async def work(number: int) -> None:
        nonlocal cancelled
        if number == 3:
            raise LookupError("three")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    with pytest.raises(LookupError, match="three"):
        await side_by_side(work, range(8))
    assert cancelled == 7


async def test_side_by_side_is_cancelled_where_what_it_waits_for_was() -> None:
    async def work(number: int) -> int:
        if number == 3:
            raise asyncio.CancelledError  # a transfer that everybody waits for ends with the server
        await asyncio.sleep(0)
        return number

    with pytest.raises(asyncio.CancelledError):
        await side_by_side(work, range(8))
