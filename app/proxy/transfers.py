"""Every blob on its way: one transfer a digest, for all clients of all replicas.

Who wants a blob joins the transfer that runs here, follows the one that runs at another replica (its lease says where),
or begins one. A reader goes on at its offset whatever becomes of the transfer it followed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, RegistryError
from app.proxy.errors import Unreachable, UpstreamError
from app.proxy.fetch import Fetch
from app.proxy.flights import Flights
from app.proxy.leases import Leases, Other
from app.proxy.peers import PeerGone, Peers
from app.proxy.spool import Origin, Spool
from app.proxy.upstreams import Upstream
from app.registry import keys
from app.registry.blobs import Blob
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.registry import Repository
from app.telemetry.upstreams import UpstreamMetrics

_PAUSE: Final = 0.3
_UNREACHED: Final = 30.0
"""Seconds for which a reader waits for a transfer of a replica that it cannot reach and that renews its lease."""

Note = Callable[[str, Mapping[str, Any]], None]
"""Writes one log line: the event and its fields."""


class Transfer(Protocol):
    """What a reader follows."""

    async def opened(self) -> int | None:
        """The size in bytes, where it is known, once bytes are on their way. Raises UpstreamError, PeerGone."""
        ...

    def chunks(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes as they come, and empty chunks while none do. Raises UpstreamError, PeerGone."""
        ...


class Stored:
    """A blob that has arrived."""

    def __init__(self, repository: Repository, blob: Blob) -> None:
        self._repository = repository
        self._blob = blob

    async def opened(self) -> int | None:
        return self._blob.size

    async def chunks(self, start: int, end: int) -> AsyncIterator[bytes]:
        async with self._repository.blobs.open(self._blob, start, end) as reader:
            async for chunk in reader:
                yield chunk


class Following:
    """A reader of one range of a blob that is on its way; `size` of the whole blob in bytes."""

    def __init__(self, transfers: "Transfers", upstream: Upstream, origin: Origin, first: Transfer, size: int) -> None:
        self.size = size
        self.span = (0, size)
        self._transfers = transfers
        self._upstream = upstream
        self._origin = origin
        self._first = first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, end = self.span
        transfer = self._first
        while at < end:
            try:
                async for chunk in transfer.chunks(at, end):
                    at += len(chunk)
                    yield chunk
            except PeerGone:
                yield b""
            if at < end:
                transfer, _ = await self._transfers.reach(self._upstream, self._origin)


