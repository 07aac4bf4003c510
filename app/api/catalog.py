"""The catalog of repositories, and the check that this is a registry: end-1 and an extension that clients rely on."""

from collections.abc import Callable, Sequence

from app.api.exchange import Exchange
from app.api.pagination import MOST, next_link, page_size
from app.oci.names import Name, parse_name
from app.registry.registry import Registry


async def get_base(exchange: Exchange) -> None:
    """end-1: 200 says that this is a registry, and that the caller is known."""
    await exchange.json(200, {})


async def get_catalog(exchange: Exchange, registry: Registry, visible: Callable[[str], bool] | None = None) -> None:
    """A page of those repository names that are `visible` (None: all), in byte order, with a Link to the next."""
    limit, last = page_size(exchange), exchange.parameter("last")
    after = parse_name(last) if last else None
    names, more = await _page(registry, limit, after, visible) if limit else ([], False)
    link = next_link("/v2/_catalog", n=limit, last=names[-1]) if more and names else []
    await exchange.json(200, {"repositories": list(names)}, link)


async def _page(
    registry: Registry, limit: int, after: Name | None, visible: Callable[[str], bool] | None
) -> tuple[Sequence[Name], bool]:
    """Goes on until the page is full: what is hidden leaves no gaps that could be counted."""
    if visible is None:
        return await registry.catalog(limit, after)
    found: list[Name] = []
    more = True
    while more and len(found) <= limit:
        names, more = await registry.catalog(MOST, after)
        found += [name for name in names if visible(name)]
        after = names[-1] if names else after
    return found[:limit], len(found) > limit
