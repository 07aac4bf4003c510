"""Where an archive goes: a file that appears whole or not at all, a stream, or a folder."""

import asyncio
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from app.errors import StartError
from app.oci.digests import algorithm_of, new_hash
from app.transfer.exports.contents import IMAGE_NAME, NAME, REF_NAME, completed, distinct
from app.transfer.exports.tarball import Member, Progress

_BATCH: Final = 1 << 20
_GZIP: Final = 31
"""zlib's way to say gzip; it writes no time and no name."""
_LEVEL: Final = 1
"""Layers are compressed already."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Pouring:
    """Chunks on their way into a file: gathered, compressed where wanted, hashed and written in a thread."""

    def __init__(self, file: IO[bytes], *, gzip: bool = False) -> None:
        self._file = file
        self._packer = zlib.compressobj(_LEVEL, wbits=_GZIP) if gzip else None
        self._hash = hashlib.sha256()
        self._size = 0
        self._batch: list[bytes] = []
        self._batched = 0
        self._running: asyncio.Future[None] | None = None

    async def pour(self, chunks: AsyncIterator[bytes], come: Callable[[int], None]) -> Written:
        """Writes all; `come` is told how many bytes came. Raises OSError, and what `chunks` raises."""
        total = 0
        try:
            async for chunk in chunks:
                self._batch.append(chunk)
                self._batched += len(chunk)
                total += len(chunk)
                if self._batched >= _BATCH:
                    await self._flush(self._write)
                    come(total)
            await self._flush(self._end)
            await self._settle()
        finally:
            if self._running is not None:
                await asyncio.wait([self._running])  # so that nobody closes the file under it
        come(total)
        return Written(self._size, self._hash.hexdigest())

    async def _flush(self, step: Callable[[list[bytes]], None]) -> None:
        await self._settle()
        batch, self._batch, self._batched = self._batch, [], 0
        self._running = asyncio.get_running_loop().run_in_executor(None, step, batch)

    async def _settle(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])
            running, self._running = self._running, None
            running.result()

    def _write(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._put(self._packer.compress(chunk) if self._packer else chunk)

    def _end(self, batch: list[bytes]) -> None:
        self._write(batch)
        if self._packer is not None:
            self._put(self._packer.flush())
        self._file.flush()

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._file.write(data)


async def write_file(path: Path, chunks: AsyncIterator[bytes], *, size: int, gzip: bool, progress: Progress) -> Written:
    """Writes `path` by way of `path.part`, then `path.sha256`; a device or a pipe is written as it is.

    Raises OSError, and what `chunks` raises; nothing is left behind then, and an earlier file stays as it was.
    """
    if await asyncio.to_thread(_is_device, path):
        with await asyncio.to_thread(path.open, "wb") as device:
            return await Pouring(device, gzip=gzip).pour(chunks, lambda come: progress(come, size))
    part = path.with_name(f"{path.name}.part")
    file = await asyncio.to_thread(_opened, part, 0 if gzip else size)
    try:
        written = await Pouring(file, gzip=gzip).pour(chunks, lambda come: progress(come, size))
        await asyncio.to_thread(_publish, file, part, path, written)
    except BaseException:
        await asyncio.to_thread(_discard, file, part)
        raise
    return written


async def write_text(path: Path, chunks: AsyncIterator[bytes]) -> None:
    """Writes `path`, whole or not at all. Raises OSError, and what `chunks` raises."""
    if await asyncio.to_thread(_is_device, path):
        with await asyncio.to_thread(path.open, "wb") as device:
            await Pouring(device).pour(chunks, lambda _: None)
    else:
        await _write_member(path, chunks, lambda _: None)


async def write_folder(folder: Path, members: Sequence[Member], progress: Progress) -> int:
    """Makes the folder an OCI layout of these members, or adds them to the one that it is; returns the bytes written.

    A blob that is there already, and right, stays. index.json comes last, so that it never names what is not there.
    Raises StartError for a folder with something else in it, OSError, and what the members raise.
    """
    index = await asyncio.to_thread(_known, folder)
    wanted = sum(member.size for member in members)
    done = written = 0
    for member in sorted(members, key=lambda member: member.path == "index.json"):
        target = folder / member.path
        if await asyncio.to_thread(_is_there, target, member):
            done += member.size
            progress(done, wanted)
            continue
        chunks = member.checked()
        if member.path == "index.json" and index:
            chunks = _merged(index, chunks)
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        written += await _write_member(target, chunks, partial(_add, progress, done, wanted))
        done += member.size
    return written


def _add(progress: Progress, done: int, wanted: int, come: int) -> None:
    progress(done + come, wanted)


async def _write_member(target: Path, chunks: AsyncIterator[bytes], come: Callable[[int], None]) -> int:
    part = target.with_name(f"{target.name}.part")
    file = await asyncio.to_thread(part.open, "wb")
    try:
        written = await Pouring(file).pour(chunks, come)
        await asyncio.to_thread(_replace, file, part, target)
    except BaseException:
        await asyncio.to_thread(_discard, file, part)
        raise
    return written.size


async def _merged(index: Any, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The index with these entries instead of its own of the same names."""
    new = json.loads(b"".join([chunk async for chunk in chunks]))
    names = {_name(entry) for entry in new["manifests"]}
    kept = [entry for entry in index.get("manifests", []) if _name(entry) not in names]
    annotations = {**index.get("annotations", {}), **new.get("annotations", {})}
    merged = {**new, "manifests": distinct(sorted([*kept, *new["manifests"]], key=_name))}
    merged |= {"annotations": annotations} if annotations else {}
    yield json.dumps(merged, sort_keys=True, separators=(",", ":")).encode()


