"""Which repository a request means. Upstreams are looked up by name in the configuration, and never dialled otherwise."""

import re
from collections.abc import Iterable
from typing import Final

from app.oci.errors import NameUnknown
from app.oci.names import Name, parse_name
from app.proxy.cache import Cache
from app.proxy.overlay import OverlaidRepository
from app.proxy.repository import ProxiedRepository
from app.proxy.upstreams import Upstream
from app.registry.asked import Asked, MayPull
from app.registry.registry import Repository

_CAREFUL: Final = re.compile(r"containers/|cri-o|libpod|podman|buildah|skopeo", re.IGNORECASE)
"""User agents of clients that choose a mirror once, by its manifest (containers/image)."""


class Routing:
    """The `Repositories` of a server with upstreams. `own` are names of this registry itself, as `ns` may bring them."""

    def __init__(self, cache: Cache, upstreams: Iterable[Upstream], own: Iterable[str]) -> None:
        self._cache = cache
        self._own = {name.lower() for name in own}
        self._by_name = {name: upstream for upstream in upstreams for name in upstream.names}
        self._by_folder = {name.replace(":", "_"): upstream for name, upstream in self._by_name.items()}

    def find(self, asked: Asked, may_pull: MayPull) -> Repository:
        """`X-Registry`, then `ns`, then the first path segment, then the listener's upstream behind local content.

        Raises NameInvalid, NameUnknown.
        """
        named = self._named(asked)
        first, _, rest = asked.name.partition("/")
        segment = self._segment(first) if rest else None
        if named is None and segment is not None:
            return self._proxied(segment, rest, asked)
        if named is not None:  # the path may name it too
            repository = self._proxied(named, rest if segment is named else asked.name, asked)
            repository.notes.namespace = asked.namespace
            return repository
        if ":" in first:  # a host and its port, which no name has
            raise NameUnknown("no such upstream is configured", detail={"name": first[:128]})
        local = parse_name(asked.name)
        host_like = bool(rest) and ("." in first or first == "localhost")
        overlaid = None if host_like else self._overlaid(local, asked, may_pull)
        return overlaid or Repository(self._cache.bucket, local)

    def _named(self, asked: Asked) -> Upstream | None:
        """The upstream that a header or `ns` names; None for none, and for our own name."""
        text = asked.upstream or asked.namespace
        if not text or text.lower() in self._own:
            return None
        found = self._by_name.get(text.lower())
        if found is None:
            raise NameUnknown("no such upstream is configured", detail={"namespace": text[:128]})
        return found

    def _segment(self, first: str) -> Upstream | None:
        return self._by_name.get(first.lower()) or self._by_folder.get(first)

    def _overlaid(self, local: Name, asked: Asked, may_pull: MayPull) -> Repository | None:
        """What stands behind a plain name; None where nothing does, or nothing that the caller may pull."""
        if not asked.fallback:
            return None
        upstream = self._by_name[asked.fallback]
        cached = parse_name(upstream.cached(local))
        if not may_pull(cached):
            return None
        behind = ProxiedRepository(self._cache, cached, upstream, careful=_is_careful(asked))
        return OverlaidRepository(self._cache.bucket, local, behind, writable=asked.writable)

    def _proxied(self, upstream: Upstream, remote: str, asked: Asked) -> ProxiedRepository:
        name = parse_name(upstream.cached(remote))
        repository = ProxiedRepository(self._cache, name, upstream, careful=_is_careful(asked))
        repository.notes.name = asked.name
        return repository


def _is_careful(asked: Asked) -> bool:
    return _CAREFUL.search(asked.agent) is not None
