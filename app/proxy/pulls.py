"""When cached manifests were last pulled: what eviction goes by."""

import time
from collections.abc import Callable
from typing import Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, Recent
from storage import StorageError

GRAIN: Final = 3600.0
"""Seconds in which one manifest's pulls are written down once: a write for each would cost more than the pull."""
_REMEMBERED: Final = 50_000


class Pulls:
    """One per process. The age of an empty key says when a manifest was last pulled, at any replica, to within `grain`."""

    def __init__(self, bucket: Bucket, *, grain: float = GRAIN, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = bucket
        self._grain = grain
        self._clock = clock
        self._pulled: Recent[tuple[Name, Digest], float] = Recent(_REMEMBERED)
        self._written: Recent[tuple[Name, Digest], float] = Recent(_REMEMBERED)

    def note(self, name: Name, digest: Digest) -> None:
        """A cached manifest is pulled or stored now. Returns at once: the key is written in the background."""
        now = self._clock()
        self._pulled.put((name, digest), now)
        before = self._written.get((name, digest))
        if before is None or now - before >= self._grain:
            self._written.put((name, digest), now)
            self._bucket.spawn(self._write(name, digest))

    def since(self, name: Name, digest: Digest) -> float | None:
        """Seconds since this process saw the manifest pulled, exactly; None where it did not lately."""
        pulled = self._pulled.get((name, digest))
        return None if pulled is None else self._clock() - pulled

    async def _write(self, name: Name, digest: Digest) -> None:
        try:
            await self._bucket.driver.put(keys.pull(name, digest), b"")
        except StorageError:
            self._written.drop(
                (name, digest)
            )  # a pull is answered whether or not it was noted; the next one tries again
