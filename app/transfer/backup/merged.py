"""Two listings read side by side: what one store has and another has not, however many keys there are."""

from collections.abc import AsyncIterator

from app.registry.listing import every
from storage import Driver, Entry


async def merged(one: Driver, other: Driver, prefix: str) -> AsyncIterator[tuple[Entry, bool]]:
    """Every key of `one` below `prefix`, in order, and whether `other` has it, of the same size. Raises StorageError."""
    others = aiter(every(other, prefix))
    there: Entry | None = await anext(others, None)
    async for entry in every(one, prefix):
        while there is not None and there.key < entry.key:
            there = await anext(others, None)
        yield entry, there is not None and there.key == entry.key and there.size == entry.size
