"""The spool: the folder in which blobs on their way grow, within a bound of disk space.

A part is two files: `<digest>` holds the bytes so far, `<digest>.json` says what they are and where they come from. The
process that works on a part holds a lock on it, so that several may share the folder.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

from app.errors import StartError
from app.oci.digests import Digest
from app.proxy.part import Origin, Part, SpoolError, journal_of, read_journal, unlink
from storage.budget import ByteBudget

__all__ = ["Origin", "Part", "Spool", "SpoolError"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_THREADS: Final = 8
_STALE: Final = 3600.0
"""Seconds after which a file that takes a moment to write has no writer any more."""


class Spool:
    """A folder of parts, `max_bytes` in all. `start` before use."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self.most = max_bytes
        self._budget = ByteBudget(max_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="spool")
        self._parts: dict[Digest, Part] = {}
        self._paths: set[Path] = set()
        self._left_by: dict[Digest, str] = {}
        self.process = secrets.token_hex(16)
        self.used = 0

    async def start(self, upstreams: Container[str]) -> list[Origin]:
        """Makes the folder; returns what an earlier process left unfinished of these upstreams. Raises StartError."""
        try:
            return await self.begin(lambda: list(self._leftovers(upstreams)))
        except OSError as exc:
            raise StartError(f"proxy.spool.folder {self._folder} cannot be used: {exc.strerror}") from exc

    def close(self) -> None:
        """Ends the threads; parts stay where they are."""
        self._threads.shutdown(wait=False)

    async def open(self, origin: Origin) -> Part:
        """A part for this blob; it begins with the bytes that an earlier one left. Raises SpoolError."""
        found = self._parts.get(origin.digest)
        if found is not None and found.reusable and found.origin.size == origin.size and found.use():
            return found  # somebody still reads what an earlier transfer brought
        try:
            part = await self.begin(self._opened, origin)
        except OSError as exc:
            raise SpoolError(f"the spool's disk fails: {exc.strerror}") from exc
        self._parts[origin.digest] = part
        self._paths.add(part.path)
        try:
            await self._prepare(part)
        except BaseException as exc:
            if isinstance(exc, SpoolError) and not part.written:
                with suppress(SpoolError):
                    await part.drop()
            part.leave()
            raise
        return part

    def left_by(self, digest: Digest) -> str | None:
        """The process that left a part of this blob unfinished, and its lock: whatever else it held is nobody's now."""
        return self._left_by.get(digest)

    async def take(self, size: int, *, wait: bool) -> None:
        """Reserves room. Raises SpoolError for what can never fit, or does not now where `wait` is False."""
        if size > self.most:
            raise SpoolError("the blob is larger than proxy.spool.max_bytes")
        if not self._budget.take(size):
            if not wait:
                raise SpoolError("the spool is full")
            await self._budget.wait(size)
        self.used += size

    def ended(self, part: Part, reserved: int) -> None:
        """Closes a part's file, which may take a moment when its name is gone already, and takes back its room."""
        self.used -= reserved
        self._budget.give(reserved)
        self._paths.discard(part.path)
        if self._parts.get(part.origin.digest) is part:
            del self._parts[part.origin.digest]
        try:
            self._threads.submit(os.close, part.file)
        except RuntimeError:  # the spool was closed first
            os.close(part.file)

    def begin(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs file work in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def _prepare(self, part: Part) -> None:
        await part.resume()
        if part.origin.size is not None:
            await part.reserve(part.origin.size)
        await part.note()
        with suppress(OSError):
            await self.begin(self._make_room, self.used, frozenset(self._paths))

    def _opened(self, origin: Origin) -> Part:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / _file_name(origin.digest)
        part = Part(self, origin, path)
        if not part.lock():
            os.close(part.file)  # another process has it, and maybe another bucket: this one fetches for itself
            part = Part(self, origin, path.with_name(f"{path.name}.{secrets.token_hex(8)}"))
            part.lock()
        return part

    def _make_room(self, reserved: int, ours: Container[Path]) -> None:
        """Leftovers count too: the oldest go while they and what is reserved exceed the bound."""
        items = (item for item in self._folder.iterdir() if item not in ours and not item.name.startswith("."))
        found = sorted(items, key=_modified)
        total = reserved + sum(_size(item) for item in found)
        for item in found:
            if total <= self.most:
                return
            if item.suffix != ".json" and _abandoned(item):
                total -= _size(item)
                unlink(item)

    def _leftovers(self, upstreams: Container[str]) -> Iterator[Origin]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):  # a journal being written, maybe by one who shares the folder
                if _modified(path) < time.time() - _STALE:
                    path.unlink(missing_ok=True)
            elif path.suffix == ".json":
                if not path.with_suffix("").exists():
                    path.unlink(missing_ok=True)
            elif _abandoned(path):
                found = read_journal(journal_of(path))
                if found is None or found[0].upstream not in upstreams or path.name != _file_name(found[0].digest):
                    unlink(path)
                else:
                    self._left_by[found[0].digest] = found[1]
                    yield found[0]


def _file_name(digest: Digest) -> str:
    return digest.replace(":", "-")


def _abandoned(path: Path) -> bool:
    """Whether no process holds the lock of this part."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)


def _modified(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
