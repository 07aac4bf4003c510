"""One transfer of one blob: owned by the server, followed by any number of readers at any offset.

The bytes grow in the spool. A break, a stall or a restart is continued with Range; the last bytes are held back until
the digest of all is known to be right, so that a reader of a bad blob always sees a broken connection.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from app.oci.errors import DigestInvalid, RegistryError
from app.proxy.errors import Failing, Missing, Portal, RateLimited, Unreachable, UpstreamError
from app.proxy.lane import Turn
from app.proxy.spool import Origin, Part, Spool, SpoolError
from app.proxy.upstreams import Upstream

HELD: Final = 64 << 10
"""The last bytes, which no reader gets before the blob is verified."""
_FIRST_PAUSE: Final = 0.2
_TRIES: Final = 3
"""Attempts without a byte before a transfer that has brought nothing yet is given up."""
_PATIENCE: Final = 45.0
"""Seconds without a byte after which a transfer that was under way is given up; its bytes stay for the next one."""
_TICK: Final = 1.0
_KEEP_AGAIN: Final = (1.0, 4.0, 15.0)
"""Seconds between attempts to store a verified blob; then it waits in the spool for the next who wants it."""

Keep = Callable[[Origin, AsyncIterator[bytes]], Awaitable[None]]
"""Stores a verified blob and links it; raises RegistryError."""


class Ended(Exception):
    """A reader came when the transfer was over already; what it brought is in the store, or will be fetched again."""


class Fetch:
    """`run` once; `opened` and `chunks` from anywhere. `pulled` counts bytes from upstream, `outcome` says how it ended.

    `id` names this transfer among all of all replicas. `trouble` is why a verified blob could not be stored.
    """

    mark = None

    def __init__(self, upstream: Upstream, origin: Origin, spool: Spool, *, urgent: bool) -> None:
        self.origin = origin
        self.size = origin.size
        self.id = uuid.uuid4().hex
        self.turn = Turn(urgent)
        self.verified = False
        self.failure: UpstreamError | None = None
        self.trouble: RegistryError | None = None
        self.pulled = 0
        self.outcome = "cancelled"
        self._upstream = upstream
        self._spool = spool
        self._part: Part | None = None
        self._tick = asyncio.Event()
        self._started = False
        self._ranged = True

    @property
    def come(self) -> int:
        """Bytes that are here."""
        return self._part.written if self._part is not None else 0

    async def run(self, keep: Keep) -> None:
        """Brings the blob here and hands it to `keep`. Raises UpstreamError, which readers get too, and RegistryError."""
        try:
            self._part = await self._spool.open(self.origin)
            await self._transfer(self._part)
            await self._verify(self._part)
            self._tell()
            await self._keep(self._part, keep)
            self.outcome = "stored"
        except SpoolError as exc:
            failure = Failing(str(exc))
            self._fail(failure)
            raise failure from exc
        except UpstreamError as exc:
            self._fail(exc)
            raise
        except RegistryError as exc:
            self.trouble, self.outcome = exc, "not_stored"
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

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Bytes from `start` up to `end` as they come; an empty chunk each second without any.

        Raises UpstreamError, and Ended before the first byte.
        """
        await self.opened()
        part = self._part
        if part is None or not part.use():
            raise Ended
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
        except SpoolError as exc:
            raise Failing(str(exc)) from exc
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
                if late or (not self._started and (tries >= _TRIES or exc.retry_after is not None)):
                    raise
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
            except Portal:
                if part.written > before or not part.written or not self._ranged:
                    raise
                self._ranged = False  # some answer nonsense to ranges only

    async def _attempt(self, part: Part) -> bool:
        """Asks the upstream, then those to fall back to. True when all bytes are here. Missing where all say so."""
        sources: Sequence[Upstream] = self._upstream.sources
        failure: UpstreamError | None = None
        for source in sources:
            try:
                source.breaker.admit()  # before waiting for a place that stalled transfers may hold
                async with source.lane.slot(self.turn):
                    return await self._take(part, source)
            except UpstreamError as exc:
                failure = exc if failure is None or isinstance(failure, Missing) else failure
                if isinstance(exc, RateLimited) and part.written:
                    break
        assert failure is not None  # noqa: S101  (there is at least one source)
        raise failure

    async def _take(self, part: Part, source: Upstream) -> bool:
        name = self._upstream.remote(self.origin.name)
        start = part.written if self._ranged else 0
        async with source.client.stream(name, f"blobs/{self.origin.digest}", start=start) as stream:
            self._agree(stream.size, source)
            self._begin()
            skip = part.written - stream.start  # an upstream that ignores Range begins anew
            async for chunk in stream.chunks():
                await source.lane.pass_(len(chunk), self.turn)
                self.pulled += len(chunk)
                source.pulled(len(chunk))
                fresh = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                if self.size is not None and part.written + len(fresh) > self.size:
                    raise Portal(f"{source.name} sent more bytes than it announced")
                if fresh:
                    await part.append(fresh)
                    self._tell()
        if self.size is not None and part.written < self.size:
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
            raise Portal(f"what {self._upstream.name} sent does not hash to the digest")
        self.size, self.verified = part.written, True

    async def _keep(self, part: Part, keep: Keep) -> None:
        """Stores the blob, and tries again where the store fails: its readers have it already."""
        for pause in (*_KEEP_AGAIN, None):
            try:
                await keep(self.origin, self._all(part))
            except DigestInvalid:  # the disk garbled it since
                await part.drop()
                raise
            except RegistryError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                await part.drop()
                return

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
