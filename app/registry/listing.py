"""Whole listings: every key below a prefix, a page at a time."""

from collections.abc import AsyncIterator

from storage import Corrupt, Driver, Entry


async def every(driver: Driver, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
    """Every key that begins with `prefix` and sorts after `after`, in byte order, a request for each thousand.

    Whoever stops half-way has not seen all: what is deleted by a listing must have come to its end. Raises StorageError,
    Corrupt among them for a listing that could not be whole.
    """
    more = True
    while more:
        page = await driver.list(prefix, after=after)
        if (page.more and not page.entries) or (page.entries and page.entries[0].key <= after):
            raise Corrupt("the store's listing does not go on where it ended")
        for entry in page.entries:
            yield entry
        more, after = page.more, page.entries[-1].key if page.entries else ""
