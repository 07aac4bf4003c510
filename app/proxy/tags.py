"""Tags of a cached repository: the upstream's list, or, where it cannot be asked, those that are known here."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
            found: Listed = await self._cache.flights.join(
                (self._name, f"tags {limit} {last}"), lambda: self._ask(limit, last)
            )
        except UpstreamError as exc:
            return await self._stale(exc, known, limit, last)
        self._cache.lists.put(key, found)
        return found.tags, found.more

    async def _ask(self, limit: int, last: Tag | None) -> Listed:
        """One page. Raises UpstreamError, of which a definite no is remembered."""
        absent = (self._name, "tags/list")
        if self._upstream.misses.knows(absent):
            raise Missing(f"{self._upstream.name} does not have that")
        query: Mapping[str, str] = {"n": str(limit)}
        if last is not None:
            query = self._cache.cursors.get((self._name, limit, last)) or {**query, "last": last}
        try:
            page = await self._upstream.ask(self._name, lambda source, name: _page(source, name, query))
        except Missing:
            self._upstream.misses.note(absent)
            raise
        tags = _after(page.tags, last, is_whole=page.following is None)
        if page.following is not None and page.tags and len(tags) <= limit:
            self._cache.cursors.put((self._name, limit, page.tags[-1]), page.following)
        return Listed(time.monotonic(), tags[:limit], len(tags) > limit or page.following is not None)

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


@dataclass(frozen=True, slots=True)
class _Page:
    """One page as the upstream gives it, and the query of the next."""

    tags: Sequence[Tag]
    following: Mapping[str, str] | None


async def _page(source: Upstream, name: str, query: Mapping[str, str]) -> _Page:
    """Raises UpstreamError."""
    reply = await source.client.get(name, "tags/list", accept=("application/json",), query=query, limit=BYTES)
    listed: Any = document(source, reply).get("tags")
    tags = [tag for tag in map(_tag, listed if isinstance(listed, list) else ()) if tag is not None]
    return _Page(tags, next_page(reply))


def _after(tags: Sequence[Tag], last: Tag | None, *, is_whole: bool) -> Sequence[Tag]:
    """Those that belong on a page after `last`: an upstream that knows no pages sends all, in an order of its own."""
    if last in tags:
        return sorted(tag for tag in tags if last is None or tag > last)
    return sorted(tags) if is_whole else tags


def _tag(text: object) -> Tag | None:
    try:
        return parse_tag(text) if isinstance(text, str) else None
    except TagInvalid:
        return None
