"""Writing one object into a folder: a small buffer, one append under way in a thread."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final

from storage.errors import NotFound, StorageError
from storage.filesystem_folder import Folder, absence_is_fine, os_errors
from storage.filesystem_scratch import Scratch, turn

BUFFER: Final = 1 << 20
"""Bytes gathered before they go to the file; while they go, as many again are taken."""


class FilesystemWriter:
    """An object being written. What fits the buffer is put at once on commit and never touches the scratch prefix.

    Every step may be repeated after it failed or was cancelled: a step waits for the one before it, and buffered bytes
    are let go only when the file has them.
    """

    def __init__(
        self, folder: Folder, threads: Executor, key: str, scratch: str, state: Mapping[str, Any] | None = None
    ) -> None:
        self.size = int(state["size"]) if state else 0
        self._folder, self._threads, self._key, self._prefix = folder, threads, key, scratch
        self._state = dict(state) if state else None
        self._suspended: dict[str, Any] = {}
        self._turn = turn()
        self._scratch: Scratch | None = None
        self._buffer = bytearray()
        self._leaving = bytearray()
        self._step: asyncio.Future[StorageError | None] | None = None
        self._open, self._committed = True, False

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes; waits while the ones before go to the file. Raises StoreFull, NotFound, Unavailable."""
        self._refuse_ended()
        self._buffer += chunk
        self.size += len(chunk)
        if len(self._buffer) >= BUFFER:
            await self._settle()
            self._begin(self._append)

    async def suspend(self) -> dict[str, Any]:
        """Makes the bytes durable and ends this writer. Returns the file below the scratch prefix and its size."""
        self._refuse_ended()
        await self._settle()
        self._begin(self._keep)
        await self._settle()
        self._open, self._scratch = False, None
        return dict(self._suspended)

    async def commit(self) -> None:
        """Publishes the object, durably; once more does nothing. Raises StoreFull, NotFound, OutcomeUnknown."""
        await self._settle()
        if not self._committed:
            self._refuse_ended()
            self._begin(self._publish)
            await self._settle()

    async def abort(self) -> None:
        """Drops what was taken since `create` or `resume`; what was suspended stays. Raises nothing."""
        if self._step is not None:
            await asyncio.wait([self._step])
        if self._open:
            self._open = False
            await asyncio.wait([self._begin(self._remove)])

    def _refuse_ended(self) -> None:
        if not self._open:
            raise RuntimeError("this writer has ended")

    def _begin(self, step: Callable[[], None]) -> "asyncio.Future[StorageError | None]":
        if not self._leaving:
            self._buffer, self._leaving = self._leaving, self._buffer
        elif self._buffer:
            self._leaving += self._buffer
            self._buffer = bytearray()
        self._step = asyncio.get_running_loop().run_in_executor(self._threads, _outcome, step)
        return self._step

    async def _settle(self) -> None:
        # Not `await step`: that would cancel with this task a step that a thread may be in the middle of.
        if self._step is not None:
            await asyncio.wait([self._step])
            step, self._step = self._step, None
            failure = step.result()
            if failure is not None:
                raise failure

    def _opened(self) -> Scratch:
        if self._scratch is None and self._state is not None:
            self._scratch = Scratch.resume(self._folder, self._prefix, *_named(self._state), self._turn)
        elif self._scratch is None:
            self._scratch = Scratch.create(self._folder, self._prefix)
        return self._scratch

    def _append(self) -> None:
        scratch = self._opened()
        if self._leaving:
            scratch.append(self._leaving)
            self._leaving = bytearray()

    def _keep(self) -> None:
        self._append()
        self._suspended = self._opened().suspend()

    def _publish(self) -> None:
        if self._scratch is None and self._state is None:
            self._folder.put(self._key, self._leaving, None, None)
        elif not self._published_before():
            self._append()
            self._opened().publish(self._key)
        self._leaving = bytearray()
        self._open, self._committed, self._scratch = False, True, None

    def _published_before(self) -> bool:
        """Whether a commit that nobody heard of moved the file to its key already; makes that durable."""
        path = self._folder.path(self._key)
        try:
            moved = self._opened().published(self._key)
        except NotFound:
            moved = self._state is not None and _is(path, self._state, self.size)
            if not moved:
                raise
        if moved:
            self._folder.settle({os.path.dirname(path)})
        return moved

    def _remove(self) -> None:
        # The file of a resumed writer stays; whoever resumes it next cuts what was added.
        if self._scratch is not None and self._state is None:
            self._scratch.remove()
        self._scratch, self._leaving = None, bytearray()


def _is(path: str, state: Mapping[str, Any], size: int) -> bool:
    """Whether the file at `path` is the one that `state` describes, with nothing added."""
    with os_errors("looking for an earlier commit"), absence_is_fine():
        found = os.stat(path)
        return (found.st_ino, found.st_size) == (state["inode"], state["size"]) and found.st_size == size
    return False


def _outcome(step: Callable[[], None]) -> StorageError | None:
    """Failures wait in the result for the task that asks next; it may be another than the one that began the step."""
    try:
        step()
    except StorageError as failure:
        return failure
    return None


def _named(state: Mapping[str, Any]) -> tuple[str, int]:
    return str(state["file"]), int(state["size"])
