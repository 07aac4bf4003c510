"""The circuit breaker of one upstream: who waits for a registry that does not answer is told so at once.

Requests of people never try whether the upstream is back; `watch` alone does, so that a miss costs microseconds while
the uplink is down.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from app.proxy.errors import Failing, Portal, Unreachable, UpstreamError

State = Literal["closed", "open", "half_open"]
OnChange = Callable[[State, str], None]
"""Takes the new state and a reason that is safe to show."""

_OUTAGES: Final = (Unreachable, Failing, Portal)
_SAID: Final = {"server_error": "failing", "captive_portal": "answering as no registry does"}
_LEAST_RETRY: Final = 1.0
"""Seconds: a client that is told to come back at once would only be refused again."""


class Breaker:
    """Closed: requests pass. Open: they are refused at once. Half open: refused too, while one probe is on its way."""

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 2,
        first_pause: float = 10.0,
        longest_pause: float = 30.0,
        on_change: OnChange | None = None,
    ) -> None:
        """`threshold` outages in a row open it; probes follow after pauses of `first_pause` to `longest_pause` seconds."""
        self._name, self._threshold = name, threshold
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._on_change = on_change
        self._state: State = "closed"
        self._since: float | None = None
        self.opened = 0
        """How often it has opened: whoever failed in between may owe it to others' failures."""
        self._failures = 0
        self._about = ""  # what the last Failing was about
        self._outage, self._why = "unreachable", ""
        self._opened_at = self._next_probe = 0.0  # monotonic
        self._opened, self._closed = asyncio.Event(), asyncio.Event()
        self._prober: asyncio.Task[object] | None = None

    @property
    def state(self) -> State:
        """Whether requests pass."""
        return self._state

    @property
    def since(self) -> float | None:
        """When it opened, in seconds since 1970; None while it is closed."""
        return self._since

    def admit(self) -> None:
        """Returns while closed, and to the probe; else raises Unreachable with the seconds until the next probe."""
        if self._state == "closed" or (self._prober is not None and self._prober is asyncio.current_task()):
            return
        now = time.monotonic()
        reason = f"{self._name} has been {self._outage} for {_span(now - self._opened_at)}{self._why}"
        raise Unreachable(reason, retry_after=max(_LEAST_RETRY, self._next_probe - now))

    def succeeded(self) -> None:
        """Notes a real answer of the registry, also 401, 404 or 429, also to a request of before it opened: closes."""
        self._failures = 0
        if self._state == "closed":
            return
        span = _span(time.monotonic() - self._opened_at)
        self._since = None
        self._opened.clear()
        self._closed.set()
        self._turn("closed", f"{self._name} answers again after {span}")

    def failed(self, failure: UpstreamError, about: str = "") -> None:
        """Notes a failure; an error that the registry itself answered is as good as a success. Never raises.

        `about` names what was asked for: an upstream that cannot give one thing, however often it is asked, may still be
        able to give all others.
        """
        if not isinstance(failure, _OUTAGES):
            self.succeeded()
            return
        repeated = isinstance(failure, Failing) and about and about == self._about
        self._about = about if isinstance(failure, Failing) else ""
        if repeated:
            return
        self._failures += 1
        why = failure.reason.removeprefix(self._name).lstrip(": ")
        self._why = f" ({why})" if why else ""
        if self._state == "closed" and self._failures >= self._threshold:
            self._outage = _SAID.get(failure.kind, "unreachable")
            self._since, self._opened_at = time.time(), time.monotonic()
            self._next_probe = self._opened_at + self._first_pause
            self.opened += 1
            self._closed.clear()
            self._opened.set()
            self._turn("open", failure.reason)

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Runs for ever: while open, awaits `probe` after pauses that grow; its success closes.

        `admit` lets the probe through when it is called in this very task. Without a watch the breaker stays open.
        """
        while True:
            await self._opened.wait()
            pause = self._first_pause
            while self._opened.is_set():
                await self._rest(pause * random.uniform(0.75, 1.0))  # noqa: S311  (jitter)
                pause = min(self._longest_pause, pause * 2)
                if self._opened.is_set():
                    await self._probe(probe)

    async def _rest(self, pause: float) -> None:
        """Waits until the next probe is due, or until a late answer closed the breaker."""
        self._next_probe = time.monotonic() + pause
        try:
            async with asyncio.timeout(pause):
                await self._closed.wait()
        except TimeoutError:
            return

    async def _probe(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._turn("half_open", f"asking {self._name} whether it is back")
        self._prober = asyncio.current_task()
        reason = f"the probe of {self._name} was cancelled"
        try:
            await probe()
            self.succeeded()
        except UpstreamError as failure:
            self.failed(failure)
            reason = failure.reason
        except Exception as exc:  # noqa: BLE001  (a background loop: if it ended, the breaker would stay open for ever)
            reason = f"the probe of {self._name} failed: {type(exc).__name__}"
        finally:
            self._prober = None
            if self.state == "half_open":
                self._turn("open", reason)

    def _turn(self, state: State, reason: str) -> None:
        self._state = state
        if self._on_change is not None:
            self._on_change(state, reason)


def _span(seconds: float) -> str:
    """A span of time as people say it: `12 s`, `3 m`, `5 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
