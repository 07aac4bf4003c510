"""Sending one body with what goes wrong on its way: cuts, stalls, wrong bytes, slow lines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Final

from tests.services.front.faults import Fault
from tests.services.front.rates import Rate
from tests.services.front.records import Request
from tests.services.front.wire import as_chunk, reset, wait_sent

_LOOK: Final = 0.02
"""Seconds between two looks at whether a client is still there."""


class Ended(ConnectionError):
    """The connection is over, as a fault wanted it or as the client did."""


class Line:
    """The way to one client. `gate` is closed while nothing goes over it; `shared` is the rate of all lines."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, shared: Rate
    ) -> None:
        self.reader, self.writer = reader, writer
        self._gate, self._shared = gate, shared
        # What is counted as sent is in the kernel. With a limit of 0, asyncio's TLS would wait for ever.
        writer.transport.set_write_buffer_limits(high=1, low=0)

    async def write(self, data: bytes | memoryview) -> None:
        """Sends what is no body. Raises ConnectionError."""
        await self.opened()
        self.writer.write(data)
        await self.writer.drain()

    async def opened(self) -> None:
        """Returns when bytes may go; raises Ended where the client has gone meanwhile."""
        await self._gate.wait()
        if self.writer.transport.is_closing():
            raise Ended("the client has gone")

    async def pause(self, seconds: float | None) -> None:
        """Waits so long (None: for ever); raises Ended as soon as the client has gone."""
        now = asyncio.get_running_loop().time
        until = inf if seconds is None else now() + seconds
        while (left := until - now()) > 0:
            if self.reader.at_eof() or self.writer.transport.is_closing():
                raise Ended("the client has gone")
            await asyncio.sleep(min(left, _LOOK))  # a read would take bytes of a request that is still coming

    async def end(self, *, by_reset: bool) -> None:
        """Ends the connection once the client's side has what was sent; always raises Ended."""
        await wait_sent(self.writer)
        if by_reset:
            reset(self.writer)
        raise Ended("the connection was cut")

    async def send(
        self, body: AsyncIterator[bytes], fault: Fault, request: Request, *, chunked: bool, noted: Callable[[], None]
    ) -> None:
        """Sends a body; `request.sent` grows with it, and `noted` is called as it does."""
        own, stalled = Rate(fault.rate), False
        async for data in body:
            view = memoryview(_corrupted(data, fault.corrupt, request.sent))
            while view:
                if fault.stall == request.sent and not stalled:
                    stalled = True
                    await self.pause(fault.stall_for)
                if fault.cut == request.sent:
                    await self.end(by_reset=fault.reset)
                size = min(len(view), own.piece, self._shared.piece, _ahead(fault, request.sent))
                await own.take(size)
                await self._shared.take(size)
                await self.opened()
                request.sent += size  # before they go: whoever has them may look at once
                await self.write(as_chunk(view[:size]) if chunked else view[:size])
                view = view[size:]
                noted()
                if fault.short == request.sent:
                    return
        if chunked:
            await self.write(b"0\r\n\r\n")


def _ahead(fault: Fault, position: int) -> int:
    """Bytes until the next place where something happens."""
    places = (fault.cut, fault.stall, fault.short)
    return min((place - position for place in places if place is not None and place > position), default=1 << 30)


def _corrupted(data: bytes, place: int | None, position: int) -> bytes:
    if place is None or not position <= place < position + len(data):
        return data
    wrong = bytearray(data)
    wrong[place - position] ^= 0xFF
    return bytes(wrong)
