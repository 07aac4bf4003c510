"""A rate: bytes a second that transfers share in the order in which they ask."""

import asyncio
from typing import Final

_CREDIT: Final = 0.05
"""Seconds of lateness, of the event loop, that are made up for."""
_PIECES: Final = 100
"""Pieces a second in which bytes are taken."""


class Rate:
    """`limit` bytes a second; None: as fast as they come. It may be changed at any time."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._free = 0.0

    @property
    def piece(self) -> int:
        """How many bytes to take at once."""
        return 1 << 30 if self.limit is None else max(1, min(64 << 10, self.limit // _PIECES))

    async def take(self, size: int) -> None:
        """Returns when `size` bytes may go."""
        if self.limit is None:
            return
        now = asyncio.get_running_loop().time()
        begun = self._free if self._free > now - _CREDIT else now
        self._free = begun + size / self.limit
        if self._free > now:
            await asyncio.sleep(self._free - now)
