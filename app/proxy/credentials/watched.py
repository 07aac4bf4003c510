"""A file that others change: its meaning as of now."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from app.errors import StartError

T = TypeVar("T")

_OFTEN: Final = 1.0
"""Seconds for which a reading is believed."""

_LARGEST: Final = 1 << 20


class Unreadable(Exception):
    """The file cannot be used; the message holds nothing of its content."""


class Watched(Generic[T]):
    """What `parse` makes of a file's bytes; it raises ValueError with a message that is safe to show.

    It is read again at most once a second, in a thread. A file that is missing or broken for a moment, because it is
    being replaced, leaves the last meaning in place.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file, blocking. Raises StartError."""
        self._path = path
        self._parse = parse
        self._clock = clock
        self._turn = asyncio.Lock()
        try:
            self._last = self._read()
        except Unreadable as exc:
            raise StartError(f"{path} {exc}") from None
        self._when = clock()

    async def now(self, *, renew: bool = False) -> T:
        """The meaning now; `renew`: read in any case. Raises Unreadable, only then."""
        if not renew and self._clock() < self._when + _OFTEN:
            return self._last
        async with self._turn:
            if renew or self._clock() >= self._when + _OFTEN:
                await self._again(renew)
        return self._last

    async def _again(self, renew: bool) -> None:
        try:
            self._last = await asyncio.to_thread(self._read)
        except Unreadable as exc:
            if renew:
                raise Unreadable(f"{self._path.name} {exc}") from None
        self._when = self._clock()

    def _read(self) -> T:
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as exc:
            raise Unreadable(f"cannot be read: {exc.strerror or type(exc).__name__}") from None
        if len(data) > _LARGEST:
            raise Unreadable("is too large")
        try:
            return self._parse(data)
        except ValueError as exc:
            raise Unreadable(str(exc)) from None
