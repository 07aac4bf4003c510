"""Which repository a request means. Upstreams are looked up by name in the configuration, and never dialled otherwise."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final, Generic

from app.oci.errors import NameUnknown
from app.oci.names import Name, parse_name
from app.proxy.cache import Cache
from app.proxy.namespace import N, Namespace, Namespaces, is_host
from app.proxy.overlay import Behind, OverlaidRepository
from app.proxy.repository import ProxiedRepository
from app.proxy.sealed import SealedRepository
from app.proxy.upstreams import Upstream
from app.registry.asked import Asked, MayPull
from app.registry.bucket import Bucket
from app.registry.registry import Repository

_CAREFUL: Final = re.compile(r"containers/|cri-o|libpod|podman|buildah|skopeo", re.IGNORECASE)
"""User agents of clients that choose a mirror once, by its manifest (containers/image)."""


class Routes(ABC, Generic[N]):
    """Which upstream is meant, and what it is called here. `own` are names of this registry itself, as `ns` may bring
    them."""

    def __init__(self, bucket: Bucket, upstreams: Iterable[N], own: Iterable[str]) -> None:
        self._bucket = bucket
        self._own = {name.lower() for name in own}
        self._upstreams = Namespaces(upstreams)

    def find(self, asked: Asked, may_pull: MayPull) -> Repository:
        """`X-Registry`, then `ns`, then the first path segment, then the listener's upstream behind local content.

        Raises NameInvalid, NameUnknown.
        """
        named = self._named(asked)
        first, _, rest = asked.name.partition("/")
        segment = self._upstreams.of_segment(first) if rest else None
        if named is None and segment is not None:
            return self._proxied(segment, rest, asked)
        if named is not None:  # the path may name it too
            repository = self._proxied(named, rest if segment is named else asked.name, asked)
            repository.notes.namespace = asked.namespace
            return repository
        if ":" in first:  # a host and its port, which no name has
            raise NameUnknown("no such upstream is configured", detail={"name": first[:128]})
        local = parse_name(asked.name)
        overlaid = None if rest and is_host(first) else self._overlaid(local, asked, may_pull)
        return overlaid or Repository(self._bucket, local)

    @abstractmethod
    def _open(self, upstream: N, name: Name, asked: Asked) -> Behind:
        """The repository of an upstream that lies here as `name`."""

    def _named(self, asked: Asked) -> N | None:
        """The upstream that a header or `ns` names; None for none, and for our own name."""
        text = asked.upstream or asked.namespace
        if not text or text.lower() in self._own:
            return None
        found = self._upstreams.named(text)
        return self._unknown(text) if found is None else found

    def _unknown(self, namespace: str) -> N | None:
        raise NameUnknown("no such upstream is configured", detail={"namespace": namespace[:128]})

    def _overlaid(self, local: Name, asked: Asked, may_pull: MayPull) -> Repository | None:
        """What stands behind a plain name; None where nothing does, or nothing that the caller may pull."""
        if not asked.fallback:
            return None
        upstream = self._upstreams[asked.fallback]
        cached = parse_name(upstream.cached(local))
        if not may_pull(cached):
            return None
        behind = self._open(upstream, cached, asked)
        return OverlaidRepository(self._bucket, local, behind, writable=asked.writable)

    def _proxied(self, upstream: N, remote: str, asked: Asked) -> Behind:
        repository = self._open(upstream, parse_name(upstream.cached(remote)), asked)
        repository.notes.name = asked.name
        return repository


class Routing(Routes[Upstream]):
    """The `Repositories` of a server that asks its upstreams."""

    def __init__(self, cache: Cache, upstreams: Iterable[Upstream], own: Iterable[str]) -> None:
        super().__init__(cache.bucket, upstreams, own)
        self._cache = cache

    def _open(self, upstream: Upstream, name: Name, asked: Asked) -> ProxiedRepository:
        return ProxiedRepository(self._cache, name, upstream, careful=_is_careful(asked))


class SealedRouting(Routes[Namespace]):
    """The `Repositories` of a server that dials nobody: the same names, and what is here is all there is.

    A namespace that is no upstream's means the plain name, as in a registry without upstreams: whoever brought an image
    here did not have to configure where it once came from.
    """

    def _open(self, upstream: Namespace, name: Name, asked: Asked) -> SealedRepository:
        return SealedRepository(self._bucket, name, upstream)

    def _unknown(self, namespace: str) -> Namespace | None:
        return None


def _is_careful(asked: Asked) -> bool:
    return _CAREFUL.search(asked.agent) is not None
