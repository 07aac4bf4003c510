"""What an archive holds, by path, whether it comes once (`Streamed`), can be looked up (`Indexed`) or is a folder."""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Container
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.manifests import MAX_BYTES
from app.transfer.errors import ArchiveRefused, CutShort, shown
from app.transfer.imports.stash import Kept, Stash
from app.transfer.imports.streams import PIECE, Chunks, Stream, compressed, decompressed
from app.transfer.imports.tar_reader import Kind, Member, TarReader, clean

Progress = Callable[[int, int], None]
"""Told the bytes that were read, and all that there are; 0 where nobody knows."""

HEAD: Final = 6
"""Bytes by which compression is told."""
_BLOB: Final = re.compile(r"blobs/(?:(sha256)/([0-9a-f]{64})|(sha512)/([0-9a-f]{128}))")
_SCAN: Final = 64 << 10
"""Bytes read at once while headers are looked for."""
_SMALL: Final = 64 << 10
_IN_MEMORY: Final = 32 << 20
"""Bytes of documents that are held in memory; further ones lie in the store."""
_LINKS: Final = 16


class Archive(Protocol):
    """Files by path."""

    async def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        ...

    async def head(self, path: str) -> bytes:
        """The first HEAD bytes of a file that is there."""
        ...

    async def document(self, path: str) -> bytes:
        """All of a small file that is there. Raises ArchiveRefused for more than MAX_BYTES, Unavailable."""
        ...

    async def keep(self, path: str, expected: Digest | None) -> Kept:
        """The bytes of a file that is there, in the stash. Raises ArchiveRefused where they are not `expected`."""
        ...


def blob_path(digest: Digest) -> str:
    """Where an OCI layout has a blob."""
    return f"blobs/{digest.replace(':', '/')}"


def blob_at(path: str) -> Digest | None:
    """The digest of a blob that lies at `path` of an OCI layout; None for other paths."""
    found = _BLOB.fullmatch(path)
    return Digest(path.removeprefix("blobs/").replace("/", ":")) if found else None


@asynccontextmanager
async def open_archive(path: Path, stash: Stash, limit: int, progress: Progress) -> AsyncIterator[Archive]:
    """The archive at a path: a folder, a tar file, or a compressed one. Raises ArchiveRefused, OSError."""
    async with AsyncExitStack() as stack:
        if await asyncio.to_thread(path.is_dir):
            fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            yield Folder(fd, stash)
            return
        file = await asyncio.to_thread(FileIO, path)
        stack.callback(file.close)
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            yield await Streamed.read(_read(file, lambda come: progress(come, 0)), stash, limit)
        elif compressed(await asyncio.to_thread(os.pread, file.fileno(), HEAD, 0)):
            chunks = _read(file, lambda come: progress(come, status.st_size))
            yield await Streamed.read(chunks, stash, limit)
        else:
            yield await Indexed.read(file.fileno(), status.st_size, stash, limit, progress)


