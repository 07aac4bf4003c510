"""How long things live, in seconds, and the order in which they must end (design, section 5, rule 3)."""

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """fence + clock skew < intent < tombstone < grace; an upload ends well before the grace period does.

    A publication that was signed before a tombstone was written looks for that tombstone before its own fence ends, which
    it took before the collector's ended: tombstones outlive two fences with their skews.
    """

    fence: float
    intent: float
    tombstone: float
    grace: float
    upload: float


def scaled(scale: float) -> Lifetimes:
    """The real lifetimes for 1.0; tests shrink them all together.

    However small the scale, the order holds on a real store, which dates signatures and objects in whole seconds.
    """
    return Lifetimes(
        fence=max(HOUR / 4 * scale, 3.0),
        intent=max(HOUR * scale, 8.0),
        tombstone=max(24 * HOUR * scale, 20.0),
        grace=max(48 * HOUR * scale, 24.0),
        upload=max(20 * HOUR * scale, 10.0),
    )
