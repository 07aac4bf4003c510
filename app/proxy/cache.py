"""What all cached repositories share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.oci.digests import Digest
from app.oci.manifests import Manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.flights import Flights
from app.proxy.misses import Misses
from app.proxy.prefetch import Prefetch
from app.proxy.pulls import Pulls
from app.proxy.transfers import Transfers
from app.proxy.upstreams import Upstream
from app.registry.bucket import Bucket, Recent

_LEARNED = 20_000
_LISTS = 1000
_HANGING = 30.0
"""Seconds after which a check that was slow is waited for again."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of tags, and when it was asked for, by the monotonic clock."""

    at: float
    tags: Sequence[Tag]
    more: bool


@dataclass(slots=True)
class Cache:
    """One per process."""

    bucket: Bucket
    transfers: Transfers
    prefetch: Prefetch
    pulls: Pulls
    flights: Flights[tuple[Name, str], Any] = field(default_factory=Flights)
    learned: Recent[tuple[Name, Digest], bool] = field(default_factory=lambda: Recent(_LEARNED))
    hanging: Misses = field(default_factory=lambda: Misses(_HANGING))
    """Tags whose check waits for an answer longer than clients should."""
    lists: Recent[tuple[Name, int, Tag | None], Listed] = field(default_factory=lambda: Recent(_LISTS))
    cursors: Recent[tuple[Name, int, Tag], Mapping[str, str]] = field(default_factory=lambda: Recent(_LISTS))
    """How upstreams call the page of so many tags after one: some know no `last`, but a token of their own."""

    def pulled(self, upstream: Upstream, name: Name, digest: Digest, manifest: Manifest, data: bytes) -> None:
        """A manifest of this repository that was not learned yet is read: remembers its blobs, and has them fetched."""
        for blob in manifest.blobs:
            upstream.named.put((name, blob.digest), blob.size)
        if self.prefetch.pulled(upstream, name, manifest, data):
            self.learned.put((name, digest), True)
