"""What every driver passes: each sentence of the contract, as a test that runs against a real store.

A driver's test module subclasses `DriverConformance` under a name that begins with `Test` and gives two fixtures:
`driver`, a started driver on an empty store, and `other`, a second started driver on the same store, as another process
would have. pytest needs `asyncio_mode = "auto"`.
"""
# ruff: noqa: S101 - tests assert

import asyncio
import hashlib
import itertools
import json
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from storage.driver import PAGE, Absent, Driver, Fence, Version, Writer
from storage.errors import ConditionFailed, FenceExpired, NotFound, StorageError

SCRATCH = "uploads/one/"
AWKWARD = (
    "a",
    "a!",
    "a!/x",
    "a%",
    "a%2Fb",
    "a&b=c",
    "a'(b)",
    "a+b",
    "a,b",
    "a-b",
    "a.b",
    "a0",
    "a:b",
    "a<b>",
    "a=",
    "aB",
)
FOLDERS = ("A", "_", "a!", "a-", "a-b/c", "a.b", "a.b.c/d", "a/b", "a/b!", "a/b-c", "a/c/d", "a0", "aa", "b~", "z")


def content(size: int) -> bytes:
    """`size` bytes that repeat nowhere, the same in every run."""
    return hashlib.shake_256(b"conformance").digest(size)


