"""The negative cache of one upstream: what it definitely does not have, for a while."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Misses:
    """Definite 404s, the oldest dropped first. Failures of other kinds do not belong here."""

    def __init__(self, ttl: float, limit: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Each is believed for `ttl` seconds; at most `limit` are kept."""
        self._ttl, self._limit, self._clock = ttl, limit, clock
        self._noted: OrderedDict[Hashable, float] = OrderedDict()  # in order of time, because each is moved to the end

    def note(self, key: Hashable) -> None:
        """Remembers that the upstream has not got this."""
        self._noted[key] = self._clock()
        self._noted.move_to_end(key)
        if len(self._noted) > self._limit:
            self._noted.popitem(last=False)

    def knows(self, key: Hashable) -> bool:
        """Whether the upstream said so less than `ttl` seconds ago."""
        noted = self._noted.get(key)
        if noted is None:
            return False
        if self._clock() - noted < self._ttl:
            return True
        del self._noted[key]
        return False

    def forget(self, key: Hashable) -> None:
        """Asks the upstream again next time; a key that is not known is no error."""
        self._noted.pop(key, None)
