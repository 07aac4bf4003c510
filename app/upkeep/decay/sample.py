"""Which copies a run hashes: those whose place between 0 and 1 lies in a window, which the next run moves on."""

import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """A share of all copies, from `start` on; runs that each begin where the last one ended see every copy in turn."""

    share: float
    start: float = 0.0

    @property
    def end(self) -> float:
        """Where the next run begins."""
        return (self.start + self.share) % 1.0

    def has(self, uuid: str) -> bool:
        """Whether a copy is hashed."""
        place = zlib.crc32(uuid.encode()) / (1 << 32)
        return (place - self.start) % 1.0 < self.share
