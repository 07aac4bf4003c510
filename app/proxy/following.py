"""A reader of a blob on its way: at its offset it goes on, whatever becomes of the transfer that it followed.

Here a transfer that fails takes its readers with it. Another replica may vanish with its transfer, and then the rest comes
from another one; what the vanished one brought was never verified, so it is compared with what the next one brings.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from app.oci.digests import DEFAULT_ALGORITHM
from app.proxy.errors import Unreachable
from app.proxy.fetch import Ended
from app.proxy.peers import PeerGone
from app.registry.blobs import Blob
from app.registry.hashing import StreamHash
from app.registry.registry import Repository


class Transfer(Protocol):
    """What a reader follows. `mark` names a transfer of another replica; None for what is verified here."""

    @property
    def mark(self) -> str | None: ...

    async def opened(self) -> int | None:
        """The size in bytes, where it is known, once bytes are on their way. Raises UpstreamError, PeerGone."""
        ...

    def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes as they come, and empty chunks while none do. Raises UpstreamError, PeerGone, Ended."""
        ...


class Stored:
    """A blob that has arrived."""

    mark = None

    def __init__(self, repository: Repository, blob: Blob) -> None:
        self._repository = repository
        self._blob = blob

    async def opened(self) -> int | None:
        return self._blob.size

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        async with self._repository.blobs.open(self._blob, start, end) as reader:
            async for chunk in reader:
                yield chunk


class Following:
    """A reader of bytes `start` to `end` of a blob of `size` bytes; read it once, and `aclose` it."""

    def __init__(
        self, reach: Callable[[], Awaitable[tuple[Transfer, int]]], first: Transfer, size: int, start: int, end: int
    ) -> None:
        """`reach` finds the next transfer where the first one is gone."""
        self.size = size
        self._reach = reach
        self._start, self._end = start, end
        self._at = start
        self._given = StreamHash(DEFAULT_ALGORITHM)
        self._bytes = self._read(first)

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._bytes

    async def aclose(self) -> None:
        """Lets go of what is followed."""
        await self._bytes.aclose()

    async def _read(self, transfer: Transfer) -> AsyncGenerator[bytes, None]:
        source: str | None = None
        while self._at < self._end:
            again = self._at > self._start and (not transfer.mark or transfer.mark != source)
            try:
                async with aclosing(self._compared(transfer) if again else self._went_on(transfer)) as chunks:
                    async for chunk in chunks:
                        if chunk:
                            source = transfer.mark
                        yield chunk
            except (PeerGone, Ended):
                yield b""
            if self._at < self._end:
                transfer, _ = await self._reach()

    async def _went_on(self, transfer: Transfer) -> AsyncGenerator[bytes, None]:
        """The rest of a transfer whose beginning was given already."""
        async with aclosing(transfer.chunks(self._at, self._end)) as chunks:
            async for chunk in chunks:
                yield await self._noted(transfer, chunk)

    async def _compared(self, transfer: Transfer) -> AsyncGenerator[bytes, None]:
        """The rest of another transfer, once its beginning turned out to be what was given. Raises Unreachable."""
        seen, given = StreamHash(DEFAULT_ALGORITHM), self._at - self._start
        async with aclosing(transfer.chunks(self._start, self._end)) as chunks:
            async for chunk in chunks:
                known = chunk[: given - seen.size]
                await seen.update(known)
                if seen.size < given:
                    yield b""
                    continue
                if known and await seen.digest() != await self._given.digest():
                    raise Unreachable("another replica had brought other bytes before")
                yield await self._noted(transfer, chunk[len(known) :])

    async def _noted(self, transfer: Transfer, chunk: bytes) -> bytes:
        if transfer.mark is not None:
            await self._given.update(chunk)
        self._at += len(chunk)
        return chunk
