"""The temporary database leaves nothing behind, however its run ends."""

import asyncio
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.upkeep.errors import NoScratch
from app.upkeep.scratch import PAGE, Scratch

TABLES = "CREATE TABLE word (text TEXT);"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def opened(folder: Path) -> int:
    """Files of the folder that this process holds open, named or not."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith(str(folder))
        except FileNotFoundError:  # the folder that is listed
            continue
    return found


async def test_its_file_has_no_name_while_it_is_used_and_no_bytes_afterwards(folder: Path) -> None:
    words = [(f"{number:08} {'x' * 1000}",) for number in range(30_000)]  # more than is kept in memory
    async with Scratch(TABLES) as scratch:
        await scratch.insert("INSERT INTO word VALUES (?)", words)
        assert (opened(folder), os.listdir(folder)) == (1, [])
        pages = [page async for page in scratch.pages("SELECT text FROM word ORDER BY text")]
        assert [len(page) for page in pages] == [PAGE] * (len(words) // PAGE)
        assert [row for page in pages for row in page] == words
    assert opened(folder) == 0


async def test_who_is_cancelled_while_it_opens_leaves_nothing(folder: Path) -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(gate.wait)  # so that opening has to wait its turn
        entering = asyncio.create_task(Scratch(TABLES, thread).__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
    assert (opened(folder), os.listdir(folder)) == (0, [])


async def test_who_is_cancelled_while_a_statement_runs_closes_after_it(folder: Path) -> None:
    began, gate, order = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    async def use() -> None:
        async with Scratch(TABLES) as scratch:

            def dawdle() -> None:
                loop.call_soon_threadsafe(began.set)
                gate.wait(10)
                scratch.database.execute("INSERT INTO word VALUES ('late')")
                order.append("written")

            await scratch.run(dawdle)

    using = asyncio.create_task(use())
    await began.wait()
    using.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert order == ["written"]
    assert opened(folder) == 0


async def test_who_is_cancelled_does_not_wait_for_a_long_statement(folder: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT began() UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    began, loop = asyncio.Event(), asyncio.get_running_loop()

    async def use() -> None:
        async with Scratch(TABLES) as scratch:
            connection = scratch.database._connection
            connection.create_function("began", 0, lambda: loop.call_soon_threadsafe(began.set) and 1)
            await scratch.rows(endless)

    using = asyncio.create_task(use())
    await began.wait()
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(using, 20)
    assert opened(folder) == 0


async def test_tables_that_cannot_be_made_leave_nothing(folder: Path) -> None:
    with pytest.raises(NoScratch):
        await Scratch("CREATE TABLE word (").__aenter__()
    assert (opened(folder), os.listdir(folder)) == (0, [])


async def test_a_folder_that_is_full_or_gone_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scratch(TABLES + "PRAGMA max_page_count = 20;") as scratch:
        with pytest.raises(NoScratch, match=r"temporary files failed: .*full"):
            await scratch.insert("INSERT INTO word VALUES (?)", [("x" * 1000,)] * 1000)
    assert (opened(folder), os.listdir(folder)) == (0, [])
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "gone"))
    with pytest.raises(NoScratch, match=r"No such file.*gone"):
        await Scratch(TABLES).__aenter__()


async def test_no_folder_at_all_is_the_same_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    with pytest.raises(NoScratch, match="No usable temporary directory"):
        await Scratch(TABLES).__aenter__()


async def test_a_thread_that_is_lent_is_there_afterwards(folder: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        for _ in range(2):
            async with Scratch(TABLES, thread) as scratch:
                await scratch.insert("INSERT INTO word VALUES (?)", [("here",)])
                assert await scratch.rows("SELECT text FROM word") == [("here",)]
