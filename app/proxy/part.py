"""A part: one blob on its way, in a file that outlives a restart.

Work on the file happens in threads, which do not end when the task that waits for them is cancelled; so each holds the
part until it is done, and no thread ever meets the number of a file that was closed meanwhile.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar, TypeVarTuple, Unpack

from app.files import replace
from app.oci.digests import Digest, algorithm_of, new_hash, parse_digest
from app.oci.errors import RegistryError
from app.oci.names import Name, parse_name

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_STRIDE: Final = 1 << 20
_AHEAD: Final = 64 << 20
"""Bytes of room that a blob of unknown size takes at once."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a part is: the blob, its size in bytes where that is known, and whence it comes for which repository."""

    digest: Digest
    size: int | None
    upstream: str
    name: Name


class SpoolError(Exception):
    """No room for this part, now or ever, or a disk that fails; the message is safe to show."""


class Room(Protocol):
    """What a part needs of its spool."""

    most: int
    """Bytes that fit at all."""

    process: str
    """Names this process among all."""

    def begin(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs file work in a thread."""
        ...

    async def take(self, size: int, *, wait: bool) -> None:
        """Reserves room. Raises SpoolError."""
        ...

    def ended(self, part: "Part", reserved: int) -> None:
        """Nobody uses the part any more: closes its file, and takes back its room."""
        ...


class Part:
    """One blob on its way. Written by one task at a time; read by any number."""

    def __init__(self, room: Room, origin: Origin, path: Path) -> None:
        """Opens the file. Raises OSError."""
        self.origin = origin
        self.path = path
        self.written = 0
        self.reusable = True
        """Whether another writer may go on with it: not after bytes were dropped, or a write was abandoned half-way."""
        self._room = room
        self._reserved = 0
        self._hash = new_hash(algorithm_of(origin.digest))
        self._users = 1
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock(self) -> bool:
        """Whether no other process works on this part; from then on it is ours. False too where its name is gone."""
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(self.file).st_ino == self.path.stat().st_ino
        except OSError:
            return False

    async def reserve(self, size: int) -> None:
        """Makes room for `size` bytes in all, waiting for other parts to end. Raises SpoolError when that is hopeless."""
        if size > self._reserved:
            await self._room.take(size - self._reserved, wait=self._reserved == 0)
            self._reserved = size

    async def resume(self) -> None:
        """Takes over the bytes that an earlier process left, which are hashed again. Raises SpoolError.

        None of a blob of unknown size, and none where there are more than the blob has.
        """
        size = self.origin.size
        if size is None or await self._work(_size, self.file) > size:
            await self._work(os.truncate, self.file, 0)
        while count := await self._work(self._rehash, self.written):
            self.written += count

    async def append(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises SpoolError."""
        end = self.written + len(chunk)
        if end > self._reserved:
            await self.reserve(max(end, min(self._reserved + _AHEAD, self._room.most)))
        try:
            await self._work(self._write, chunk)
        except asyncio.CancelledError:
            self.reusable = False
            raise
        self.written = end

    async def read(self, start: int, end: int) -> bytes:
        """Bytes from `start` up to `end`, at least one and at most a megabyte of them. Raises SpoolError."""
        chunk = await self._work(os.pread, self.file, min(end - start, _STRIDE), start)
        if not chunk:
            raise SpoolError("the spool has lost bytes")
        return chunk

    def digest(self) -> Digest:
        """The digest of what was written."""
        return Digest(f"{algorithm_of(self.origin.digest)}:{self._hash.hexdigest()}")

    async def note(self) -> None:
        """Writes down what this part is, so that it can be continued after a restart. Raises SpoolError."""
        fields = {**asdict(self.origin), "process": self._room.process}
        await self._work(replace, journal_of(self.path), json.dumps(fields).encode())

    async def drop(self) -> None:
        """Forgets the bytes; who reads them goes on to the end. Raises SpoolError."""
        self.reusable = False
        await self._work(unlink, self.path)

    def use(self) -> bool:
        """One more user, who calls `leave`; False when the last one has left already."""
        if self._users == 0:
            return False
        self._users += 1
        return True

    def leave(self) -> None:
        """The last one closes the file; its bytes stay unless they were dropped."""
        self._users -= 1
        if self._users == 0:
            self._room.ended(self, self._reserved)

    async def _work(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Runs file work in a thread, and keeps the file open until it is done. Raises SpoolError."""
        running = self._room.begin(function, *args)
        self._users += 1
        running.add_done_callback(lambda _: self.leave())
        try:
            return await asyncio.shield(running)
        except OSError as exc:
            raise SpoolError(f"the spool's disk fails: {exc.strerror}") from exc

    def _write(self, chunk: bytes) -> None:
        view, at = memoryview(chunk), self.written
        while view:
            count = os.pwrite(self.file, view, at)
            view, at = view[count:], at + count
        self._hash.update(chunk)

    def _rehash(self, at: int) -> int:
        chunk = os.pread(self.file, _STRIDE, at)
        self._hash.update(chunk)
        return len(chunk)


def journal_of(path: Path) -> Path:
    """Where it is written what a part is."""
    return path.with_name(f"{path.name}.json")


def read_journal(path: Path) -> tuple[Origin, str] | None:
    """What a journal says, and which process wrote it; None for one that is missing, torn or tampered with."""
    try:
        fields = json.loads(path.read_bytes())
        size = fields["size"]
        if not (size is None or (isinstance(size, int) and size >= 0)):
            return None
        origin = Origin(parse_digest(fields["digest"]), size, str(fields["upstream"]), parse_name(fields["name"]))
        return origin, str(fields["process"])
    except (OSError, ValueError, KeyError, TypeError, RegistryError):
        return None


def unlink(path: Path) -> None:
    """Removes both files of a part; the journal first, for bytes without one are rubbish to whoever finds them."""
    for name in (journal_of(path), path):
        name.unlink(missing_ok=True)


def _size(file: int) -> int:
    return os.fstat(file).st_size
