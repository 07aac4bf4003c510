"""Tags of a cached repository: the upstream's list, or, where it cannot be asked, those that are known here."""

import time
from collections.abc import Sequence
from typing import Any

from app.oci.errors import NameUnknown, TagInvalid
from app.oci.names import Name
from app.oci.references import Tag, parse_tag
from app.proxy.cache import Cache, Listed
from app.proxy.documents import BYTES, document, next_page
from app.proxy.errors import Missing, UpstreamError
from app.proxy.failures import meaning
from app.proxy.upstreams import Upstream
from app.registry.notes import Notes
from app.registry.tags import Tags


class ProxiedTags(Tags):
    """The tags of one cached repository."""

    def __init__(self, cache: Cache, name: Name, upstream: Upstream, notes: Notes) -> None:
        super().__init__(cache.bucket, name)
        self._cache = cache
        self._upstream = upstream
        self._notes = notes

    async def list(self, limit: int, last: Tag | None) -> tuple[Sequence[Tag], bool]:
        """As the registry's. A list is asked for anew after `tag_ttl`. Raises NameUnknown, Denied, Unavailable."""
        key = (self._name, limit, last)
        known = self._cache.lists.get(key)
        if known is not None and time.monotonic() - known.at < self._upstream.settings.tag_ttl:
            return known.tags, known.more
        try:
            tags, more = await self._cache.flights.join(
                (self._name, f"tags {limit} {last}"),
                lambda: self._upstream.ask(self._name, lambda source, name: _page(source, name, limit, last)),
            )
        except UpstreamError as exc:
            return await self._stale(exc, known, limit, last)
        self._cache.lists.put(key, Listed(time.monotonic(), tags, more))
        return tags, more

    async def _stale(
        self, failure: UpstreamError, known: Listed | None, limit: int, last: Tag | None
    ) -> tuple[Sequence[Tag], bool]:
        unknown = NameUnknown(detail={"name": self._name})
        if isinstance(failure, Missing) or failure.kind not in self._upstream.settings.stale.on:
            raise meaning(failure, unknown) from failure
        self._notes.warning = f"{failure.reason}; these are the tags that are known here"
        if known is not None:
            return known.tags, known.more
        try:
            return await super().list(limit, last)
        except NameUnknown:
            raise meaning(failure, unknown) from failure


async def _page(source: Upstream, name: str, limit: int, last: Tag | None) -> tuple[Sequence[Tag], bool]:
    """One page; an upstream that knows no pages is cut to one. Raises UpstreamError."""
    query = {"n": str(limit)} | ({"last": last} if last else {})
    reply = await source.client.get(name, "tags/list", accept=("application/json",), query=query, limit=BYTES)
    listed: Any = document(source, reply).get("tags")
    tags = [tag for tag in map(_tag, listed if isinstance(listed, list) else ()) if tag is not None]
    if next_page(reply) is None and len(tags) > limit:
        tags = sorted(tag for tag in tags if last is None or tag > last)
    return tags[:limit], len(tags) > limit or next_page(reply) is not None


def _tag(text: object) -> Tag | None:
    try:
        return parse_tag(text) if isinstance(text, str) else None
    except TagInvalid:
        return None
