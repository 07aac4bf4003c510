"""Bytes of an archive as they come: from a file or from anywhere, decompressed, counted, and bounded."""

import asyncio
import bz2
import lzma
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from app.quantities import size_text
from app.transfer.errors import ArchiveRefused, CutShort

Chunks = AsyncIterator[bytes]
Reopen = Callable[[int], Chunks]
"""The same bytes again, from an offset on."""

PIECE: Final = 1 << 20
"""Bytes that are read, or decompressed, in one go."""
_MAGIC: Final = 6
_WINDOW_LOG: Final = 26
"""The largest window of zstd: 64 MiB. All of its levels below --ultra -22 have smaller ones; --long has its own."""
_XZ_MEMORY: Final = (1 << _WINDOW_LOG) + (4 << 20)
"""Bytes of memory that unpacking xz may take: that much for its window, too, which is what its highest level has."""
_TOO_WIDE: Final = f"unpacking the archive would take too much memory: its window is above {1 << _WINDOW_LOG - 20} MiB"
_SUSPICIOUS: Final = 1 << 30
"""Unpacked bytes from which a bomb is looked for."""
_RATIO: Final = 200
"""How many times its size an archive may have unpacked: whole systems reach 5, bombs 1,000."""


class _Codec(Protocol):
    """As Python's decompressors are: gives at most `max_length` bytes at a time."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decompressor, in the shape of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length and not self._inner.unconsumed_tail
        return out


class _Zstd:
    """zstd's decompressor, imported where it is needed; its error becomes ours."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        self._error = zstd.ZstdError

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            return self._inner.decompress(data, max_length)
        except self._error as exc:
            raise ValueError(str(exc)) from exc


_CODECS: Final[tuple[tuple[bytes, Callable[[], _Codec]], ...]] = (
    (b"\x1f\x8b", _Gzip),
    (b"\x28\xb5\x2f\xfd", _Zstd),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
)


def compressed(head: bytes) -> bool:
    """Whether bytes that begin so are compressed; the first six are enough."""
    return _codec(head) is not None


def _codec(head: bytes) -> Callable[[], _Codec] | None:
    return next((make for magic, make in _CODECS if head.startswith(magic)), None)


async def decompressed(chunks: Chunks) -> Chunks:
    """The bytes, without the gzip, zstd, bzip2 or xz around them, if there is one.

    Raises ArchiveRefused for a damaged one and for a bomb, CutShort.
    """
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _MAGIC:
            break
    make = _codec(head)
    if make is None:
        yield head
        async for chunk in chunks:
            yield chunk
        return
    async for chunk in _unpacked(_chained(head, chunks), make):
        yield chunk


async def _unpacked(chunks: Chunks, make: Callable[[], _Codec]) -> Chunks:
    """Every compressed stream of the input; they may follow each other, and zeros may follow the last."""
    codec: _Codec | None = None
    taken = given = 0
    async for data in chunks:
        taken += len(data)
        while True:
            if codec is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                codec = make()
            out = await _fed(codec, data)
            given += len(out)
            if given > _SUSPICIOUS and given > _RATIO * taken:
                raise ArchiveRefused(f"the archive is a bomb: {size_text(taken)} become more than {size_text(given)}")
            if out:
                yield out
            data = b""
            if codec.eof:
                data, codec = codec.unused_data, None
            elif codec.needs_input:
                break
    if codec is not None:
        raise CutShort("the compressed archive is cut short")


async def _fed(codec: _Codec, data: bytes) -> bytes:
    try:
        return await asyncio.to_thread(codec.decompress, data, PIECE)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as exc:
        if "memory" in str(exc).lower():  # neither library has a type of its own for it
            raise ArchiveRefused(_TOO_WIDE) from exc
        raise ArchiveRefused("the compressed archive is damaged") from exc
    except MemoryError as exc:
        raise ArchiveRefused(_TOO_WIDE) from exc


async def _chained(head: bytes, rest: Chunks) -> Chunks:
    if head:
        yield head
    async for chunk in rest:
        yield chunk


class Stream:
    """Bytes in order; `offset` counts those that were taken. Where `reopen` is given, what is skipped is not read."""

    def __init__(self, chunks: Chunks, limit: int, *, reopen: Reopen | None = None, size: int = 0) -> None:
        """`limit`: the most bytes there may be; `size`: all there are, known where `reopen` is given."""
        self.offset = 0
        self._chunks = chunks
        self._limit = limit
        self._reopen = reopen
        self._size = size
        self._held = b""
        self._at = 0

    async def piece(self, most: int) -> bytes:
        """The next bytes, at least one and at most `most`; none at the end. Raises ArchiveRefused above the limit."""
        while self._at >= len(self._held):
            found = await anext(self._chunks, None)
            if found is None:
                return b""
            self._held, self._at = found, 0
        out = self._held
        if self._at or len(out) > most:
            out = out[self._at : self._at + most]
        self._at += len(out)
        self._advance(len(out))
        return out

    async def exactly(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size and (part := await self.piece(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def skip(self, size: int) -> None:
        """Passes over `size` bytes. Raises CutShort where there are fewer."""
        held = len(self._held) - self._at
        if self._reopen is None or size <= held:
            while size:
                part = await self.piece(min(size, PIECE))
                if not part:
                    raise CutShort("the archive is cut short")
                size -= len(part)
            return
        self._advance(size)
        if self.offset > self._size:
            raise CutShort("the archive is cut short")
        self._chunks, self._held, self._at = self._reopen(self.offset), b"", 0

    def _advance(self, size: int) -> None:
        self.offset += size
        if self.offset > self._limit:
            raise ArchiveRefused(f"the archive has more than {size_text(self._limit)}, the most that is taken")
