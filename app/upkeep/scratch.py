"""A temporary database in which listings are joined, so that they need not fit in memory."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from app.upkeep.errors import NoScratch

T = TypeVar("T")

PAGE: Final = 500
"""Rows that are in memory at once."""
_SETTINGS: Final = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -16384; PRAGMA temp_store = FILE;
"""
"""The file ends with its run: nothing is worth a sync, or taken back, and 16 MiB of it are kept in memory."""


class Database:
    """It blocks: called in the thread of its Scratch. Any statement raises sqlite3.Error where the disk is full."""

    def __init__(self, tables: str) -> None:
        """`tables` are statements that make them. The file goes where temporary files go. Raises OSError, sqlite3.Error."""
        file, path = tempfile.mkstemp(".sqlite", "edge-registry-")
        os.close(file)
        try:
            self._connection = _connected(path, _SETTINGS + tables)
        finally:
            os.unlink(path)  # what is open keeps its bytes: however the process ends, the disk has them back

    def close(self) -> None:
        """Gives the disk its space back."""
        self._connection.close()

    def interrupt(self) -> None:
        """Ends the statement that runs, if any, by sqlite3.OperationalError; called from any thread."""
        self._connection.interrupt()

    def script(self, statements: str) -> None:
        """Runs several statements."""
        self._connection.executescript(statements)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Runs one statement; rows that answer it are fetched from what is returned."""
        return self._connection.execute(statement, values)

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Runs one statement for each row."""
        self._connection.executemany(statement, rows)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written meanwhile is written at once. Where it fails, the database is of no use any more."""
        self._connection.execute("BEGIN")
        yield
        self._connection.execute("COMMIT")

    def define(self, name: str, function: Callable[[str], bool]) -> None:
        """Lets statements call a function of one text."""
        self._connection.create_function(name, 1, function)


class Scratch:
    """Entered while it is used. All work on the database runs in one thread, in turn, so that the event loop never waits."""

    def __init__(self, tables: str, thread: Executor | None = None) -> None:
        """`thread`, which has one, is borrowed; without it there is one until the end."""
        self._tables = tables
        self._own = None if thread else ThreadPoolExecutor(1, "scratch")
        self._thread: Executor = thread or self._own  # type: ignore[assignment]  # one of them is there
        self._database: Database | None = None

    async def __aenter__(self) -> Self:
        """Raises NoScratch, as everything does that uses the database."""
        try:
            await self.run(self._open)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def database(self) -> Database:
        """What was opened; used by what is run only."""
        assert self._database is not None, "enter it first"  # noqa: S101
        return self._database

    async def run(self, work: Callable[..., T], *values: Any) -> T:
        """Runs what blocks in the thread. Raises NoScratch."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)
        except (sqlite3.Error, OSError) as exc:
            raise NoScratch(f"the folder for temporary files failed: {exc}") from exc

    async def insert(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs one statement for each row, in one batch."""
        if rows:
            await self.run(self._insert, statement, rows)

    async def rows(self, question: str, *values: object) -> list[Any]:
        """The rows that answer a question, of which there are few."""
        return await self.run(lambda: self.database.execute(question, *values).fetchall())

    async def pages(self, question: str, *values: object) -> AsyncIterator[list[Any]]:
        """The rows that answer a question, a page at a time."""
        cursor = await self.run(self.database.execute, question, *values)
        while page := await self.run(cursor.fetchmany, PAGE):
            yield page

    def _insert(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self.database.batch():
            self.database.many(statement, rows)

    def _open(self) -> None:
        self._database = Database(self._tables)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()

    async def _end(self) -> None:
        """Closes after what still runs in the thread, which is cut short; also where we are cancelled meanwhile."""
        if self._database is not None:
            self._database.interrupt()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        if self._own is not None:
            self._own.shutdown(wait=False)
        await asyncio.shield(closing)


def _connected(path: str, statements: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.executescript(statements)
    except BaseException:
        connection.close()
        raise
    return connection
