"""Lists that a registry answers in pages, from one that may have no end."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from app.proxy.client import Reply
from app.proxy.documents import next_page
from app.proxy.errors import Portal

_PAGES: Final = 100_000

Ask = Callable[[dict[str, str]], Awaitable[Reply]]
"""Asks for the page of a query."""


async def documents(host: str, ask: Ask, most: int = _PAGES) -> AsyncIterator[dict[str, Any]]:
    """The documents of all pages, one at a time. Their size is the registry's choice: some refuse to be told one.

    Raises what `ask` raises, and Portal for nonsense, for circles, and for more than `most` pages.
    """
    query: dict[str, str] | None = {}
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
