"""Several processes on one folder, and processes that are killed."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.driver import Fence
from storage.errors import FenceExpired, NotFound, Unavailable
from storage.filesystem import FilesystemDriver
from storage.filesystem_folder import OpenFile, locked
from tests.storage.programs import RACES, object_of

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    driver = FilesystemDriver(tmp_path / "store")
    await driver.start()
    yield driver
    await driver.close()


async def program(name: str, root: Path) -> Process:
    command = (sys.executable, "-m", "tests.storage.programs", name, str(root))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=CHECKOUT)
    assert await line(process) == ["ready"]
    return process


async def line(process: Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().split()


async def together(name: str, root: Path, count: int = 2) -> list[list[str]]:
    """Runs a program several times at once; returns the lines that each said."""
    processes = await asyncio.gather(*(program(name, root) for _ in range(count)))
    said = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * count
    return [out.decode().splitlines() for out, _ in said]


async def killed(process: Process, lines: int) -> list[list[str]]:
    """Lets a program say some lines, kills it with SIGKILL; returns everything that it said."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    said = [await line(process) for _ in range(lines)]
    process.kill()
    rest = (await process.stdout.read()).decode().splitlines(keepends=True)
    assert await process.wait() == -9
    return said + [one.split() for one in rest if one.endswith("\n")]


async def test_two_processes_that_create_the_same_keys_win_each_once(driver: FilesystemDriver, tmp_path: Path) -> None:
    first, second = await together("creates", tmp_path / "store")
    assert sorted(first + second) == sorted(f"won {number}" for number in range(RACES))


async def test_two_processes_that_count_lose_no_count(driver: FilesystemDriver, tmp_path: Path) -> None:
    await driver.put("count", b"0")
    await together("counts", tmp_path / "store")
    assert int((await driver.get("count")).data) == 2 * RACES


async def test_kill_during_puts_leaves_whole_objects_and_every_acknowledged_one(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    said = await killed(await program("puts", tmp_path / "store"), 30)
    visible = {entry.key: entry.size for entry in (await driver.list("")).entries}
    assert len(said) >= 30
    for _, number in said:
        assert f"puts/{number}" in visible
    for key in visible:
        assert (await driver.get(key)).data == object_of(int(key.removeprefix("puts/")))


async def test_kill_during_a_write_leaves_no_visible_object_and_what_was_acknowledged(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    said = await killed(await program("writes", tmp_path / "store"), 12)
    state = json.loads(said[0][1])
    with pytest.raises(NotFound):
        await driver.stat("data/key")
    left = (await driver.list("")).entries
    assert [entry.key.rpartition("/")[0] for entry in left] == ["uploads/one"]
    assert left[0].size > state["size"]
    writer = driver.resume("data/key", "uploads/one/", state)
    await writer.write(b"!")
    await writer.commit()
    assert (await driver.get("data/key")).data == b"kept" * 1_000_000 + b"!"
    assert [entry.key for entry in (await driver.list("")).entries] == ["data/key"]


async def test_what_a_killed_process_left_unfinished_goes_after_a_day(tmp_path: Path) -> None:
    unfinished = tmp_path / "store/.tmp"
    unfinished.mkdir(parents=True)
    (unfinished / "old").write_bytes(b"x")
    (unfinished / "young").write_bytes(b"x")
    os.utime(unfinished / "old", (0, 0))
    driver = FilesystemDriver(tmp_path / "store")
    await driver.start()
    assert [path.name for path in unfinished.iterdir()] == ["young"]
    assert (await driver.list("")).entries == []
    await driver.close()


async def test_a_fence_that_ends_while_another_process_holds_the_lock_is_refused(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("old", b"x")
    now = driver.fence().signed_at
    with locked(OpenFile(str(tmp_path / "store/.lock"), os.O_RDWR)):
        put = asyncio.create_task(driver.put("new", b"x", fence=Fence(now, 0.2)))
        delete = asyncio.create_task(driver.delete("old", fence=Fence(now, 0.2)))
        while driver.fence().signed_at < now + 0.2:  # only time ends a fence
            await asyncio.sleep(0.01)
        assert not put.done()
        assert not delete.done()
    with pytest.raises(FenceExpired):
        await put
    with pytest.raises(FenceExpired):
        await delete
    assert [entry.key for entry in (await driver.list("")).entries] == ["old"]


async def test_a_lock_that_another_process_keeps_does_not_stop_reads(driver: FilesystemDriver, tmp_path: Path) -> None:
    await driver.put("key", b"x")
    with locked(OpenFile(str(tmp_path / "store/.lock"), os.O_RDWR)):
        blocked = [asyncio.create_task(driver.put(f"new/{number}", b"x")) for number in range(40)]
        assert (await driver.get("key")).data == b"x"
        assert len((await driver.list("")).entries) == 1
        assert not any(task.done() for task in blocked)
    await asyncio.gather(*blocked)
    assert len((await driver.list("")).entries) == 41


def test_a_lock_that_is_not_given_back_in_time_is_unavailable(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    flags = os.O_RDWR | os.O_CREAT
    held, late = locked(OpenFile(path, flags)), locked(OpenFile(path, flags), wait=0.05)
    with held, pytest.raises(Unavailable, match="lock"), late:
        pass
    shared = locked(OpenFile(path, flags), alone=False, wait=0)
    with shared, locked(OpenFile(path, flags), alone=False, wait=0):
        pass
