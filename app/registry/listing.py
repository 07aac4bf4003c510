"""Whole listings: every key below a prefix, a page at a time."""

from collections.abc import AsyncIterator

from storage import Driver, Entry


async def every(driver: Driver, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
    """Every key that begins with `prefix` and sorts after `after`, in byte order, a request for each thousand.

    Whoever stops half-way has not seen all: what is deleted by a listing must have come to its end. Raises StorageError.
    """
    more = True
    while more:
        page = await driver.list(prefix, after=after)
        for entry in page.entries:
            yield entry
        more, after = page.more, page.entries[-1].key if page.entries else ""
