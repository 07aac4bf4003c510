"""The filesystem driver: one file a key, in the layout of the bucket, safe with several processes on one folder."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from storage.driver import PAGE, Capabilities, Condition, Entry, Fence, Object, Page
from storage.filesystem_folder import Folder
from storage.filesystem_probe import probe
from storage.filesystem_reader import FilesystemReader
from storage.filesystem_scratch import remove_tree
from storage.filesystem_writer import FilesystemWriter
from storage.keys import check_key, check_prefix, check_scratch

THREADS: Final = 16
"""Most reads, and most writes, that wait for the disk at once."""

BATCH: Final = 200
"""Keys that one thread deletes in a row."""

T = TypeVar("T")


class FilesystemDriver:
    """A store in the folder `root`. `fence_lifetime`: seconds that a fence gives a write."""

    name = "filesystem"

    def __init__(self, root: Path, *, fence_lifetime: float = 900) -> None:
        path = os.path.abspath(root)
        if path == os.path.dirname(path):
            raise ValueError("the store's folder cannot be the root of the filesystem")
        self._folder = Folder(path)
        self._fence_lifetime = fence_lifetime
        # Two pools: a disk that is slow to sync, or a lock that another process holds, does not stop reads.
        self._readers = ThreadPoolExecutor(THREADS, "filesystem-read")
        self._writers = ThreadPoolExecutor(THREADS, "filesystem-write")

    async def start(self) -> None:
        """Makes the folder where it is missing. Raises AccessDenied, StoreFull, Unavailable."""
        await self._write(self._folder.prepare)

    async def close(self) -> None:
        """Ends the threads; a write that is under way ends by itself."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)

    async def probe(self) -> Capabilities:
        """Tries writes, conditions, fences, the lock and the free space with throw-away keys below `upkeep/probe/`."""
        return await self._write(lambda: probe(self._folder))

    async def ready(self) -> None:
        """Raises Unavailable or AccessDenied when the folder is gone."""
        await self._read(self._folder.check)

    async def get(self, key: str) -> Object:
        """The whole object. Raises NotFound, Corrupt, Unavailable."""
        return await self._read(lambda: self._folder.get(key))

    async def stat(self, key: str) -> Entry:
        """Size and version of one key. Raises NotFound, Unavailable."""
        return await self._read(lambda: self._folder.stat(key))

    @asynccontextmanager
    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[FilesystemReader]:
        """The bytes from `start` up to, not including, `end`. Raises NotFound, Unavailable."""
        file, found = await self._read(lambda: self._folder.open(key))
        reader = FilesystemReader(self._read, key, file, found.st_size, start=start, end=end)
        del file
        try:
            yield reader
        finally:
            reader.close()

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        """Writes one object whole and durably. Raises ConditionFailed, FenceExpired, StoreFull, OutcomeUnknown."""
        await self._write(lambda: self._folder.put(key, data, condition, fence))

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        """Removes a key that may not be there, durably. Raises FenceExpired, OutcomeUnknown."""
        await self._write(lambda: self._folder.delete([key], fence))

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        """Removes the keys, durably. Raises FenceExpired, Unavailable or AccessDenied when any of them may remain."""
        for begin in range(0, len(keys), BATCH):
            batch = list(keys[begin : begin + BATCH])
            await self._write(lambda batch=batch: self._folder.delete(batch, fence))  # type: ignore[misc]

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        """Up to `limit` keys that begin with `prefix` and sort after `after`. Raises Unavailable, AccessDenied."""
        check_prefix(prefix)
        return await self._read(lambda: self._folder.list(prefix, after, min(limit, PAGE)))

    async def copy(self, source: str, target: str) -> None:
        """Copies an object of any size. Raises NotFound, StoreFull, Corrupt, OutcomeUnknown."""
        await self._write(lambda: self._folder.copy(source, target))

    def fence(self) -> Fence:
        """A deadline that begins now."""
        return Fence(time.time(), self._fence_lifetime)

    def create(self, key: str, scratch: str) -> FilesystemWriter:
        """A new object. Raises ValueError."""
        return FilesystemWriter(self._folder, self._writers, check_key(key), check_scratch(scratch))

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> FilesystemWriter:
        """Continues a suspended writer. Its first step raises NotFound when bytes are gone, Corrupt when some are."""
        del turn  # every writer has a file of its own
        return FilesystemWriter(self._folder, self._writers, check_key(key), check_scratch(scratch), state)

    async def discard(self, scratch: str) -> None:
        """Removes everything below `scratch`, durably. Raises Unavailable, AccessDenied."""
        check_scratch(scratch)
        await self._write(lambda: remove_tree(self._folder, scratch))

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        """None: a folder has no URLs."""
        return None

    async def _read(self, job: Callable[[], T]) -> T:
        return await _hop(self._readers, job)

    async def _write(self, job: Callable[[], T]) -> T:
        return await _hop(self._writers, job)


async def _hop(threads: Executor, job: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, job)
