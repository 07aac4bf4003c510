"""Disks that are full, gone or decayed, writers that live too long, tasks that are cancelled."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.driver import Absent, Fence, Version
from storage.errors import ConditionFailed, Corrupt, FenceExpired, NotFound, StoreFull, Unavailable, Unsupported
from storage.filesystem import FilesystemDriver

SCRATCH = "uploads/one/"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def driver(root: Path) -> AsyncIterator[FilesystemDriver]:
    driver = FilesystemDriver(root)
    await driver.start()
    yield driver
    await driver.close()


async def keys(driver: FilesystemDriver) -> list[str]:
    return [entry.key for entry in (await driver.list("")).entries]


class TestFullDisk:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Iterator[Path]:
        if os.geteuid() != 0:
            pytest.skip("only root can mount the small disk that this test fills")
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
        yield disk / "store"
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

    async def test_a_put_says_so_leaves_nothing_and_reads_go_on(self, driver: FilesystemDriver, root: Path) -> None:
        await driver.put("small", b"x" * 1000)
        for _ in range(3):
            with pytest.raises(StoreFull):
                await driver.put("big", b"x" * (2 << 20))
        await driver.put("half", b"x" * (600 << 10))
        with pytest.raises(StoreFull):
            await driver.copy("half", "again")
        assert await keys(driver) == ["half", "small"]
        assert list((root / ".tmp").iterdir()) == []
        assert len((await driver.get("half")).data) == 600 << 10
        await driver.delete("half")
        await driver.put("other", b"x" * (600 << 10))

    async def test_a_writer_says_so_and_leaves_room_after_abort(self, driver: FilesystemDriver) -> None:
        writer = driver.create("data/big", SCRATCH)

        async def write() -> None:
            for _ in range(4):
                await writer.write(b"x" * (1 << 20))
            await writer.commit()

        with pytest.raises(StoreFull):
            await write()
        await writer.abort()
        assert await keys(driver) == []
        await driver.put("fits", b"x" * (600 << 10))

    async def test_a_commit_that_found_no_room_succeeds_when_there_is_some(self, driver: FilesystemDriver) -> None:
        await driver.put("in/the/way", b"x" * (600 << 10))
        writer = driver.create("data/key", SCRATCH)
        await writer.write(b"y" * (700 << 10))
        with pytest.raises(StoreFull):
            await writer.commit()
        await driver.delete("in/the/way")
        await writer.commit()
        assert (await driver.get("data/key")).data == b"y" * (700 << 10)

    async def test_the_probe_names_what_fails(self, driver: FilesystemDriver) -> None:
        assert [finding.line for finding in (await driver.probe()).findings if finding.name == "space"]
        filler = driver.create("data/filler", SCRATCH)
        with pytest.raises(StoreFull):  # noqa: PT012 - whichever step meets the end of the disk
            await filler.write(b"x" * (2 << 20))
            await filler.suspend()
        failed = {finding.name for finding in (await driver.probe()).findings if not finding.ok}
        assert {"writes", "space"} <= failed
        await filler.abort()


async def test_a_file_that_lost_its_end_is_corrupt_not_short(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("key", b"x" * 1_000_000)
    async with driver.open("key") as reader:
        os.truncate(root / "key", 400_000)
        with pytest.raises(Corrupt):
            _ = [chunk async for chunk in reader]


async def test_acknowledged_bytes_that_the_disk_lost_are_not_resumed(driver: FilesystemDriver, root: Path) -> None:
    writer = driver.create("data/key", SCRATCH)
    await writer.write(b"x" * 1000)
    state = await writer.suspend()
    (file,) = (root / SCRATCH).iterdir()
    os.truncate(file, 999)
    with pytest.raises(Corrupt):
        await driver.resume("data/key", SCRATCH, state).commit()
    assert [key for key in await keys(driver) if key.startswith("data/")] == []


async def test_an_unmounted_disk_is_unavailable_not_empty(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("key", b"x")
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    for action in (
        driver.ready(),
        driver.put("key", b"y"),
        driver.delete("key"),
        driver.copy("key", "copy"),
        driver.list(""),
        driver.get("key"),
        driver.stat("key"),
        driver.discard(SCRATCH),
        driver.create("data/key", SCRATCH).commit(),
        driver.create("data/key", SCRATCH).suspend(),
    ):
        with pytest.raises(Unavailable):
            await action
    assert list(root.iterdir()) == []


async def test_a_disk_that_goes_while_it_is_listed_does_not_cut_the_listing_short(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a/key", "b/key", "c/key"):
        await driver.put(key, b"x")
    scan = os.scandir

    def scan_and_go(path: str) -> object:
        if path.endswith("/b/"):
            root.rename(root.with_name("elsewhere"))
        return scan(path)

    monkeypatch.setattr("storage.filesystem_listing.os.scandir", scan_and_go)
    with pytest.raises(Unavailable):
        await driver.list("")


async def test_a_key_is_no_folder_of_another_key(driver: FilesystemDriver) -> None:
    await driver.put("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        for condition in (None, Absent()):
            with pytest.raises(Unsupported):
                await driver.put(key, b"y", condition=condition)
        with pytest.raises(NotFound):
            await driver.get(key)
        await driver.delete(key)
    assert await keys(driver) == ["a/b"]


async def test_the_same_bytes_put_again_are_another_version(driver: FilesystemDriver) -> None:
    versions = []
    for _ in range(50):
        await driver.put("key", b"same")
        versions.append((await driver.get("key")).version)
    assert len(set(versions)) == 50
    with pytest.raises(ConditionFailed):
        await driver.put("key", b"x", condition=Version(versions[0]))


async def test_a_clock_that_went_back_ends_every_fence(driver: FilesystemDriver) -> None:
    with pytest.raises(FenceExpired):
        await driver.put("key", b"x", fence=Fence(time.time() + 60, 900))
    assert await keys(driver) == []


async def test_a_writer_that_another_one_continues_can_add_nothing(driver: FilesystemDriver) -> None:
    first = driver.create("data/key", SCRATCH)
    await first.write(b"a" * 2_000_000)
    state = await first.suspend()
    slow = driver.resume("data/key", SCRATCH, state)
    await slow.write(b"b" * 2_000_000)
    await slow.write(b"c" * 2_000_000)  # waits until the bytes before it are in the file
    quick = driver.resume("data/key", SCRATCH, state)
    await quick.write(b"d" * 2_000_000)
    acknowledged = await quick.suspend()
    for step in (slow.suspend, slow.commit):
        with pytest.raises(NotFound):
            await step()
    await slow.abort()
    await driver.resume("data/key", SCRATCH, acknowledged).commit()
    assert (await driver.get("data/key")).data == b"a" * 2_000_000 + b"d" * 2_000_000
    assert await keys(driver) == ["data/key"]


@pytest.mark.parametrize("end", ["abort", "suspend", "nothing"])
async def test_a_late_writer_with_an_old_state_takes_no_acknowledged_byte(driver: FilesystemDriver, end: str) -> None:
    first = driver.create("data/key", SCRATCH)
    await first.write(b"a" * 2_000_000)
    state = await first.suspend()
    late = driver.resume("data/key", SCRATCH, state)
    quick = driver.resume("data/key", SCRATCH, state)
    await quick.write(b"b" * 2_000_000)
    acknowledged = await quick.suspend()
    await late.write(b"c" * 3_000_000)
    await late.write(b"c" * 3_000_000)
    if end != "nothing":
        await getattr(late, end)()
    await driver.resume("data/key", SCRATCH, acknowledged).commit()
    assert (await driver.get("data/key")).data == b"a" * 2_000_000 + b"b" * 2_000_000
    assert await keys(driver) == ["data/key"]
    with pytest.raises((NotFound, RuntimeError)):
        await late.commit()


async def test_another_object_of_the_same_size_is_no_earlier_commit(driver: FilesystemDriver) -> None:
    first = driver.create("data/key", SCRATCH)
    await first.write(b"a" * 1000)
    state = await first.suspend()
    one, two = (driver.resume("data/key", SCRATCH, state) for _ in range(2))
    await one.write(b"1" * 1000)
    await two.write(b"2" * 1000)
    await one.commit()
    with pytest.raises(NotFound):
        await two.commit()
    assert (await driver.get("data/key")).data == b"a" * 1000 + b"1" * 1000


async def test_a_writer_that_was_discarded_publishes_nothing(driver: FilesystemDriver) -> None:
    writer = driver.create("data/key", SCRATCH)
    await writer.write(b"a" * 2_000_000)
    state = await writer.suspend()
    resumed = driver.resume("data/key", SCRATCH, state)
    await driver.discard(SCRATCH)
    await resumed.write(b"b")
    for step in (resumed.commit, resumed.suspend, driver.resume("data/key", SCRATCH, state).commit):
        with pytest.raises(NotFound):
            await step()
    await resumed.abort()
    assert await keys(driver) == []


async def test_an_ended_writer_takes_nothing(driver: FilesystemDriver) -> None:
    writer = driver.create("data/key", SCRATCH)
    await writer.suspend()
    for step in (writer.write(b"x"), writer.suspend(), writer.commit()):
        with pytest.raises(RuntimeError, match="ended"):
            await step
    await writer.abort()
    assert len(await keys(driver)) == 1, "abort after suspend dropped the suspended bytes"


async def test_cancelling_a_write_keeps_every_byte_it_took(driver: FilesystemDriver) -> None:
    writer = driver.create("data/key", SCRATCH)
    for number in range(20):
        task = asyncio.create_task(writer.write(bytes([number]) * (2 << 20)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    task = asyncio.create_task(writer.commit())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await writer.commit()
    expected = b"".join(bytes([number]) * (2 << 20) for number in range(20))
    assert writer.size == len(expected)
    assert (await driver.get("data/key")).data == expected


async def test_cancelled_readers_leave_no_open_file(driver: FilesystemDriver) -> None:
    await driver.put("key", b"x" * 3_000_000)

    async def read() -> None:
        async with driver.open("key") as reader:
            async for _ in reader:
                await asyncio.sleep(0)

    before = len(os.listdir("/proc/self/fd"))
    for turns in range(30):
        tasks = [asyncio.create_task(read()) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await read()
    await driver.close()
    driver._readers.shutdown(wait=True)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_page_does_not_walk_the_whole_tree(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in range(40):
        await driver.put(f"tree/{folder:02}/deep/key", b"x")
    walked: list[str] = []
    scan = os.scandir

    def counting(path: str) -> "Iterator[os.DirEntry[str]]":
        walked.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counting)
    page = await driver.list("tree/", after="tree/30/deep/key", limit=2)
    assert [entry.key for entry in page.entries] == ["tree/31/deep/key", "tree/32/deep/key"]
    assert len(walked) <= 1 + 2 * 4, walked
    walked.clear()
    assert (await driver.list("tree/17/de", limit=1)).entries[0].key == "tree/17/deep/key"
    assert len(walked) == 2, walked


async def test_an_empty_folder_is_pruned_and_the_root_is_not(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("a/b/c", b"x")
    await driver.put("a/d", b"x")
    await driver.delete("a/b/c")
    assert sorted(path.name for path in (root / "a").iterdir()) == ["d"]
    await driver.delete("a/d")
    assert sorted(path.name for path in root.iterdir()) == [".lock", ".tmp"]


async def test_the_folder_is_private_and_the_probe_says_what_holds(driver: FilesystemDriver, root: Path) -> None:
    found = await driver.probe()
    assert {finding.name for finding in found.findings if finding.ok} >= {"writes", "listing", "lock", "fences"}
    assert found.conditional_put
    assert found.fences
    await driver.put("upkeep/keys/secret", b"x")
    assert root.stat().st_mode & 0o077 == 0
    assert (root / "upkeep/keys/secret").stat().st_mode & 0o077 == 0


def test_the_root_of_the_filesystem_is_refused() -> None:
    with pytest.raises(ValueError, match="root of the filesystem"):
        FilesystemDriver(Path("/"))