def _name(entry: Any) -> tuple[str, ...]:
    """What an entry of an index is called; its digest where it has no name.

    Both names count: `team/app`, pushed here, is to engines what `team/app` of Docker Hub is. Early exports wrote the
    first one short.
    """
    annotations = entry.get("annotations") or {}
    names = {name: str(annotations[name]) for name in (IMAGE_NAME, NAME) if name in annotations}
    both = tuple(completed(said) if name == IMAGE_NAME else said for name, said in names.items())
    return both or (str(annotations.get(REF_NAME, entry["digest"])),)


def _known(folder: Path) -> Any:
    """The index of a layout that is there; None for a new or empty folder. Raises StartError, OSError."""
    try:
        if not any(folder.iterdir()):
            return None
    except FileNotFoundError:
        folder.mkdir(parents=True)
        return None
    if not (folder / "oci-layout").exists():
        raise StartError(f"{folder} holds something that is no OCI layout: name an empty folder")
    try:
        return json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _is_there(path: Path, member: Member) -> bool:
    if member.digest is None:
        return False
    algorithm = algorithm_of(member.digest)
    try:
        if path.stat().st_size != member.size:
            return False
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: new_hash(algorithm))
    except FileNotFoundError:
        return False
    return f"{algorithm}:{found.hexdigest()}" == member.digest


def _opened(part: Path, size: int) -> IO[bytes]:
    """The new file. Raises OSError, at once where the disk has not the room for it."""
    free = shutil.disk_usage(part.absolute().parent).free
    if size > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
    return part.open("wb")


def _publish(file: IO[bytes], part: Path, path: Path, written: Written) -> None:
    """The archive, then its checksum: an old one never stands beside a new archive."""
    checksum = path.with_name(f"{path.name}.sha256")
    checksum.unlink(missing_ok=True)
    _replace(file, part, path)
    checksum.write_text(f"{written.sha256}  {path.name}\n", encoding="utf-8")


def _replace(file: IO[bytes], part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    part.replace(path)


def _discard(file: IO[bytes], part: Path) -> None:
    with suppress(OSError):
        file.close()
    part.unlink(missing_ok=True)
