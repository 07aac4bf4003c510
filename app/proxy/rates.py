"""The rate limit of one upstream: what its headers say is left, and how long it asked us to stay away."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

_QUOTA: Final = re.compile(r"\s*([0-9]{1,12})\s*(?:;\s*w=([0-9]{1,9}))?")
_UNSAID_WINDOW: Final = 3600.0
"""Seconds for which a count is believed whose window was not named."""
_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 900.0
"""Seconds to stay away after a 429 that names no time; it doubles while they go on."""
_LONGEST_WAIT: Final = 6 * 3600.0
"""Seconds of Retry-After that are believed: the longest window in use is Docker Hub's of six hours."""


OnChange = Callable[[int | None, int | None], None]
"""Takes the limit and what is left of it; None for what is not known."""


class RateLimit:
    """What is left of a rate limit. Docker Hub says it with every answer to a manifest request: `100;w=21600`.

    Such a limit counts pulls, which are GETs of manifests. Once it is used up, all else may still be asked.
    """

    def __init__(
        self, reserve: int, *, clock: Callable[[], float] = time.monotonic, on_change: OnChange | None = None
    ) -> None:
        """`reserve` requests are kept for people: prefetch stops there."""
        self._reserve, self._clock, self._on_change = reserve, clock, on_change
        self._limit: int | None = None
        self._remaining: int | None = None
        self._window: float | None = None
        self._seen = 0.0
        self._all, self._pulls = _Pause(), _Pause()

    @property
    def limit(self) -> int | None:
        """Requests in a window, or None where the upstream names none."""
        return self._limit

    @property
    def window(self) -> float | None:
        """Seconds of the window, or None where it is not named."""
        return self._window

    @property
    def remaining(self) -> int | None:
        """Requests left, or None where that is not known: never said, or said longer ago than the window."""
        if self._clock() - self._seen >= (self._window or _UNSAID_WINDOW):
            return None
        return self._remaining

    def observe(self, headers: Mapping[str, str]) -> None:
        """Reads `ratelimit-limit` and `ratelimit-remaining`, where they are there and can be read.

        `headers` are aiohttp's, which do not distinguish upper and lower case.
        """
        limit = _QUOTA.match(headers.get("ratelimit-limit", ""))
        if limit is not None:
            self._limit = int(limit[1])
            self._window = float(limit[2]) if limit[2] else self._window
        remaining = _QUOTA.match(headers.get("ratelimit-remaining", ""))
        if remaining is not None:
            self._remaining, self._seen = int(remaining[1]), self._clock()
            self._window = float(remaining[2]) if remaining[2] else self._window
            if self._remaining > 0:
                self._pulls = _Pause()
        if self._on_change is not None and (limit is not None or remaining is not None):
            self._on_change(self._limit, self._remaining)

    def limited(self, retry_after: float | None, *, pull: bool = False) -> None:
        """Notes a 429, with the seconds of its Retry-After or None. `pull`: it answered one.

        Where none were left, only pulls are meant; else, or where nothing was said of that, everything is.
        """
        pause = self._pulls if pull and self.remaining == 0 else self._all
        pause.begin(self._clock(), retry_after)

    def refuses(self, *, pull: bool = False) -> float | None:
        """Seconds until the upstream may be asked again after a 429, or None when it may be asked now."""
        until = max(self._all.until, self._pulls.until) if pull else self._all.until
        left = until - self._clock()
        return left if left > 0 else None

    def spare(self) -> bool:
        """Whether prefetch may use it: more than the reserve is left, as far as is known, and no 429 is pending."""
        remaining = self.remaining
        return self.refuses(pull=True) is None and (remaining is None or remaining > self._reserve)


class _Pause:
    """`until` when (monotonic) nobody asks."""

    def __init__(self) -> None:
        self.until = 0.0
        self._chosen = 0.0  # seconds, the last time that we chose them ourselves

    def begin(self, now: float, retry_after: float | None) -> None:
        """Begins or prolongs it."""
        if retry_after is not None and retry_after >= 0:
            self.until = max(self.until, now + min(max(retry_after, 1.0), _LONGEST_WAIT))
        elif now >= self.until:  # else it is another request that ran into the same limit
            again = now < self.until + self._chosen
            self._chosen = min(_LONGEST_PAUSE, self._chosen * 2) if again else _FIRST_PAUSE
            self.until = now + self._chosen
