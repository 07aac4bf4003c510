"""A tar file whose every byte is known beforehand: the same members make the same file, and its size can be told."""

import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest, algorithm_of
from app.registry.hashing import StreamHash
from storage import Corrupt

_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)
_FILE: Final = 0o644
_FOLDER: Final = 0o755

Chunks = AbstractAsyncContextManager[AsyncIterator[bytes]]
Progress = Callable[[int, int], None]
"""Told the bytes that were written, and all of them."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: `size` bytes that `read` brings, and that hash to `digest` where there is one."""

    path: str
    size: int
    read: Callable[[], Chunks]
    digest: Digest | None = None

    async def checked(self) -> AsyncIterator[bytes]:
        """The bytes. Raises Corrupt at the end where they are not those that are meant, and what `read` raises."""
        running = StreamHash(algorithm_of(self.digest)) if self.digest else None
        size = 0
        async with self.read() as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if running is not None:
                    await running.update(chunk)
                if size <= self.size:
                    yield chunk
        if size != self.size or (running is not None and await running.digest() != self.digest):
            raise Corrupt(f"the bytes in the store are not those of {self.digest or self.path}: see `verify`")


class Tarball:
    """Members, in their order, with the folders that they lie in before the first of each."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.size = sum(len(header) + (_padded(member.size) if member else 0) for header, member in self._entries())
        self.size += len(_END)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The whole file, `size` bytes of it. Raises as `Member.checked`; what came until then is no whole archive."""
        for header, member in self._entries():
            yield header
            if member is None:
                continue
            async for chunk in member.checked():
                yield chunk
            yield bytes(_padded(member.size) - member.size)
        yield _END

    def _entries(self) -> Iterator[tuple[bytes, Member | None]]:
        """Headers, with the member that each of them begins, or None for folders."""
        folders: set[str] = set()
        for member in self._members:
            parts = member.path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    yield _header(folder, 0, tarfile.DIRTYPE, _FOLDER), None
            yield _header(member.path, member.size, tarfile.REGTYPE, _FILE), member


def _header(path: str, size: int, kind: bytes, mode: int) -> bytes:
    """Owner root, time 0; more than one block for a file of 8 GiB or more."""
    info = tarfile.TarInfo(path)
    info.size, info.type, info.mode = size, kind, mode
    return info.tobuf(format=tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
