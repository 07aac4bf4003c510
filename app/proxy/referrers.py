"""Referrers of manifests in a cached repository: signatures, SBOMs, attestations."""

import json
from collections.abc import Sequence
from typing import Any, Final

from app.oci.descriptors import parse_descriptor
from app.oci.digests import Digest
from app.oci.errors import Denied as Refused, ManifestInvalid, ManifestUnknown, RegistryError
from app.oci.manifests import OCI_INDEX
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.cache import Cache
from app.proxy.documents import BYTES, document, next_page
from app.proxy.errors import Denied, Failing, Missing, UpstreamError
from app.proxy.failures import meaning
from app.proxy.manifests import ProxiedManifests
from app.proxy.upstreams import Upstream
from app.registry.notes import Notes
from app.registry.off_loop import off_loop
from app.registry.referrers import PAGE, PAGE_BYTES, Referrers, ReferrersOf

_PAGES: Final = 20
"""Pages of an upstream's answer that are read."""

Descriptors = Sequence[dict[str, Any]]


class ProxiedReferrers(ReferrersOf):
    """By the referrers API, else by the tag `sha256-<hex>` (specification, "Referrers Tag Schema")."""

    def __init__(self, cache: Cache, name: Name, upstream: Upstream, notes: Notes, manifests: ProxiedManifests) -> None:
        super().__init__(cache.bucket, name)
        self._cache = cache
        self._upstream = upstream
        self._notes = notes
        self._manifests = manifests

    async def list(self, subject: Digest, artifact_type: str | None, last: Digest | None) -> Referrers:
        """As the registry's; while the upstream cannot be asked, those that were pulled. Raises Denied, Unavailable."""
        try:
            found = await self._ask(subject)
        except UpstreamError as exc:
            if exc.kind not in self._upstream.settings.stale.on:
                raise meaning(exc, ManifestUnknown()) from exc
            self._notes.warning = f"{exc.reason}; these are the referrers that are known here"
            return await super().list(subject, artifact_type, last)
        wanted = {_digest(item): item for item in found if artifact_type in (None, item.get("artifactType"))}
        after = [wanted[digest] for digest in sorted(wanted) if last is None or digest > last]
        page = _first(after)
        return Referrers(page, Digest(_digest(page[-1])) if len(after) > len(page) else None)

    async def _ask(self, subject: Digest) -> Descriptors:
        """What the upstream lists; an empty list where it has none. Raises UpstreamError."""
        key = (self._name, f"referrers {subject}")
        found: Descriptors = []
        if not self._upstream.misses.knows(key):
            try:
                found = await self._cache.flights.join(
                    key, lambda: self._upstream.ask(self._name, lambda source, name: _listed(source, name, subject))
                )
            except Missing:
                self._upstream.misses.note(key)
        return found or await self._tagged(subject)

    async def _tagged(self, subject: Digest) -> Descriptors:
        """The index under the tag that stands for the API where there is none. Kept as any tag is."""
        try:
            _, data = await self._manifests.get_tag(Tag(subject.replace(":", "-", 1)))
        except ManifestUnknown:
            return []
        except Refused as exc:
            raise Denied(exc.message) from exc
        except RegistryError as exc:
            raise Failing(exc.message) from exc
        return _descriptors(await off_loop(len(data), json.loads, data))


async def _listed(source: Upstream, name: str, subject: Digest) -> Descriptors:
    """Every page of the API's answer. Raises UpstreamError: Missing where the upstream has no such API."""
    found: list[dict[str, Any]] = []
    query: dict[str, str] | None = None
    for _ in range(_PAGES):
        reply = await source.client.get(name, f"referrers/{subject}", accept=(OCI_INDEX,), query=query, limit=BYTES)
        found += _descriptors(document(source, reply))
        query = next_page(reply)
        if query is None:
            break
    return found


def _descriptors(index: dict[str, Any]) -> list[dict[str, Any]]:
    listed = index.get("manifests")
    return [item for item in (listed if isinstance(listed, list) else ()) if _is_descriptor(item)]


def _is_descriptor(item: Any) -> bool:
    try:
        parse_descriptor(item, "manifests")
    except ManifestInvalid:
        return False
    return True


def _first(descriptors: Descriptors) -> Descriptors:
    """As many as one answer may hold: clients take no more of it than of a manifest."""
    size = 0
    for number, item in enumerate(descriptors[:PAGE]):
        size += len(json.dumps(item))
        if size > PAGE_BYTES and number:
            return descriptors[:number]
    return descriptors[:PAGE]


def _digest(item: dict[str, Any]) -> str:
    return str(item["digest"])