async def read(driver: Driver, key: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a range."""
    async with driver.open(key, start, end) as reader:
        return b"".join([chunk async for chunk in reader])


async def keys(driver: Driver, prefix: str = "", after: str = "", limit: int = PAGE) -> list[str]:
    """The keys of one page."""
    return [entry.key for entry in (await driver.list(prefix, after=after, limit=limit)).entries]


async def store(driver: Driver, key: str, data: bytes) -> None:
    """Writes an object that is too big for a put."""
    writer = driver.create(key, SCRATCH)
    await writer.write(data)
    await writer.commit()


async def put_all(driver: Driver, names: Iterable[str], data: bytes = b"x") -> None:
    """Puts many objects, some at a time."""
    await together(driver.put(name, data) for name in names)


async def together(actions: Iterable[Awaitable[None]], most: int = 16) -> None:
    """Waits for all, of which `most` run at once."""
    turns = asyncio.Semaphore(most)

    async def one(action: Awaitable[None]) -> None:
        async with turns:
            await action

    await asyncio.gather(*(one(action) for action in actions))


async def suspended(writer: Writer) -> dict[str, Any]:
    """The state of a writer, as it looks after it was stored as JSON."""
    state: dict[str, Any] = json.loads(json.dumps(await writer.suspend()))
    return state


def expired(driver: Driver) -> Fence:
    """A fence that ended a minute ago."""
    now = driver.fence()
    return Fence(now.signed_at - now.lifetime - 60, now.lifetime)


class DriverConformance:
    """The suite. Tests say the sentence they prove."""

    # Small objects

    async def test_what_was_put_is_read_back(self, driver: Driver, other: Driver) -> None:
        await driver.put("a/b", b"bytes")
        assert (await other.get("a/b")).data == b"bytes"
        assert await read(other, "a/b") == b"bytes"

    @pytest.mark.parametrize("key", [*AWKWARD, "a" * 255, "/".join(["s" * 200] * 5)])
    async def test_awkward_keys_hold_an_object(self, driver: Driver, key: str) -> None:
        await driver.put(key, b"here")
        assert (await driver.get(key)).data == b"here"
        assert await keys(driver) == [key]
        assert await keys(driver, key) == [key]
        await driver.delete(key)
        assert await keys(driver) == []

    async def test_an_empty_object_is_an_object(self, driver: Driver) -> None:
        await driver.put("empty", b"")
        assert (await driver.get("empty")).data == b""
        assert (await driver.stat("empty")).size == 0
        assert await read(driver, "empty") == b""

    async def test_a_put_takes_the_biggest_manifest(self, driver: Driver) -> None:
        data = content(4 << 20)
        await driver.put("manifest", data)
        assert (await driver.get("manifest")).data == data

    async def test_stat_get_and_list_say_the_same(self, driver: Driver) -> None:
        await driver.put("key", b"12345")
        got, stat, listed = await driver.get("key"), await driver.stat("key"), (await driver.list("")).entries[0]
        assert (stat.key, stat.size) == (listed.key, listed.size) == ("key", 5)
        assert got.version == stat.version == listed.version
        assert max(got.modified, stat.modified, listed.modified) - min(got.modified, stat.modified, listed.modified) < 2

    async def test_a_key_that_is_not_there_is_not_found(self, driver: Driver) -> None:
        await driver.put("there/inside", b"x")
        for key in ("absent", "absent/inside", "there", "there/insid", "there/inside2"):
            with pytest.raises(NotFound):
                await driver.get(key)
            with pytest.raises(NotFound):
                await driver.stat(key)
            with pytest.raises(NotFound):
                await read(driver, key)

    async def test_an_overwrite_is_seen_at_once_by_everybody(self, driver: Driver, other: Driver) -> None:
        for turn in range(10):
            writer, reader = (driver, other) if turn % 2 else (other, driver)
            before = (await reader.get("key")).version if turn else ""
            await writer.put("key", b"%d" % turn)
            after = await reader.get("key")
            assert after.data == b"%d" % turn
            assert after.version != before

    async def test_a_reader_never_sees_half_an_object(self, driver: Driver, other: Driver) -> None:
        wholes = {bytes([letter]) * 100_000 for letter in b"abcdefgh"}
        await driver.put("key", b"a" * 100_000)
        writes = asyncio.gather(*(driver.put("key", whole) for whole in wholes))
        while not writes.done():
            assert (await other.get("key")).data in wholes
        await writes

    async def test_delete_removes_and_repeats(self, driver: Driver, other: Driver) -> None:
        await driver.put("a/b/c", b"x")
        await driver.delete("a/b/c")
        with pytest.raises(NotFound):
            await other.get("a/b/c")
        await other.delete("a/b/c")
        await other.delete("never/was")

    async def test_deletes_beside_puts_lose_nothing(self, driver: Driver, other: Driver) -> None:
        async def come_and_go(number: int) -> None:
            mine, stays = f"deep/er/{number}", f"deep/er/stays-{number}"
            await driver.put(mine, b"x")
            await asyncio.gather(other.delete(mine), driver.put(stays, b"x"))

        await together(come_and_go(number) for number in range(40))
        assert await keys(driver, "deep/") == sorted(f"deep/er/stays-{number}" for number in range(40))

    async def test_puts_into_a_folder_that_others_empty_succeed(self, driver: Driver, other: Driver) -> None:
        async def come_and_go(store: Driver, key: str) -> None:
            for _ in range(150):
                await store.put(key, b"x", condition=Absent())
                await store.delete(key)

        await asyncio.gather(*(come_and_go(store, f"deep/er/{n}") for n, store in enumerate((driver, other, driver))))
        assert await keys(driver) == []

    async def test_delete_many_takes_any_number_and_absent_ones(self, driver: Driver) -> None:
        await driver.delete_many([])
        names = [f"many/{number:04}" for number in range(1200)]
        await put_all(driver, [*names[::2], "stays"])
        await driver.delete_many(names)
        assert await keys(driver) == ["stays"]

    async def test_copy_leaves_two_objects(self, driver: Driver) -> None:
        data = content(3_000_001)
        await store(driver, "from", data)
        await driver.copy("from", "to/here")
        await driver.delete("from")
        assert await read(driver, "to/here") == data

    async def test_copy_of_nothing_is_not_found(self, driver: Driver) -> None:
        with pytest.raises(NotFound):
            await driver.copy("absent", "target")
        assert await keys(driver) == []

    # Listing

    async def test_a_listing_is_in_byte_order(self, driver: Driver) -> None:
        for names in (AWKWARD[:2] + AWKWARD[3:], FOLDERS):
            await put_all(driver, names)
            assert await keys(driver) == sorted(names)
            await driver.delete_many(names)

    async def test_every_page_of_every_size_continues_after_the_last(self, driver: Driver) -> None:
        await put_all(driver, FOLDERS)
        for limit in (1, 2, 7, len(FOLDERS)):
            seen: list[str] = []
            more = True
            while more:
                page = await driver.list("", after=seen[-1] if seen else "", limit=limit)
                assert len(page.entries) <= limit
                seen += [entry.key for entry in page.entries]
                more = page.more
            assert seen == sorted(FOLDERS)

    async def test_after_need_not_be_a_key(self, driver: Driver) -> None:
        await put_all(driver, FOLDERS)
        for after in ("a", "a.", "a.b.", "a/", "a/a", "a/b!x", "a/c", "a/c/", "a/c/d", "a/c0", "aaa", "z", "zz", "~"):
            assert await keys(driver, after=after) == sorted(name for name in FOLDERS if name > after)

    async def test_a_prefix_may_end_within_a_segment(self, driver: Driver) -> None:
        await put_all(driver, FOLDERS)
        for prefix in (
            "a",
            "a-",
            "a.",
            "a.b",
            "a.b.",
            "a/",
            "a/b",
            "a/c",
            "a/c/",
            "a/c/d",
            "aa",
            "absent",
            "absent/x/",
        ):
            assert await keys(driver, prefix) == sorted(name for name in FOLDERS if name.startswith(prefix))
        assert await keys(driver, "a/", after="a/b!") == ["a/b-c", "a/c/d"]
        assert await keys(driver, "a/", after="a0") == []
        assert await keys(driver, "a/", after="A") == ["a/b", "a/b!", "a/b-c", "a/c/d"]

    async def test_1500_keys_come_in_two_pages(self, driver: Driver) -> None:
        names = [f"many/{number % 7}/{number:04}" for number in range(1500)]
        await put_all(driver, names)
        first = await driver.list("many/")
        second = await driver.list("many/", after=first.entries[-1].key)
        assert [entry.key for entry in (*first.entries, *second.entries)] == sorted(names)
        assert (len(first.entries), first.more, second.more) == (PAGE, True, False)

    async def test_a_full_folder_does_not_hide_what_follows_a_folder_that_begins_its_name(self, driver: Driver) -> None:
        # Asked plainly, MinIO ends such a page early and says that nothing follows.
        names = [*(f"c/lib-x/{number:04}" for number in range(1100)), "c/lib/a", "c/lib/b", "c/lib/d", "c/y", "c/z"]
        await put_all(driver, names)
        page = await driver.list("c/", after="c/lib/a")
        assert ([entry.key for entry in page.entries], page.more) == (names[-4:], False)
        page = await driver.list("c/", after="c/lib/a", limit=2)
        assert ([entry.key for entry in page.entries], page.more) == (names[-4:-2], True)

    async def test_a_listing_sees_what_was_put_before_it(self, driver: Driver, other: Driver) -> None:
        for number in range(20):
            await driver.put(f"fresh/{number:02}", b"x")
            assert len(await keys(other, "fresh/")) == number + 1

    async def test_a_key_that_is_overwritten_never_leaves_the_listing(self, driver: Driver, other: Driver) -> None:
        await put_all(driver, ("tags/a", "tags/b", "tags/c"))

        async def overwrite() -> None:
            for number in range(60):
                await driver.put("tags/b", b"%d" % number)

        writes = asyncio.create_task(overwrite())
        while not writes.done():
            assert await keys(other, "tags/") == ["tags/a", "tags/b", "tags/c"]
        await writes

    # Ranges

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, None), (0, 0), (0, 1), (5, 5), (1, 700_000), (299_999, 300_001), (1_999_999, None), (2_000_000, None)],
    )
    async def test_a_range_is_read_exactly(self, driver: Driver, start: int, end: int | None) -> None:
        data = content(2_000_000)
        await store(driver, "key", data)
        async with driver.open("key", start, end) as reader:
            assert reader.size == len(data)
            assert b"".join([chunk async for chunk in reader]) == data[start:end]

    async def test_a_reader_may_be_closed_early(self, driver: Driver) -> None:
        data = content(2_500_000)
        await store(driver, "key", data)
        for _ in range(20):
            async with driver.open("key") as reader:
                async for chunk in reader:
                    assert data.startswith(chunk)
                    break
            async with driver.open("key"):
                pass
        assert await read(driver, "key") == data

    async def test_many_read_one_object_at_once(self, driver: Driver, other: Driver) -> None:
        data = content(2_500_000)
        await store(driver, "key", data)
        found = await asyncio.gather(*(read((driver, other)[turn % 2], "key", turn) for turn in range(12)))
        assert found == [data[turn:] for turn in range(12)]

    # Conditions and fences

    async def test_16_racing_creates_have_one_winner(self, driver: Driver, other: Driver) -> None:
        async def create(number: int) -> int | None:
            try:
                await (driver, other)[number % 2].put("key", b"%d" % number, condition=Absent())
            except ConditionFailed:
                return None
            return number

        winners = [number for number in await asyncio.gather(*map(create, range(16))) if number is not None]
        assert len(winners) == 1
        assert (await driver.get("key")).data == b"%d" % winners[0]

    async def test_a_create_after_a_delete_succeeds(self, driver: Driver) -> None:
        await driver.put("key", b"1", condition=Absent())
        await driver.delete("key")
        await driver.put("key", b"2", condition=Absent())
        assert (await driver.get("key")).data == b"2"

    async def test_a_version_is_replaced_once(self, driver: Driver, other: Driver) -> None:
        await driver.put("key", b"1")
        seen = await driver.get("key")
        await other.put("key", b"2", condition=Version(seen.version))
        with pytest.raises(ConditionFailed):
            await driver.put("key", b"3", condition=Version(seen.version))
        await driver.put("key", b"4", condition=Version((await driver.stat("key")).version))
        await driver.put("key", b"5", condition=Version((await driver.list("key")).entries[0].version))
        assert (await driver.get("key")).data == b"5"

    async def test_no_version_of_an_absent_key_is_replaced(self, driver: Driver) -> None:
        await driver.put("key", b"1")
        version = (await driver.get("key")).version
        await driver.delete("key")
        with pytest.raises((ConditionFailed, NotFound)):
            await driver.put("key", b"2", condition=Version(version))
        assert await keys(driver) == []

    async def test_a_write_before_its_fence_ends_is_made(self, driver: Driver) -> None:
        fence = driver.fence()
        await driver.put("key", b"1", fence=fence)
        await driver.put("key", b"2", fence=fence)
        await driver.put("new", b"3", fence=fence, condition=Absent())
        with pytest.raises(ConditionFailed):
            await driver.put("new", b"4", fence=fence, condition=Absent())
        await driver.delete("key", fence=fence)
        assert await keys(driver) == ["new"]

    async def test_a_put_after_its_fence_ended_is_refused(self, driver: Driver) -> None:
        await driver.put("key", b"1")
        for key in ("key", "new"):
            with pytest.raises(FenceExpired):
                await driver.put(key, b"2", fence=expired(driver))
        assert await keys(driver) == ["key"]
        assert (await driver.get("key")).data == b"1"

    async def test_a_delete_after_its_fence_ended_is_refused(self, driver: Driver) -> None:
        await driver.put("key", b"1")
        with pytest.raises(FenceExpired):
            await driver.delete("key", fence=expired(driver))
        assert (await driver.get("key")).data == b"1"

    async def test_a_bulk_delete_before_its_fence_ends_is_made(self, driver: Driver, other: Driver) -> None:
        names = [f"many/{number:04}" for number in range(1200)]
        await put_all(driver, [*names[::2], "stays"])
        await driver.delete_many(names, fence=driver.fence())
        assert await keys(other) == ["stays"]

    async def test_a_bulk_delete_after_its_fence_ended_is_refused_whole(self, driver: Driver, other: Driver) -> None:
        await put_all(driver, ["a", "b", "c"])
        with pytest.raises(FenceExpired):
            await driver.delete_many(["a", "absent", "b"], fence=expired(driver))
        assert await keys(other) == ["a", "b", "c"]

    # Writers

    @pytest.mark.parametrize("size", [0, 1, 300_000, 5 << 20])
    async def test_what_was_written_is_read_back_after_commit(self, driver: Driver, other: Driver, size: int) -> None:
        data = content(size)
        writer = driver.create("data/key", SCRATCH)
        if size:
            await writer.write(data)
        assert writer.size == size
        await writer.commit()
        assert await read(other, "data/key") == data
        assert (await other.stat("data/key")).size == size
        assert await keys(driver) == ["data/key"]

    async def test_20_mib_in_odd_chunks_appear_as_a_whole(self, driver: Driver, other: Driver) -> None:
        data, at, step = content(20 << 20), 0, 1
        writer = driver.create("data/key", SCRATCH)
        while at < len(data):
            await writer.write(data[at : at + step])
            at, step = at + step, step * 3 % 700_001
            assert writer.size == min(at, len(data))
        with pytest.raises(NotFound):
            await other.stat("data/key")
        assert await keys(other, "data/") == []
        await writer.commit()
        assert await read(other, "data/key") == data
        assert await keys(driver, SCRATCH) == []

    @pytest.mark.parametrize("size", [0, 100, 17 << 20])
    async def test_an_aborted_object_leaves_nothing(self, driver: Driver, size: int) -> None:
        writer = driver.create("data/key", SCRATCH)
        await writer.write(content(size))
        await writer.abort()
        assert await keys(driver) == []

    @pytest.mark.parametrize("size", [0, 100, 17 << 20])
    async def test_an_abort_keeps_what_was_suspended(self, driver: Driver, other: Driver, size: int) -> None:
        first = driver.create("data/key", SCRATCH)
        await first.write(b"kept" * 1000)
        state = await suspended(first)
        await first.abort()
        resumed = other.resume("data/key", SCRATCH, state)
        await resumed.write(content(size))
        await resumed.abort()
        assert await keys(driver, "data/") == []
        await driver.resume("data/key", SCRATCH, state).commit()
        assert await read(driver, "data/key") == b"kept" * 1000
        assert await keys(driver) == ["data/key"]

    @pytest.mark.parametrize("size", [0, 5, 9 << 20])
    async def test_a_commit_may_be_repeated(self, driver: Driver, other: Driver, size: int) -> None:
        first = driver.create("data/key", SCRATCH)
        await first.write(content(size))
        state = await suspended(first)
        again = other.resume("data/key", SCRATCH, state)
        await again.commit()
        await again.commit()
        await driver.resume("data/key", SCRATCH, state).commit()
        assert await read(driver, "data/key") == content(size)
        assert await keys(driver) == ["data/key"]

    async def test_a_suspended_writer_goes_on_elsewhere(self, driver: Driver, other: Driver) -> None:
        data = content(30 << 20)
        cuts = [0, 0, 1, 9 << 20, (9 << 20) + 5, 20 << 20, 30 << 20]
        state: dict[str, Any] | None = None
        for turn, (start, end) in enumerate(itertools.pairwise(cuts)):
            store = (driver, other)[turn % 2]
            writer = store.resume("data/key", SCRATCH, state) if state else store.create("data/key", SCRATCH)
            assert writer.size == start
            await writer.write(data[start:end])
            state = await suspended(writer)
            assert await keys(driver, "data/") == []
        assert state is not None
        await other.resume("data/key", SCRATCH, state).commit()
        assert await read(driver, "data/key") == data
        assert await keys(driver) == ["data/key"]

    async def test_many_small_chunks_may_be_suspended_one_by_one(self, driver: Driver, other: Driver) -> None:
        data = content(40 * 300_000 + 12)
        cuts = [*range(0, 40 * 300_000, 300_000), *range(40 * 300_000, len(data) + 1)]
        state = await suspended(driver.create("data/key", SCRATCH))
        for turn, (start, end) in enumerate(itertools.pairwise(cuts)):
            writer = (driver, other)[turn % 2].resume("data/key", SCRATCH, state)
            await writer.write(data[start:end])
            state = await suspended(writer)
        await driver.resume("data/key", SCRATCH, state).commit()
        assert await read(other, "data/key") == data
        assert await keys(driver) == ["data/key"]

    @pytest.mark.parametrize("lost", ["killed", "suspended"])
    @pytest.mark.parametrize("kept", [0, 300_000, 9 << 20])
    async def test_bytes_written_after_the_state_was_taken_are_dropped(
        self, driver: Driver, other: Driver, lost: str, kept: int
    ) -> None:
        data = content(kept)
        first = driver.create("data/key", SCRATCH)
        await first.write(data)
        state = await suspended(first)
        forgotten = other.resume("data/key", SCRATCH, state, turn=1)
        await forgotten.write(b"forgotten" * 1_000_000)
        if lost == "suspended":
            await forgotten.suspend()
        resumed = driver.resume("data/key", SCRATCH, state, turn=2)
        assert resumed.size == kept
        await resumed.write(b"kept" * 200_000)
        await resumed.commit()
        assert await read(other, "data/key") == data + b"kept" * 200_000
        assert (await other.stat("data/key")).size == kept + 800_000

    @pytest.mark.parametrize("kept", [100, 9 << 20])
    async def test_a_writer_that_was_given_up_harms_nobody_who_followed(
        self, driver: Driver, other: Driver, kept: int
    ) -> None:
        data = content(kept)
        first = driver.create("data/key", SCRATCH)
        await first.write(data)
        state = await suspended(first)
        late = other.resume("data/key", SCRATCH, state, turn=1)
        quick = driver.resume("data/key", SCRATCH, state, turn=2)
        await quick.write(b"quick" * 2_000_000)
        followed = await suspended(quick)
        with suppress(StorageError):  # a driver may refuse it, but nothing that was acknowledged may suffer
            await late.write(b"late" * 2_500_000)
            await late.suspend()
        await other.resume("data/key", SCRATCH, followed, turn=3).commit()
        assert await read(driver, "data/key") == data + b"quick" * 2_000_000

    async def test_discard_removes_what_unfinished_writers_left(self, driver: Driver, other: Driver) -> None:
        for size in (0, 10, 9 << 20):
            writer = driver.create(f"data/{size}", SCRATCH)
            await writer.write(content(size))
            await writer.suspend()
        await driver.put("uploads/one/by/hand", b"x")
        neighbour = driver.create("data/neighbour", "uploads/one2/")
        await neighbour.write(b"neighbour")
        state = await suspended(neighbour)
        await other.discard(SCRATCH)
        assert await keys(driver, SCRATCH) == []
        assert await keys(driver, "data/") == []
        await other.resume("data/neighbour", "uploads/one2/", state).commit()
        assert await keys(driver) == ["data/neighbour"]
        await other.discard(SCRATCH)

    async def test_writers_do_not_disturb_each_other(self, driver: Driver, other: Driver) -> None:
        async def one(number: int) -> None:
            store, data = (driver, other)[number % 2], content(1_500_000)[number:]
            writer = store.create(f"data/{number}", f"uploads/{number}/")
            for at in range(0, len(data), 100_003):
                await writer.write(data[at : at + 100_003])
            await writer.commit()
            assert await read(driver, f"data/{number}") == data

        await together(one(number) for number in range(10))
        assert await keys(driver) == sorted(f"data/{number}" for number in range(10))

    # The store as a whole

    async def test_the_probe_leaves_nothing_and_finds_what_is_so(self, driver: Driver) -> None:
        found = await driver.probe()
        assert found.findings
        assert all(finding.name and finding.line for finding in found.findings)
        assert await keys(driver) == []

    async def test_a_started_store_is_ready(self, driver: Driver, other: Driver) -> None:
        await driver.ready()
        await other.ready()

    async def test_a_presigned_url_is_a_url_or_none(self, driver: Driver) -> None:
        await driver.put("key", b"x")
        url = await driver.presign("key", lifetime=60, filename="x.bin")
        assert url is None or url.startswith(("http://", "https://"))
