"""Tar archives of strangers, read in one pass: members and their bytes, with every header bounded and checked.

ustar, GNU's and PAX's long names and sizes. Nothing is ever written to a disk under a name of an archive; a name that
leads outside, a device or a sparse file is refused all the same, because only an attack has one.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from app.transfer.errors import ArchiveRefused, CutShort, shown
from app.transfer.imports.streams import PIECE, Stream

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_LONGEST_NAME: Final = 4096
_LONGEST_HEADER: Final = 1 << 20
"""Bytes of a header in PAX's form: attributes of files stand in them, too."""
_HEADERS_BYTES: Final = 128 << 20
"""Bytes of such headers in all, with the blocks before them."""
_RECORDS: Final = 1000
"""Records of such a header: its attributes, one each."""
_ALL_RECORDS: Final = 1_000_000
MEMBERS: Final = 100_000
"""The most members of an archive."""
_NAMES_BYTES: Final = 32 << 20
"""Bytes of all their names."""
_PADDING: Final = 16 << 20
"""Zeros that may follow the end."""
_BREATH: Final = 64
"""Headers between which others get their turn: they may come faster than one would wait for them."""
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,7}) ([^=]+)=")


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "hard link"
    SYMLINK = "symbolic link"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.FOLDER,
}
_STRANGE: Final = {b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `path` has no `./`, no slash at its ends and no `..`; a link's `target` is such a path too."""

    path: str
    kind: Kind
    size: int
    target: str
    offset: int
    """Where its bytes begin in the archive."""


class TarReader:
    """The members of one archive, in order. Those whose bytes are not asked for are passed over."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = self._pad = 0
        self._seen = self._headers = self._records = 0
        self._members = self._names = 0

    async def members(self) -> AsyncIterator[Member]:
        """Every member; raises ArchiveRefused, CutShort where the archive has no end."""
        while True:
            await self._stream.skip(self._left + self._pad)
            self._left = self._pad = 0
            member = await self._next()
            if member is None:
                await self._check_end()
                return
            self._members += 1
            self._names += len(member.path.encode()) + len(member.target.encode())
            if self._members > MEMBERS:
                raise ArchiveRefused(f"the archive has more than {MEMBERS} members")
            if self._names > _NAMES_BYTES:
                raise ArchiveRefused(f"the names in the archive have more than {_NAMES_BYTES >> 20} MiB")
            yield member

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the member that came last. Raises CutShort."""
        while self._left:
            chunk = await self._stream.piece(min(self._left, PIECE))
            if not chunk:
                raise CutShort("the archive is cut short")
            self._left -= len(chunk)
            yield chunk

    async def _next(self) -> Member | None:
        """The next member, with what the headers before it say; None at the end."""
        said = _Said()
        while True:
            self._seen += 1
            if self._seen % _BREATH == 0:
                await asyncio.sleep(0)
            header = await self._stream.exactly(_BLOCK)
            if len(header) < _BLOCK:
                raise CutShort("the archive is cut short" if self._stream.offset else "there is nothing in the archive")
            if header == _ZEROS:
                if said.waiting:
                    raise ArchiveRefused("the archive ends in the middle of a header")
                return None
            self._check(header)
            flag, size = header[156:157], _number(header[124:136])
            if flag in (b"x", b"g", b"L", b"K"):
                self._records += said.take(flag, await self._long(size))
                if self._records > _ALL_RECORDS:
                    raise ArchiveRefused("the headers of the archive are too large")
                continue
            return self._member(header, flag, size, said)

    def _check(self, header: bytes) -> None:
        """Raises ArchiveRefused for what is no header."""
        found = sum(header) - sum(header[148:156]) + 8 * 32
        if found != _number(header[148:156]):
            words = "this is no archive of images" if self._members == 0 else "the archive is damaged"
            raise ArchiveRefused(words)

    async def _long(self, size: int) -> bytes:
        """The body of a header that does not fit into one."""
        self._headers += size + _BLOCK
        if size > _LONGEST_HEADER or self._headers > _HEADERS_BYTES:
            raise ArchiveRefused("the headers of the archive are too large")
        body = await self._stream.exactly(size)
        if len(body) < size:
            raise CutShort("the archive is cut short")
        await self._stream.skip(-size % _BLOCK)
        return body

    def _member(self, header: bytes, flag: bytes, size: int, said: "_Said") -> Member:
        name = said.name if said.name is not None else _name(header)
        target = said.target if said.target is not None else _text(header[157:257])
        size = size if said.size is None else said.size
        if flag in _STRANGE or said.sparse:
            raise ArchiveRefused(f"{shown(name)} is {'a sparse file' if said.sparse else _STRANGE[flag]}")
        kind = _KINDS.get(flag)
        if kind is None:
            raise ArchiveRefused(f"{shown(name)} is of a kind that is unknown")
        if kind is Kind.FILE and name.endswith("/"):
            kind = Kind.FOLDER
        path = clean(name)
        if kind is Kind.LINK:
            target = clean(target)
        elif kind is Kind.SYMLINK:
            target = _followed(path, target)
        self._left = size if kind is Kind.FILE else 0
        self._pad = -self._left % _BLOCK
        return Member(path, kind, self._left, target, self._stream.offset)

    async def _check_end(self) -> None:
        """Nothing but some zeros may follow: a second archive would go unnoticed."""
        seen = 0
        while chunk := await self._stream.piece(PIECE):
            seen += len(chunk)
            if chunk.strip(b"\0"):
                raise ArchiveRefused("something follows the end of the archive")
            if seen > _PADDING:
                raise ArchiveRefused("the archive does not end where it says so")


class _Said:
    """What headers say about the member that follows them."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.target: str | None = None
        self.size: int | None = None
        self.sparse = False
        self.waiting = False

    def take(self, flag: bytes, body: bytes) -> int:
        """Returns how many records there were. Raises ArchiveRefused for a body that cannot be read, or has too many."""
        if flag == b"g":
            return 0
        self.waiting = True
        if flag == b"L":
            self.name = _text(body)
        elif flag == b"K":
            self.target = _text(body)
        else:
            return self._take_records(body)
        return 1

    def _take_records(self, body: bytes) -> int:
        at = count = 0
        while at < len(body) and body[at]:
            count += 1
            if count > _RECORDS:
                raise ArchiveRefused(f"a header of the archive has more than {_RECORDS} records")
            found = _RECORD.match(body, at)
            end = at + int(found[1]) if found else 0
            if found is None or not found.end() < end <= len(body) or body[end - 1 : end] != b"\n":
                raise ArchiveRefused("a header of the archive cannot be read")
            key, value = found[2], body[found.end() : end - 1]
            if key == b"path":
                self.name = _text(value)
            elif key == b"linkpath":
                self.target = _text(value)
            elif key == b"size":
                if not value.isdigit() or len(value) > 18:
                    raise ArchiveRefused("a header of the archive cannot be read")
                self.size = int(value)
            elif key.startswith(b"GNU.sparse"):
                self.sparse = True
            at = end
        return count


def clean(name: str) -> str:
    """A path below the root of the archive, in its one spelling. Raises ArchiveRefused for one that may lead outside."""
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ArchiveRefused(f"{shown(name)} is no name of a file")
    if len(name.encode()) > _LONGEST_NAME:
        raise ArchiveRefused(f"{shown(name)} is too long for a name")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ArchiveRefused(f"{shown(name)} leads outside of the archive")
    return "/".join(part for part in parts if part not in ("", "."))


def _followed(path: str, target: str) -> str:
    """Where a symbolic link at `path` leads. Raises ArchiveRefused where that is outside."""
    outside = ArchiveRefused(f"{shown(path)} leads outside of the archive")
    if target.startswith("/") or len(target.encode()) > _LONGEST_NAME:
        raise outside
    parts = path.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                raise outside
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _number(field: bytes) -> int:
    """Octal, or, with the first bit set, binary. Raises ArchiveRefused."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40 or value >= 1 << 62:
            raise ArchiveRefused("a header of the archive cannot be read")
        return value
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError as exc:
        raise ArchiveRefused("this is no archive of images, or it is damaged") from exc
