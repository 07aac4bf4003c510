"""The rest of an image, fetched in the background once its manifest was pulled: small blobs first, people before it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.errors import RegistryError
from app.oci.manifests import Manifest
from app.oci.names import Name
from app.oci.platforms import named_for
from app.proxy.errors import UpstreamError
from app.proxy.spool import Origin
from app.proxy.transfers import Transfers
from app.proxy.upstreams import Upstream
from app.registry.bucket import Bucket
from app.registry.off_loop import off_loop

_QUEUE: Final = 10_000
_WORKERS: Final = 3

Pull = Callable[[Upstream, Name, Digest], Awaitable[None]]
"""Pulls a manifest into a cached repository, as a client would."""


class Prefetch:
    """A queue of what will be asked for next. What cannot be fetched is forgotten: clients will ask for it themselves."""

    def __init__(self, bucket: Bucket, transfers: Transfers) -> None:
        self._bucket = bucket
        self._transfers = transfers
        self._queue: asyncio.Queue[tuple[Upstream, Name, Descriptor]] = asyncio.Queue(_QUEUE)
        self._queued: set[tuple[Name, Digest]] = set()
        self.pull: Pull | None = None
        """How children of an index are pulled; set by the wiring."""

    def pulled(self, upstream: Upstream, name: Name, manifest: Manifest, data: bytes) -> bool:
        """Queues the blobs of an image, or those children of an index that are for the configured platforms.

        False where that must wait for a better time: then it is worth trying again at the next pull.
        """
        settings = upstream.settings.prefetch
        if not settings.enabled:
            return True
        if not upstream.may_prefetch():
            return False
        for blob in sorted(manifest.blobs, key=lambda blob: blob.size):
            self._put(upstream, name, blob)
        if manifest.children and settings.platforms:
            self._bucket.spawn(self._children(upstream, name, data))
        return True

    async def run(self) -> None:
        """Works through the queue for ever; cancel it to end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            upstream, name, blob = await self._queue.get()
            try:
                if upstream.may_prefetch():
                    with suppress(UpstreamError, RegistryError):
                        await self._transfers.bring(upstream, Origin(blob.digest, blob.size, upstream.name, name))
            finally:
                self._queued.discard((name, blob.digest))
                self._queue.task_done()

    async def _children(self, upstream: Upstream, name: Name, index: bytes) -> None:
        """One after the other, because each may cost one pull of a rate limit."""
        for digest in await off_loop(len(index), named_for, index, upstream.settings.prefetch.platforms):
            if self.pull is not None and upstream.may_prefetch():
                with suppress(UpstreamError, RegistryError):
                    await self.pull(upstream, name, digest)

    def _put(self, upstream: Upstream, name: Name, blob: Descriptor) -> None:
        if (name, blob.digest) in self._queued or self._queue.full():
            return
        self._queued.add((name, blob.digest))
        self._queue.put_nowait((upstream, name, blob))
