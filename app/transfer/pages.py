"""Lists that a registry answers in pages, from one that may have no end."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from app.proxy.client import Reply
from app.proxy.documents import next_page
from app.proxy.errors import Portal

NUMBERED: Final = {"n": "1000"}
"""The query of a first page, where the list knows sizes of pages."""
_PAGES: Final = 100_000

Ask = Callable[[dict[str, str]], Awaitable[Reply]]
"""Asks for the page of a query."""


async def documents(host: str, ask: Ask, first: dict[str, str], most: int = _PAGES) -> AsyncIterator[dict[str, Any]]:
    """The documents of all pages, one at a time, beginning with that of the query `first`.

    Raises what `ask` raises, and Portal for nonsense, for circles, and for more than `most` pages.
    """
    query: dict[str, str] | None = first
    seen: set[int] = set()
    while query is not None:
        mark = hash(frozenset(query.items()))
        if mark in seen or len(seen) >= most:
            raise Portal(f"{host} answers a list that has no end")
        seen.add(mark)
        reply = await ask(query)
        yield _document(host, reply)
        query = next_page(reply)


def _document(host: str, reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Portal(f"{host} answers with something that is no list")
    return found
