"""Work on documents: of large ones in a thread, so that the event loop holds up nobody."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_INLINE: Final = 64 << 10
"""Bytes that cost less to parse here (0.8 ms) than everybody else minds; 4 MiB would be 60 ms."""


async def off_loop(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What comes of work on so many bytes. Raises what the work does."""
    return work(*args, **kwargs) if size <= _INLINE else await asyncio.to_thread(work, *args, **kwargs)
