"""Hashing of streams off the event loop, and hash states remembered between the chunks of an upload."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable
from typing import Final

from app.oci.digests import Digest, new_hash

_BATCH: Final = 1 << 20
"""Bytes that are hashed in one go: in a thread, while the next ones arrive."""
_INLINE: Final = 64 << 10
"""Bytes that cost less to hash here (40 µs) than to hand to a thread."""
_REMEMBERED: Final = 1000


class StreamHash:
    """The digest of a stream. `update` returns at once; at most one batch is being hashed while the next one fills."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._hash = new_hash(algorithm)
        self._batch: list[bytes] = []
        self._batched = 0
        self._running: asyncio.Future[None] | None = None

    async def update(self, chunk: bytes) -> None:
        """Takes the next bytes, in order."""
        self._batch.append(chunk)
        self._batched += len(chunk)
        self.size += len(chunk)
        if self._batched >= _BATCH:
            await self._flush()

    async def digest(self) -> Digest:
        """The digest of all bytes so far; more may follow."""
        if self._batched > _INLINE:
            await self._flush()
        await self._settle()
        self._feed(self._take())
        return Digest(f"{self.algorithm}:{self._hash.hexdigest()}")

    async def _flush(self) -> None:
        await self._settle()
        self._running = asyncio.get_running_loop().run_in_executor(None, self._feed, self._take())

    async def _settle(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running

    def _take(self) -> list[bytes]:
        batch, self._batch, self._batched = self._batch, [], 0
        return batch

    def _feed(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._hash.update(chunk)


class Hashes:
    """Hashes of suspended uploads, by upload and offset. CPython cannot save a hash's state, so this stays in memory:

    a chunk that arrives at the same replica continues its hash; elsewhere the finished bytes are read back once.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], StreamHash] = OrderedDict()

    def keep(self, upload: str, running: StreamHash) -> None:
        """Remembers the hash of the first `running.size` bytes of an upload."""
        self._known[(upload, running.size)] = running
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def take(self, upload: str, offset: int) -> StreamHash | None:
        """The hash of the first `offset` bytes, once."""
        return self._known.pop((upload, offset), None)


async def digest_of_stream(chunks: AsyncIterable[bytes], algorithm: str) -> Digest:
    """The digest of everything a stream yields."""
    running = StreamHash(algorithm)
    async for chunk in chunks:
        await running.update(chunk)
    return await running.digest()
