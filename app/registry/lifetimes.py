"""How long things live, in seconds, and the order in which they must end (design, section 5, rule 3)."""

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """fence + clock skew < intent < tombstone < grace; an upload ends well before the grace period does."""

    fence: float
    intent: float
    tombstone: float
    grace: float
    upload: float


def scaled(scale: float) -> Lifetimes:
    """The real lifetimes for 1.0; tests shrink them all together."""
    return Lifetimes(
        fence=HOUR / 4 * scale,
        intent=HOUR * scale,
        tombstone=24 * HOUR * scale,
        grace=48 * HOUR * scale,
        upload=20 * HOUR * scale,
    )
