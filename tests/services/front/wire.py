"""HTTP/1.1 on the wire: heads and bodies, read and written byte for byte."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

READ_SIZE: Final = 256 << 10


class BrokenOff(ConnectionError):
    """The other side ended the connection in the middle of a message."""


@dataclass(slots=True)
class Head:
    """The first line and the headers of a message."""

    line: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def drop(self, *names: str) -> None:
        """Leaves these out; names in lower case."""
        self.headers = [(key, value) for key, value in self.headers if key.lower() not in names]

    def put(self, name: str, value: str) -> None:
        """Sets a header, in place of those of its name."""
        self.drop(name.lower())
        self.headers.append((name, value))

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.line.split(" ", 2)[1])

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return (self.get("transfer-encoding") or "").lower() == "chunked"

    @property
    def keeps(self) -> bool:
        """Whether the connection stays open afterwards."""
        said = (self.get("connection") or "").lower()
        return "close" not in said and ("HTTP/1.0" not in self.line or "keep-alive" in said)

    def encode(self) -> bytes:
        """As it goes out."""
        lines = [self.line, *(f"{name}: {value}" for name, value in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None where the other side closed before it. Raises BrokenOff."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise BrokenOff("the head broke off") from None
        return None
    line, *rest = text.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (header.partition(":") for header in rest)
    return Head(line, [(name.strip(), value.strip()) for name, _, value in pairs])


def read_body(reader: asyncio.StreamReader, head: Head, *, of_answer: bool) -> AsyncIterator[bytes]:
    """The body that belongs to `head` as it is now, as it comes. Raises BrokenOff where it ends early."""
    length = head.get("content-length")
    if head.chunked:
        return _read_chunks(reader)
    if length is None and of_answer:
        return _read_all(reader)
    return _read_exactly(reader, int(length or 0))


async def _read_all(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(READ_SIZE):
        yield data


async def _read_exactly(reader: asyncio.StreamReader, left: int) -> AsyncIterator[bytes]:
    while left:
        data = await reader.read(min(left, READ_SIZE))
        if not data:
            raise BrokenOff("the body broke off")
        left -= len(data)
        yield data


async def _read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            async for data in _read_exactly(reader, size):
                yield data
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":  # trailers
            pass
    except asyncio.IncompleteReadError:
        raise BrokenOff("the chunks broke off") from None


def as_chunk(data: bytes | memoryview) -> bytes:
    """One chunk of a chunked body."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


async def wait_sent(writer: asyncio.StreamWriter) -> None:
    """Returns when the other side's kernel has all bytes; raises ConnectionError."""
    await writer.drain()
    descriptor = writer.get_extra_info("socket").fileno()
    unsent = bytearray(4)
    while not writer.transport.is_closing():
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, unsent)
        if unsent == bytes(4):
            return
        await asyncio.sleep(0.001)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with RST."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
