"""Tags of a repository: end-8."""

from app.api.exchange import Exchange
from app.api.pagination import next_link, page_size
from app.oci.references import parse_tag
from app.registry.registry import Repository


async def get_tags(exchange: Exchange, repository: Repository, _: str) -> None:
    """end-8: a page of tags in byte order, with a Link to the next; 404 NAME_UNKNOWN.

    The Link says the name under which the repository lies here: it leads there without a header, too.
    """
    limit, last = page_size(exchange), exchange.parameter("last")
    after = parse_tag(last) if last else None
    tags, more = await repository.tags.list(limit, after) if limit else ([], False)
    path = f"/v2/{repository.name}/tags/list"
    link = next_link(path, n=limit, last=tags[-1]) if more and tags else []
    await exchange.json(200, {"name": repository.notes.name or repository.name, "tags": list(tags)}, link)
