"""One login that is kept: asked for once however many wait, again before it ends, and again when it was refused."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from app.proxy.credentials.login import Login
from app.proxy.errors import UpstreamError

_PATIENCE: Final = 2.0
"""Seconds to wait for a new login while the old one still holds."""

_PAUSE: Final = 2.0
"""Seconds for which a failure is everybody's: the source is not asked again for each request of a crowd."""

_CROWD: Final = 5.0
"""Seconds after a renewal in which others, refused with the same old login, get the renewed one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source gave: for `fresh` seconds it is used unasked, for `holds` seconds while the source fails."""

    login: Login | None
    fresh: float
    holds: float


class Remembered:
    """The last answer of `ask`. The asking is nobody's own: it goes on when a caller is cancelled."""

    def __init__(
        self, ask: Callable[[], Coroutine[Any, Any, Answer]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ask` raises UpstreamError; `clock` counts seconds."""
        self._ask = ask
        self._clock = clock
        self._known: Answer | None = None
        self._since = 0.0
        self._renewed: float | None = None
        self._failure: UpstreamError | None = None
        self._failed = 0.0
        self._run: asyncio.Task[None] | None = None

    async def login(self, *, renew: bool = False) -> Login | None:
        """The login; `renew`: a new one, unless one was renewed a moment ago. Raises what `ask` raises."""
        now = self._clock()
        renew = renew and not (self._renewed is not None and now < self._renewed + _CROWD)
        known = self._known
        if known is not None and not renew and now < self._since + known.fresh:
            return known.login
        spare = known if known is not None and not renew and now < self._since + known.holds else None
        if await self._asked(now, renew, _PATIENCE if spare else None):
            spare = self._known
        if spare is not None:
            return spare.login
        assert self._failure is not None  # noqa: S101 - a run that was waited for gave an answer or a failure
        raise self._failure.with_traceback(None)

    async def _asked(self, now: float, renew: bool, patience: float | None) -> bool:
        """Whether there is a new answer after at most `patience` seconds."""
        if self._failure is not None and now < self._failed + _PAUSE:
            return False
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._once(renew))
        run = self._run
        await asyncio.wait({run}, timeout=patience)
        if not run.done():
            return False
        run.result()
        return self._failure is None

    async def _once(self, renew: bool) -> None:
        try:
            answer = await self._ask()
        except UpstreamError as exc:
            self._failure, self._failed = exc, self._clock()
            return
        self._known, self._failure, self._since = answer, None, self._clock()
        if renew:
            self._renewed = self._since