class _Tar:
    """What the two kinds of tar have in common: the links, and that nothing stands in them twice."""

    def __init__(self, stash: Stash) -> None:
        self._stash = stash
        self._links: dict[str, str] = {}

    def _add_link(self, member: Member, files: Container[str]) -> None:
        if member.path in files or self._links.setdefault(member.path, member.target) != member.target:
            raise _twice(member.path)

    def _refuse_twice(self, path: str, files: Container[str]) -> None:
        """A blob may stand in an archive twice, as its name says what it is."""
        if path in self._links or (path in files and blob_at(path) is None):
            raise _twice(path)

    def _followed(self, path: str) -> str:
        for _ in range(_LINKS):
            target = self._links.get(path)
            if target is None:
                return path
            path = target
        raise ArchiveRefused(f"the links of {shown(path)} lead nowhere")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file of an archive that comes once: in memory, or in the stash."""

    size: int
    head: bytes
    data: bytes | None = None
    kept: Kept | None = None


class Streamed(_Tar):
    """An archive that comes once, in any order: what may be needed is stored as it comes."""

    def __init__(self, stash: Stash) -> None:
        super().__init__(stash)
        self._files: dict[str, _Taken] = {}
        self._in_memory = 0

    @classmethod
    async def read(cls, chunks: Chunks, stash: Stash, limit: int) -> "Streamed":
        """Reads all of it, unpacking it where it is compressed. Raises ArchiveRefused, CutShort, Unavailable."""
        found = cls(stash)
        reader = TarReader(Stream(decompressed(chunks), limit))
        async for member in reader.members():
            if member.kind in (Kind.LINK, Kind.SYMLINK):
                found._add_link(member, found._files)
            elif member.kind is Kind.FILE:
                await found._take(member, reader)
        return found

    async def size(self, path: str) -> int | None:
        taken = self._files.get(self._followed(path))
        return None if taken is None else taken.size

    async def head(self, path: str) -> bytes:
        return self._files[self._followed(path)].head

    async def document(self, path: str) -> bytes:
        taken = self._files[self._followed(path)]
        if taken.data is not None:
            return taken.data
        if taken.size > MAX_BYTES or taken.kept is None:
            raise _too_large(path)
        return await self._stash.read(taken.kept)

    async def keep(self, path: str, expected: Digest | None) -> Kept:
        path = self._followed(path)
        taken = self._files[path]
        if taken.kept is None:
            kept = await self._stash.keep(_one(taken.data or b""), taken.size, expected, path)
            self._files[path] = _Taken(taken.size, taken.head, taken.data, kept)
            return kept
        if expected is not None and taken.kept.digest != expected:
            raise ArchiveRefused(f"{shown(path)} has other bytes than its name or its descriptor says")
        return taken.kept

    async def _take(self, member: Member, reader: TarReader) -> None:
        self._refuse_twice(member.path, self._files)
        expected = blob_at(member.path)
        data = reader.data()
        first = await anext(data, b"")
        document = member.size <= MAX_BYTES and first[:1] in (b"{", b"[")
        if (document or member.size <= _SMALL) and self._in_memory + member.size <= _IN_MEMORY:
            body = b"".join([first, *[chunk async for chunk in data]])
            if expected is not None and digest_of(body, algorithm_of(expected)) != expected:
                raise ArchiveRefused(f"{shown(member.path)} has other bytes than its name says")
            self._in_memory += member.size
            self._files[member.path] = _Taken(member.size, body[:HEAD], data=body)
            return
        if document and self._stash.dry:
            raise ArchiveRefused("the archive has too many documents for a dry run while it comes: save it to a file")
        kept = await self._stash.keep(_chained(first, data), member.size, expected, member.path)
        self._files[member.path] = _Taken(member.size, first[:HEAD], kept=kept)


class Indexed(_Tar):
    """A tar file that can be read anywhere: only what is needed is read, once it is known what that is."""

    def __init__(self, fd: int, size: int, stash: Stash, progress: Progress) -> None:
        super().__init__(stash)
        self._fd = fd
        self._size = size
        self._progress = progress
        self._come = 0
        self._places: dict[str, tuple[int, int]] = {}

    @classmethod
    async def read(cls, fd: int, size: int, stash: Stash, limit: int, progress: Progress) -> "Indexed":
        """Reads all headers. Raises ArchiveRefused, CutShort."""
        found = cls(fd, size, stash, progress)

        def reopen(start: int) -> Chunks:
            return _ranged(fd, start, size, _SCAN)

        async for member in TarReader(Stream(reopen(0), limit, reopen=reopen, size=size)).members():
            if member.kind in (Kind.LINK, Kind.SYMLINK):
                found._add_link(member, found._places)
            elif member.kind is Kind.FILE:
                found._refuse_twice(member.path, found._places)
                found._places[member.path] = (member.offset, member.size)
        return found

    async def size(self, path: str) -> int | None:
        place = self._places.get(self._followed(path))
        return None if place is None else place[1]

    async def head(self, path: str) -> bytes:
        start, size = self._places[self._followed(path)]
        return await asyncio.to_thread(os.pread, self._fd, min(size, HEAD), start)

    async def document(self, path: str) -> bytes:
        start, size = self._places[self._followed(path)]
        if size > MAX_BYTES:
            raise _too_large(path)
        return b"".join([chunk async for chunk in _ranged(self._fd, start, start + size)])

    async def keep(self, path: str, expected: Digest | None) -> Kept:
        path = self._followed(path)
        start, size = self._places[path]
        held = await self._stash.held(expected, size) if expected else None
        chunks = _counted(_ranged(self._fd, start, start + size), self._seen)
        kept = held or await self._stash.keep(chunks, size, expected, path)
        if held is not None:
            self._seen(size)
        return kept

    def _seen(self, size: int) -> None:
        self._come = min(self._size, self._come + size)
        self._progress(self._come, self._size)


class Folder:
    """A folder. Nothing is read through a symbolic link, which could lead to anything that the registry may read."""

    def __init__(self, fd: int, stash: Stash) -> None:
        self._fd = fd
        self._stash = stash

    async def size(self, path: str) -> int | None:
        try:
            file = await asyncio.to_thread(self._open, path)
        except FileNotFoundError:
            return None
        with file:
            return os.fstat(file.fileno()).st_size

    async def head(self, path: str) -> bytes:
        with await asyncio.to_thread(self._open, path) as file:
            return await asyncio.to_thread(os.pread, file.fileno(), HEAD, 0)

    async def document(self, path: str) -> bytes:
        with await asyncio.to_thread(self._open, path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise _too_large(path)
            return b"".join([chunk async for chunk in _ranged(file.fileno(), 0, size)])

    async def keep(self, path: str, expected: Digest | None) -> Kept:
        with await asyncio.to_thread(self._open, path) as file:
            size = os.fstat(file.fileno()).st_size
            held = await self._stash.held(expected, size) if expected else None
            return held or await self._stash.keep(_ranged(file.fileno(), 0, size), size, expected, path)

    def _open(self, path: str) -> FileIO:
        """A file below the folder. Raises FileNotFoundError, ArchiveRefused for what is no plain file."""
        *folders, name = clean(path).split("/")
        fd = os.dup(self._fd)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            found = FileIO(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd))
        except NotADirectoryError as exc:
            raise ArchiveRefused(f"{shown(path)} leads outside of the folder") from exc
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise ArchiveRefused(f"{shown(path)} cannot be read: {exc.strerror}") from exc
        except ValueError as exc:  # a name that this system cannot spell
            raise ArchiveRefused(f"{shown(path)} cannot be read") from exc
        finally:
            os.close(fd)
        if not stat.S_ISREG(os.fstat(found.fileno()).st_mode):
            found.close()
            raise ArchiveRefused(f"{shown(path)} is no plain file")
        return found


def _twice(path: str) -> ArchiveRefused:
    return ArchiveRefused(f"{shown(path)} stands in the archive twice")


def _too_large(path: str) -> ArchiveRefused:
    return ArchiveRefused(f"{shown(path)} is larger than {MAX_BYTES >> 20} MiB, the most that a document may have")


async def _read(file: FileIO, seen: Callable[[int], None]) -> Chunks:
    """All of an open file, or pipe, from where it stands; `seen` is told how many bytes came."""
    come = 0
    while chunk := await asyncio.to_thread(file.read, PIECE):
        come += len(chunk)
        seen(come)
        yield chunk


async def _ranged(fd: int, start: int, end: int, piece: int = PIECE) -> Chunks:
    """The bytes of a file from `start` up to `end`. Raises CutShort where it has shrunk."""
    while start < end:
        chunk = await asyncio.to_thread(os.pread, fd, min(piece, end - start), start)
        if not chunk:
            raise CutShort("the archive is cut short")
        start += len(chunk)
        yield chunk


async def _counted(chunks: Chunks, seen: Callable[[int], None]) -> Chunks:
    async for chunk in chunks:
        seen(len(chunk))
        yield chunk


async def _chained(first: bytes, rest: Chunks) -> Chunks:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


async def _one(data: bytes) -> Chunks:
    if data:
        yield data