class Transfers:
    """The transfers of this process."""

    def __init__(
        self, bucket: Bucket, spool: Spool, leases: Leases, peers: Peers, metrics: UpstreamMetrics, note: Note
    ) -> None:
        self._bucket = bucket
        self._spool = spool
        self._leases = leases
        self._peers = peers
        self._metrics = metrics
        self._note = note
        self._running: dict[Digest, tuple[Fetch, asyncio.Task[None]]] = {}
        self._begun: Flights[Digest, Transfer] = Flights()

    def running(self, digest: Digest) -> Fetch | None:
        """The transfer of this blob that this process owns."""
        found = self._running.get(digest)
        return found[0] if found else None

    def digests(self) -> list[Digest]:
        """What is on its way here."""
        return list(self._running)

    async def close(self) -> None:
        """Ends all transfers; what they brought stays in the spool."""
        await self._begun.close()
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(self, upstream: Upstream, origin: Origin, start: int, end: int | None) -> Following:
        """A reader of the blob, once bytes are on their way. Raises UpstreamError, RegistryError."""
        transfer, size = await self.reach(upstream, origin)
        following = Following(self, upstream, origin, transfer, size)
        following.span = (start, size if end is None else min(end, size))
        return following

    async def bring(self, upstream: Upstream, origin: Origin, *, urgent: bool = False) -> None:
        """Returns once the blob is here. Raises UpstreamError, RegistryError."""
        while True:
            transfer = await self.join(upstream, origin, urgent=urgent)
            if isinstance(transfer, Stored):
                return
            found = self._running.get(origin.digest)
            if found is not None and found[0] is transfer:
                await asyncio.wait({found[1]})
                if found[0].failure is not None:
                    raise found[0].failure
            else:
                await asyncio.sleep(_PAUSE)

    async def reach(self, upstream: Upstream, origin: Origin) -> tuple[Transfer, int]:
        """A transfer that brings bytes, and the blob's size. Waits where a replica that cannot be reached has it."""
        deadline = time.monotonic() + _UNREACHED
        while True:
            transfer = await self.join(upstream, origin, urgent=True)
            try:
                size = await transfer.opened()
            except PeerGone:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"another replica fetches this from {upstream.name} and cannot be reached"
                    ) from None
            else:
                if size is not None:
                    return transfer, size
            await asyncio.sleep(_PAUSE)  # a blob of unknown size is read once it is here

    async def join(self, upstream: Upstream, origin: Origin, *, urgent: bool) -> Transfer:
        """The transfer of this blob, begun if there is none. Raises RegistryError when the store fails."""
        fetch = self.running(origin.digest)
        if fetch is None:
            transfer = await self._begun.join(origin.digest, lambda: self._begin(upstream, origin, urgent))
            fetch = self.running(origin.digest)
            if fetch is not transfer:
                return transfer
        else:
            self._metrics.joined(upstream.name, "local")
        if fetch is None:
            raise Unreachable("the transfer has ended")
        if urgent:
            fetch.turn.hurry()
        return fetch

    async def _begin(self, upstream: Upstream, origin: Origin, urgent: bool) -> Transfer:
        return await self._taken(upstream, origin, urgent)

    @translated
    async def _taken(self, upstream: Upstream, origin: Origin, urgent: bool) -> Transfer:
        lease = await self._leases.take(keys.fetch_lease(origin.digest), {"url": self._peers.url})
        if isinstance(lease, Other):
            self._metrics.joined(upstream.name, "peer")
            return await self._stored(origin) or self._peers.follow(origin.digest, lease.about.get("url", ""))
        stored = await self._stored(origin)  # it may have arrived since the caller looked
        if stored is not None:
            async with lease:
                return stored
        fetch = Fetch(upstream, origin, self._spool, urgent=urgent)
        task = asyncio.create_task(self._run(upstream, fetch, lease))
        self._running[origin.digest] = (fetch, task)
        return fetch

    async def _run(self, upstream: Upstream, fetch: Fetch, lease: Any) -> None:
        began = time.monotonic()
        self._metrics.running.inc()
        trouble = None
        try:
            async with lease:
                await fetch.run(self._keep)
        except UpstreamError as exc:
            trouble = exc.reason
        except RegistryError as exc:
            trouble = exc.message
        finally:
            self._metrics.running.dec()
            self._metrics.spool(self._spool.used)
            self._running.pop(fetch.origin.digest, None)
            self._record(upstream, fetch, time.monotonic() - began, trouble)

    def _record(self, upstream: Upstream, fetch: Fetch, seconds: float, trouble: str | None) -> None:
        self._metrics.transfer(upstream.name, fetch.outcome, seconds, fetch.pulled)
        origin = fetch.origin
        fields = {"upstream": upstream.name, "repository": origin.name, "digest": origin.digest, "size": fetch.size}
        took = {"pulled": fetch.pulled, "seconds": round(seconds, 3), "outcome": fetch.outcome, "error": trouble}
        self._note("transfer", fields | took)

    async def _keep(self, origin: Origin, body: AsyncIterator[bytes]) -> None:
        await Repository(self._bucket, origin.name).uploads.put(origin.digest, body)

    async def _stored(self, origin: Origin) -> Stored | None:
        repository = Repository(self._bucket, origin.name)
        try:
            return Stored(repository, await repository.blobs.stat(origin.digest))
        except BlobUnknown:
            return None
