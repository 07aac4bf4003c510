"""The spool: blobs on their way, in files that outlive a restart, within a bound of disk space.

A part is two files: `<digest>` holds the bytes so far, `<digest>.json` says what they are and where they come from. The
process that works on a part holds a lock on it, so that several may share the folder.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

from app.errors import StartError
from app.files import replace
from app.oci.digests import Digest, algorithm_of, new_hash, parse_digest
from app.oci.errors import RegistryError
from app.oci.names import Name, parse_name
from storage.budget import ByteBudget

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_STRIDE: Final = 1 << 20
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """What a part is: the blob, its size in bytes where that is known, and whence it comes for which repository."""

    digest: Digest
    size: int | None
    upstream: str
    name: Name


class SpoolFull(Exception):
    """No room for this part, now or ever; the message is safe to show."""


class Part:
    """One blob on its way. Written by one task; read by any number."""

    def __init__(self, spool: "Spool", origin: Origin, path: Path) -> None:
        self.origin = origin
        self.written = 0
        self._spool = spool
        self._path = path
        self._reserved = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._hash = new_hash(algorithm_of(origin.digest))
        self._users = 1

    def lock(self) -> bool:
        """Whether no other process works on this part; from then on it is ours."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    async def reserve(self, size: int) -> None:
        """Makes room for `size` bytes in all, waiting for other parts to end. Raises SpoolFull when that is hopeless."""
        if size > self._reserved:
            await self._spool.take(size - self._reserved, wait=self._reserved == 0)
            self._reserved = size

    async def resume(self) -> None:
        """Takes over the bytes that an earlier process left, which are hashed again; none of a blob of unknown size."""
        if self.origin.size is None:
            os.truncate(self._file, 0)
        self.written = await self._spool.work(self._rehash)

    async def append(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises SpoolFull."""
        end = self.written + len(chunk)
        if end > self._reserved:
            await self.reserve(max(end, self._reserved + (64 << 20)))
        try:
            await self._spool.work(self._write, chunk)
        except OSError as exc:
            raise SpoolFull(f"the spool cannot be written: {exc.strerror}") from exc
        self.written = end

    async def read(self, start: int, end: int) -> bytes:
        """Bytes from `start` up to `end`, at most a megabyte of them."""
        return await self._spool.work(os.pread, self._file, min(end - start, _STRIDE), start)

    def digest(self) -> Digest:
        """The digest of what was written."""
        return Digest(f"{algorithm_of(self.origin.digest)}:{self._hash.hexdigest()}")

    def note(self) -> None:
        """Writes down what this part is, so that it can be continued after a restart."""
        fields = json.dumps(asdict(self.origin)).encode()
        replace(_journal(self._path), fields)

    async def drop(self) -> None:
        """Forgets the bytes once nobody uses the part any more."""
        await self._spool.work(self._unlink)

    def use(self) -> bool:
        """One more user, who calls `leave`; False when the last one has left already."""
        if self._users == 0:
            return False
        self._users += 1
        return True

    def leave(self) -> None:
        """The last one closes the file, and its room is free again unless its bytes are kept for later."""
        self._users -= 1
        if self._users == 0:
            self._spool.end(self._file)
            self._spool.give(self._reserved)

    def _unlink(self) -> None:
        for path in (_journal(self._path), self._path):
            path.unlink(missing_ok=True)

    def _write(self, chunk: bytes) -> None:
        view, at = memoryview(chunk), self.written
        while view:
            count = os.pwrite(self._file, view, at)
            view, at = view[count:], at + count
        self._hash.update(chunk)

    def _rehash(self) -> int:
        at = 0
        while chunk := os.pread(self._file, _STRIDE, at):
            self._hash.update(chunk)
            at += len(chunk)
        return at


class Spool:
    """A folder of parts, `max_bytes` in all. `start` before use."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max = max_bytes
        self._budget = ByteBudget(max_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="spool")
        self.used = 0

    async def start(self) -> list[Origin]:
        """Makes the folder; returns what an earlier process left unfinished. Raises StartError."""
        try:
            return await self.work(lambda: list(self._leftovers()))
        except OSError as exc:
            raise StartError(f"proxy.spool.folder {self._folder} cannot be used: {exc.strerror}") from exc

    def close(self) -> None:
        """Ends the threads; parts stay where they are."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def open(self, origin: Origin) -> Part:
        """A part for this blob; it begins with the bytes that an earlier one left. Raises SpoolFull."""
        try:
            part = await self.work(self._opened, origin)
        except OSError as exc:
            raise SpoolFull(f"the spool cannot be written: {exc.strerror}") from exc
        try:
            await part.resume()
            if origin.size is not None:
                await part.reserve(max(origin.size, part.written))
            await self.work(part.note)
        except BaseException:
            part.leave()
            raise
        return part

    async def take(self, size: int, *, wait: bool) -> None:
        """Reserves room. Raises SpoolFull for what can never fit, or does not now where `wait` is False."""
        if size > self._max:
            raise SpoolFull("the blob is larger than proxy.spool.max_bytes")
        if not self._budget.take(size):
            if not wait:
                raise SpoolFull("the spool is full")
            await self._budget.wait(size)
        self.used += size

    def give(self, size: int) -> None:
        """Gives room back."""
        self.used -= size
        self._budget.give(size)

    def end(self, file: int) -> None:
        """Closes a file, which may take a moment when its name is gone already."""
        self._threads.submit(os.close, file)

    async def work(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Runs file work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _opened(self, origin: Origin) -> Part:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / origin.digest.replace(":", "-")
        part = Part(self, origin, path)
        if part.lock():
            self._make_room(path, origin.size or 0)
            return part
        part.leave()
        part = Part(self, origin, path.with_name(f"{path.name}.{os.getpid()}"))
        part.lock()
        return part

    def _make_room(self, spared: Path, wanted: int) -> None:
        """Leftovers count too: the oldest go while everything on disk would exceed the bound."""
        found = sorted((item for item in self._folder.iterdir() if item != spared), key=_modified)
        total = wanted + sum(_size(item) for item in found)
        for item in found:
            if total <= self._max:
                return
            if item.suffix != ".json" and _abandoned(item):
                total -= _size(item)
                item.unlink(missing_ok=True)
                _journal(item).unlink(missing_ok=True)

    def _leftovers(self) -> Iterator[Origin]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".json" or not _abandoned(path):
                continue
            origin = _origin(_journal(path))
            if origin is not None and path.name == origin.digest.replace(":", "-"):
                yield origin
            else:
                path.unlink(missing_ok=True)
                _journal(path).unlink(missing_ok=True)


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _origin(path: Path) -> Origin | None:
    """What a journal says; None for one that is missing, torn or tampered with."""
    try:
        fields = json.loads(path.read_bytes())
        size = fields["size"]
        if not (size is None or (isinstance(size, int) and size >= 0)):
            return None
        return Origin(parse_digest(fields["digest"]), size, str(fields["upstream"]), parse_name(fields["name"]))
    except (OSError, ValueError, KeyError, TypeError, RegistryError):
        return None


def _abandoned(path: Path) -> bool:
    """Whether no process holds the lock of this part."""
    try:
        file = os.open(path, os.O_RDWR)
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
