"""The catalog of repositories, and the check that this is a registry: end-1 and an extension that clients rely on."""

from app.api.exchange import Exchange
from app.api.pagination import next_link, page_size
from app.oci.names import parse_name
from app.registry.registry import Registry


async def get_base(exchange: Exchange) -> None:
    """end-1: 200 says that this is a registry, and that the caller is known."""
    await exchange.json(200, {})


async def get_catalog(exchange: Exchange, registry: Registry) -> None:
    """A page of repository names in byte order, with a Link to the next."""
    limit, last = page_size(exchange), exchange.parameter("last")
    after = parse_name(last) if last else None
    names, more = await registry.catalog(limit, after) if limit else ([], False)
    link = next_link("/v2/_catalog", n=limit, last=names[-1]) if more and names else []
    await exchange.json(200, {"repositories": list(names)}, link)
