"""uvicorn's HTTP protocol, with limits on headers, connections and idle bytes (slowloris)."""

import asyncio
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.exchange import CLIENT

HEADER_BYTES: Final = 64 << 10
"""The largest request line and headers together."""

READ_BUFFER: Final = 256 << 10
"""Bytes of a body that may wait for the registry before the client is read on."""
WRITE_BUFFER: Final = 512 << 10
"""Bytes of an answer that may wait for the client before the store is read on."""


UNWANTED: Final = 64 << 20
"""Bytes of a body, behind an answer that was sent before its end, after which the connection is closed nevertheless."""


class Outlet:
    """A connection as the cycle of one request with a body sees it: closing waits for the rest of the body.

    A connection that is closed on unread bytes is reset, which takes the answer back from a client that sends all
    before it reads any (RFC 9112 section 9.6; nginx: lingering_close).
    """

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: "GuardedProtocol") -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self._protocol = protocol

    def close(self) -> None:
        self._protocol.close_behind_body()


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A timer runs while no request is being answered and the client owes us bytes: those of its headers,
    or the rest of a body whose answer was sent early."""

    header_timeout: ClassVar[float] = 30.0
    """Seconds for the headers of one request."""

    most_connections: ClassVar[int] = 4096
    """Connections of this process; one more is closed at once."""

    _pending = 0
    _in_headers = False
    _unwanted = 0
    _lingers = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        goes_on = self._in_headers
        super().data_received(data)
        if self._in_headers:
            # What did not begin before may have the end of a body in front.
            self._pending += len(data) if goes_on or self.cycle is None else min(len(data), HEADER_BYTES)
            if self._pending > HEADER_BYTES:
                self.send_400_response("The headers of the request are too large.")
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm()
        elif self._timer is None:
            self._arm()

    def on_body(self, body: bytes) -> None:
        """As uvicorn's, with more room before reading pauses, and without its two copies while the registry keeps up."""
        cycle = self.cycle
        if cycle.response_complete:
            self._drop(len(body))
            return
        cycle.body = cycle.body + body if cycle.body else body  # type: ignore[assignment]
        if len(cycle.body) > READ_BUFFER:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_begin(self) -> None:
        self._in_headers, self._pending, self._unwanted = True, 0, 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._lingers:
            self.transport.close()
        elif self.cycle is not None and self.cycle.response_complete:
            self._disarm()  # the next headers have a time of their own

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self.transport.is_closing():
            return  # nobody could be answered (RFC 9112 section 9.6)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # httptools takes its body for other requests
        # ASGI would tell an application that sends that its client has gone only if it listened at the same time.
        self.scope["extensions"] = {CLIENT: {"gone": self.transport.is_closing}}
        if self.scope["method"] not in ("GET", "HEAD"):
            self.cycle.transport = Outlet(self)  # type: ignore[assignment]

    def close_behind_body(self) -> None:
        """Closes the connection: at once after a whole request or a broken answer, else when the body has come.

        Its end, UNWANTED bytes of it, or `header_timeout` seconds, whichever is first.
        """
        if self.cycle.more_body and self.cycle.response_complete:
            self._lingers = True
            self.flow.resume_reading()
            if self._timer is None:
                self._arm()
        else:
            self.transport.close()

    def _drop(self, size: int) -> None:
        self._unwanted += size
        if self._unwanted > UNWANTED:
            self.transport.close()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.header_timeout, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort()


def guarded(header_timeout: float, connections: int) -> type[GuardedProtocol]:
    """The protocol with these limits: seconds for the headers of a request, and connections at once."""
    limits = {"header_timeout": header_timeout, "most_connections": connections}
    return type("GuardedProtocol", (GuardedProtocol,), limits)
