"""The room as a whole: built from settings, running in the background, and taken apart again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from app.oci.digests import Digest
from app.oci.errors import RegistryError
from app.oci.names import Name
from app.proxy.cache import Cache
from app.proxy.errors import UpstreamError
from app.proxy.eviction import Evictor, Signs
from app.proxy.manifests import writer
from app.proxy.namespace import Namespaces
from app.proxy.peers import Peers
from app.proxy.pins import Pins
from app.proxy.prefetch import Prefetch
from app.proxy.pressure import Pressure
from app.proxy.pulls import Pulls
from app.proxy.repository import ProxiedRepository
from app.proxy.routing import Routing
from app.proxy.settings import ProxySettings
from app.proxy.spool import Origin, Spool
from app.proxy.transfers import Lent, Note, Transfers
from app.proxy.upstreams import Report, Upstream, link_fallbacks
from app.registry.bucket import Bucket
from app.registry.leases import Leases
from app.telemetry.upstreams import UpstreamMetrics


class Proxy:
    """`routing` finds repositories; `pins` keeps images here; `shared` lets other replicas follow our transfers."""

    def __init__(self, upstreams: Sequence[Upstream], cache: Cache, routing: Routing, peers: Peers, pins: Pins) -> None:
        self.upstreams = upstreams
        self.routing = routing
        self.cache = cache
        self.pins = pins
        self._peers = peers

    async def shared(self, token: str, digest: Digest) -> Lent | None:
        """The transfer of this blob that runs here, for another replica; None for strangers and for what does not run."""
        if not await self._peers.admits(token, digest):
            return None
        return self.cache.transfers.lent(digest)


@asynccontextmanager
async def open_proxy(
    settings: ProxySettings,
    bucket: Bucket,
    leases: Leases,
    *,
    peer_url: str,
    own_names: Sequence[str],
    metrics: UpstreamMetrics,
    note: Note,
    report: Report,
    alone: bool = False,
) -> AsyncIterator[Proxy]:
    """The running proxy. It dials nobody to start, so it starts without an uplink. Raises StartError.

    `alone`: it fetches what it is asked for and nothing else, and leaves upkeep and leftovers to servers.
    """
    upstreams = [
        Upstream(upstream, negative_ttl=settings.negative_ttl, metrics=metrics, report=report)
        for upstream in settings.upstreams
    ]
    link_fallbacks(upstreams)
    spool = Spool(settings.spool.folder, settings.spool.max_bytes)
    peers = Peers(peer_url, bucket.signing)
    transfers = Transfers(bucket, spool, leases, peers, metrics, note)
    cache = Cache(bucket, transfers, Prefetch(bucket, transfers), Pulls(bucket))
    cache.prefetch.pull = None if alone else _puller(cache)
    pins = Pins(cache, upstreams, leases, settings.default_upstream)
    async with AsyncExitStack() as stack:
        stack.callback(spool.close)
        leftovers = [] if alone else await spool.start({upstream.name for upstream in upstreams})
        stack.push_async_callback(peers.close)
        await peers.start()
        for upstream in upstreams:
            stack.push_async_callback(upstream.client.close)
            await upstream.client.start()
        stack.push_async_callback(transfers.close)
        stack.push_async_callback(cache.flights.close)
        proxy = Proxy(upstreams, cache, Routing(cache, upstreams, own_names), peers, pins)
        works = [upstream.breaker.watch(upstream.client.ping) for upstream in upstreams]
        if not alone:
            limited = [upstream for upstream in upstreams if upstream.settings.max_bytes is not None]
            evictors = {upstream.name: _evictor(proxy, bucket, upstream) for upstream in limited}
            pressure = Pressure(evictors, settings.eviction_interval, leases, note)
            transfers.arrived = pressure.arrived
            works += [
                cache.prefetch.run(),
                _resume(transfers, upstreams, leftovers),
                pressure.run(),
                pins.keep_fresh(settings.pin_interval, _pin_told(note)),
            ]
        stack.push_async_callback(_ended, [asyncio.create_task(work) for work in works])
        yield proxy


def _puller(cache: Cache) -> Callable[[Upstream, Name, Digest], Coroutine[Any, Any, None]]:
    async def pull(upstream: Upstream, name: Name, digest: Digest) -> None:
        await ProxiedRepository(cache, name, upstream).manifests.get(digest)

    return pull


async def _resume(transfers: Transfers, upstreams: Sequence[Upstream], leftovers: Sequence[Origin]) -> None:
    """Goes on with what an earlier process left half-way, one after the other, behind what clients ask for."""
    known = Namespaces(upstreams)
    for origin in leftovers:
        upstream = known.named(origin.upstream)
        if upstream is not None:
            with suppress(UpstreamError, RegistryError):
                await transfers.bring(upstream, origin)


def _evictor(proxy: Proxy, bucket: Bucket, upstream: Upstream) -> Evictor:
    """Of an upstream that has a limit."""
    cache = proxy.cache
    return Evictor(
        bucket,
        upstream.name,
        upstream.prefix,
        upstream.settings.max_bytes or 0,
        pinned=proxy.pins.digests,
        busy=cache.transfers.digests,
        reachable=lambda: upstream.breaker.state == "closed",
        evicted=lambda size: upstream.metrics.evicted(upstream.name, size),
        signs=Signs(pulls=cache.pulls, writer=writer(upstream)),
    )


def _pin_told(note: Note) -> Callable[[str, str | None], None]:
    def told(reference: str, trouble: str | None) -> None:
        if trouble is not None:
            note("pin not fresh", {"image": reference, "error": trouble})

    return told


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
