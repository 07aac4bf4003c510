"""What a soak was promised: every acknowledged manifest and tag, and every promise that was seen broken."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

Place = tuple[str, str]
"""A repository and a digest, or a repository and a tag."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One acknowledged manifest."""

    repository: str
    digest: str
    data: bytes
    media_type: str
    blobs: Sequence[tuple[str, int]]
    """Digest and size of each blob that it names."""


@dataclass(slots=True)
class Ledger:
    """Facts that only grow surer: a manifest leaves it before its DELETE is sent, a tag when a write's outcome is unknown."""

    living: dict[Place, Stored] = field(default_factory=dict)
    tags: dict[Place, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, stored: Stored) -> None:
        """It was acknowledged."""
        self.living[stored.repository, stored.digest] = stored

    def pick(self, dice: random.Random) -> Stored | None:
        """Any of the living."""
        return self.living[dice.choice(list(self.living))] if self.living else None

    def take(self, stored: Stored) -> bool:
        """It is about to be deleted; False where somebody else was faster."""
        return self.living.pop((stored.repository, stored.digest), None) is not None

    def lives(self, stored: Stored) -> bool:
        """Whether it must be there."""
        return (stored.repository, stored.digest) in self.living

    def accuse(self, what: str) -> None:
        """A promise was broken."""
        self.broken.append(f"{time.strftime('%H:%M:%S')} {what}")
