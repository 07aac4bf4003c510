"""Every blob on its way: one transfer a digest, for all clients of all replicas.

Who wants a blob joins the transfer that runs here, follows the one that runs at another replica (its lease says where),
or begins one. A reader goes on at its offset whatever becomes of the transfer it followed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, RegistryError, Unavailable
from app.proxy.errors import Unreachable, UpstreamError
from app.proxy.fetch import Ended, Fetch
from app.proxy.flights import Flights
from app.proxy.following import Following, Stored, Transfer
from app.proxy.peers import PeerGone, Peers, PeerTransfer
from app.proxy.spool import Origin, Spool
from app.proxy.upstreams import Upstream
from app.registry import keys
from app.registry.blobs import Blob
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.leases import Leases, Other
from app.registry.publishing import adopt, holding
from app.registry.registry import Repository
from app.telemetry.upstreams import UpstreamMetrics

_PAUSE: Final = 0.3
_UNREACHED: Final = 30.0
"""Seconds for which a reader waits for a transfer of a replica that it cannot reach and that renews its lease."""

Note = Callable[[str, Mapping[str, Any]], None]
"""Writes one log line: the event and its fields."""


class Lent:
    """A transfer of this process as another replica may follow it: what goes wrong is a RegistryError."""

    def __init__(self, fetch: Fetch) -> None:
        self.id = fetch.id
        self._fetch = fetch

    async def opened(self) -> int | None:
        """The blob's size in bytes, once bytes are on their way. Raises Unavailable."""
        try:
            return await self._fetch.opened()
        except UpstreamError as exc:
            raise Unavailable(exc.reason) from exc

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes as they come. Raises Unavailable."""
        try:
            async with aclosing(self._fetch.chunks(start, end)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (UpstreamError, Ended) as exc:
            raise Unavailable("the transfer has ended") from exc


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
        self.arrived: Callable[[str, int], None] = lambda _upstream, _size: None
        """Told the upstream and the bytes of each blob that was stored."""
        self._running: dict[Digest, tuple[Fetch, asyncio.Task[None]]] = {}
        self._begun: Flights[Digest, Transfer] = Flights()

    def running(self, digest: Digest) -> Fetch | None:
        """The transfer of this blob that this process owns."""
        found = self._running.get(digest)
        return found[0] if found else None

    def lent(self, digest: Digest) -> Lent | None:
        """The transfer of this blob that this process owns, for another replica."""
        fetch = self.running(digest)
        return None if fetch is None else Lent(fetch)

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
        """A reader of the blob, once bytes are on their way; close it. Raises UpstreamError, RegistryError."""
        transfer, size = await self._reach(upstream, origin)
        to = size if end is None else min(end, size)
        return Following(lambda: self._reach(upstream, origin), transfer, size, start, to)

    async def bring(self, upstream: Upstream, origin: Origin, *, urgent: bool = False) -> None:
        """Returns once the blob is here: at once where it is, or where another repository has it to share.

        Who calls it knows that the upstream's repository has the blob. Raises UpstreamError, RegistryError.
        """
        if self.running(origin.digest) is None and await self._stored(origin) is not None:
            return
        while True:
            transfer = await self._join(upstream, origin, urgent=urgent)
            if isinstance(transfer, Stored):
                return
            found = self._running.get(origin.digest)
            if found is None or found[0] is not transfer:
                await asyncio.sleep(_PAUSE)  # it runs elsewhere, or has just ended
                continue
            await asyncio.wait({found[1]})
            trouble = found[0].failure or found[0].trouble
            if trouble is not None:
                raise trouble

    async def _reach(self, upstream: Upstream, origin: Origin) -> tuple[Transfer, int]:
        """A transfer that brings bytes, and the blob's size. Waits where a replica that cannot be reached has it."""
        deadline = time.monotonic() + _UNREACHED
        while True:
            transfer = await self._join(upstream, origin, urgent=True)
            try:
                size = await transfer.opened()
            except PeerGone:
                if time.monotonic() > deadline:
                    reason = f"another replica fetches this from {upstream.name} and cannot be reached"
                    raise Unreachable(reason) from None
            else:
                if size is not None:
                    if isinstance(transfer, PeerTransfer):
                        self._metrics.joined(upstream.name, "peer")
                    return transfer, size
            await asyncio.sleep(_PAUSE)  # a blob of unknown size is read once it is here

    async def _join(self, upstream: Upstream, origin: Origin, *, urgent: bool) -> Transfer:
        """The transfer of this blob, begun if there is none. Raises RegistryError when the store fails."""
        fetch = self.running(origin.digest)
        if fetch is None:
            transfer = await self._begun.join(origin.digest, lambda: self._begin(upstream, origin, urgent))
        else:
            transfer = fetch
            self._metrics.joined(upstream.name, "local")
        if urgent and isinstance(transfer, Fetch):
            transfer.turn.hurry()
        return transfer

    @translated
    async def _begin(self, upstream: Upstream, origin: Origin, urgent: bool) -> Transfer:
        about = {"url": self._peers.url, "process": self._spool.process}
        left_by = self._spool.left_by(origin.digest)
        lease = await self._leases.take(
            keys.fetch_lease(origin.digest), about, ended=lambda other: other.get("process", "") == left_by
        )
        if isinstance(lease, Other):
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
            self.arrived(upstream.name, fetch.size or 0)
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

    @translated
    async def _stored(self, origin: Origin) -> Stored | None:
        """The blob, where it is here. Who asks for a transfer may have it, so another repository's copy will do."""
        repository = Repository(self._bucket, origin.name)
        try:
            return Stored(repository, await repository.blobs.stat(origin.digest))
        except BlobUnknown:
            copy = await adopt(self._bucket, origin.name, origin.digest, await holding(self._bucket, origin.digest))
            return None if copy is None else Stored(repository, Blob(origin.digest, copy))
