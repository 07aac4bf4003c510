"""Reading one file of a folder, a chunk and a thread hop at a time."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from storage.errors import Corrupt
from storage.filesystem_folder import OpenFile, os_errors

FIRST: Final = 256 << 10
"""Bytes of the first chunk: the client sees something soon."""

CHUNK: Final = 1 << 20
"""Most bytes of every other chunk."""

Hop = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Runs a blocking read in a thread."""


class FilesystemReader:
    """The bytes of `file` from `start` up to `end`, or to its end; they stay when the key is overwritten meanwhile."""

    def __init__(self, hop: Hop, key: str, file: OpenFile, size: int, *, start: int, end: int | None) -> None:
        self.size = size
        self._hop, self._key = hop, key
        self._file: OpenFile | None = file
        self._at = start
        self._end = size if end is None else min(end, size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of up to 1 MiB. Raises Corrupt when the file ends early, Unavailable."""
        most = FIRST
        while self._at < self._end:
            chunk = await self._read(min(most, self._end - self._at))
            self._at += len(chunk)
            most = CHUNK
            yield chunk

    def close(self) -> None:
        """Lets go of the file; it is closed when a read that is under way in a thread has ended."""
        self._file = None

    async def _read(self, count: int) -> bytes:
        file, at = self._file, self._at
        if file is None:
            raise RuntimeError("this reader is closed")

        def read() -> bytes:
            with os_errors(f"reading {self._key}"):
                return os.pread(file.fd, count, at)

        chunk = await self._hop(read)
        if not chunk:
            raise Corrupt(f"{self._key} ends {self._end - at} bytes early")
        return chunk
