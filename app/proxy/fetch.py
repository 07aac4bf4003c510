"""One transfer of one blob: owned by the server, followed by any number of readers at any offset.

The bytes grow in the spool. A break, a stall or a restart is continued with Range; the last bytes are held back until
the digest of all is known to be right, so that a reader of a bad blob always sees a broken connection.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from app.proxy.errors import Failing, Portal, RateLimited, Unreachable, UpstreamError
from app.proxy.lane import Lane, Turn
from app.proxy.spool import Origin, Part, Spool, SpoolFull
from app.proxy.upstreams import Upstream

HELD: Final = 64 << 10
"""The last bytes, which no reader gets before the blob is verified."""
_FIRST_PAUSE: Final = 0.2
_TRIES: Final = 3
"""Attempts without a byte before a transfer that has brought nothing yet is given up."""
_PATIENCE: Final = 45.0
"""Seconds without a byte after which a transfer that was under way is given up; its bytes stay for the next one."""
_TICK: Final = 1.0

Keep = Callable[[Origin, AsyncIterator[bytes]], Awaitable[None]]
"""Stores a verified blob and links it; raises RegistryError."""


class Fetch:
    """`run` once; `opened` and `chunks` from anywhere. `pulled` counts bytes from upstream, `outcome` says how it ended."""

    def __init__(self, upstream: Upstream, origin: Origin, spool: Spool, *, urgent: bool) -> None:
        self.origin = origin
        self.size = origin.size
        self.turn = Turn(urgent)
        self.verified = False
        self.failure: UpstreamError | None = None
        self.pulled = 0
        self.outcome = "cancelled"
        self._upstream = upstream
        self._spool = spool
        self._part: Part | None = None
        self._tick = asyncio.Event()
        self._started = False

    async def run(self, keep: Keep) -> None:
        """Brings the blob here and hands it to `keep`. Raises UpstreamError, which readers get too."""
        try:
            self._part = await self._spool.open(self.origin)
            await self._transfer(self._part)
            await self._verify(self._part)
            self._tell()
            await keep(self.origin, self._all(self._part))
            await self._part.drop()
            self.outcome = "stored"
        except SpoolFull as exc:
            self._fail(Failing(str(exc)))
            raise Failing(str(exc)) from exc
        except UpstreamError as exc:
            self._fail(exc)
            raise
        finally:
            if not self.verified and self.failure is None:
                self.failure = Unreachable("the transfer was given up")
            self._tell()
            if self._part is not None:
                self._part.leave()

    async def opened(self) -> int | None:
        """Returns the size in bytes, if it is known, as soon as the upstream has begun to answer. Raises UpstreamError."""
        while not (self._started or self.verified):
            if self.failure is not None:
                raise self.failure
            tick = self._tick
            await tick.wait()
        return self.size

    async def chunks(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes from `start` up to `end` as they come; an empty chunk each second without any. Raises UpstreamError."""
        await self.opened()
        part = self._part
        assert part is not None  # noqa: S101  (opened says so)
        if not part.use():
            raise Unreachable("the transfer has ended")
        try:
            while start < end:
                tick, limit = self._tick, min(end, self._released(part))
                if start < limit:
                    chunk = await part.read(start, limit)
                    start += len(chunk)
                    yield chunk
                elif self.failure is not None:
                    raise self.failure
                else:
                    try:
                        async with asyncio.timeout(_TICK):
                            await tick.wait()
                    except TimeoutError:
                        yield b""
        finally:
            part.leave()

    def _released(self, part: Part) -> int:
        if self.verified:
            return part.written
        held = part.written if self.size is None else self.size
        return max(0, min(part.written, held - HELD))

    async def _transfer(self, part: Part) -> None:
        """Appends until the blob is whole, however often the upstream breaks off."""
        tries, pause, progress = 0, _FIRST_PAUSE, time.monotonic()
        whole = part.written > 0 and part.written == self.size
        if part.written:
            self._begin()
        while not whole:
            before = part.written
            try:
                whole = await self._attempt(part)
            except (Unreachable, Failing) as exc:
                if part.written > before:
                    tries, pause, progress = 0, _FIRST_PAUSE, time.monotonic()
                    continue
                tries += 1
                late = time.monotonic() - progress > _PATIENCE
                if late or (tries >= _TRIES and not part.written) or (exc.retry_after is not None and not part.written):
                    raise
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def _attempt(self, part: Part) -> bool:
        """Asks the upstream, then those to fall back to. True when all bytes are here."""
        sources: Sequence[Upstream] = self._upstream.sources
        for number, source in enumerate(sources, 1):
            try:
                source.breaker.admit()  # before waiting for a place that stalled transfers may hold
                async with source.lane.slot(self.turn):
                    return await self._take(part, source, source.lane)
            except UpstreamError as exc:
                if number == len(sources) or (isinstance(exc, RateLimited) and part.written):
                    raise
        return False

    async def _take(self, part: Part, source: Upstream, lane: Lane) -> bool:
        name = source.repository(self.origin.name, self._upstream)
        async with source.client.stream(name, f"blobs/{self.origin.digest}", start=part.written) as stream:
            self._agree(stream.size, source)
            self._begin()
            skip = part.written - stream.start  # an upstream that ignores Range begins anew
            async for chunk in stream.chunks():
                await lane.pass_(len(chunk), self.turn)
                self.pulled += len(chunk)
                source.pulled(len(chunk))
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                await part.append(chunk[skip:] if skip else chunk)
                skip = 0
                if self.size is not None and part.written > self.size:
                    raise Portal(f"{source.name} sent more bytes than it announced")
                self._tell()
        if self.size is None:
            return True
        if part.written < self.size:
            raise Unreachable(f"{source.name} ended the transfer early")
        return True

    def _agree(self, size: int | None, source: Upstream) -> None:
        """The size that was promised, by the manifest or by an earlier answer, must be the one that comes."""
        if self.size is None:
            self.size = size
        elif size is not None and size != self.size:
            raise Portal(f"{source.name} answers with {size} bytes for a blob of {self.size}")

    async def _verify(self, part: Part) -> None:
        if part.digest() != self.origin.digest:
            await part.drop()
            failure = Portal(f"what {self._upstream.name} sent does not hash to the digest")
            self._upstream.breaker.failed(failure)
            raise failure
        self.size, self.verified = part.written, True

    async def _all(self, part: Part) -> AsyncIterator[bytes]:
        at = 0
        while at < part.written:
            chunk = await part.read(at, part.written)
            at += len(chunk)
            yield chunk

    def _begin(self) -> None:
        self._started = True
        self._tell()

    def _fail(self, failure: UpstreamError) -> None:
        self.failure, self.outcome = failure, failure.kind

    def _tell(self) -> None:
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()
