"""What the bucket lists, in a temporary database where it can be joined."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from app.oci.digests import Digest
from app.oci.names import Name
from app.oci.references import Tag
from app.registry.keys import Copy, Entry
from app.upkeep.decay.placing import Deleted, Holder, Link, Placed, Referring, Stored, Tagged
from app.upkeep.scratch import Scratch

_TABLES: Final = """
CREATE TABLE repository (name TEXT PRIMARY KEY, deletions INT DEFAULT 0, cached INT DEFAULT 0) WITHOUT ROWID;
CREATE TABLE link (name TEXT, digest TEXT, uuid TEXT, size INT, PRIMARY KEY (name, digest, uuid, size)) WITHOUT ROWID;
CREATE TABLE manifest (name TEXT, digest TEXT, nonce TEXT, media_type TEXT, size INT,
  PRIMARY KEY (name, digest, nonce, media_type)) WITHOUT ROWID;
CREATE TABLE tag (name TEXT, tag TEXT, PRIMARY KEY (name, tag)) WITHOUT ROWID;
CREATE TABLE referrer (name TEXT, subject TEXT, digest TEXT, nonce TEXT,
  PRIMARY KEY (name, subject, digest, nonce)) WITHOUT ROWID;
CREATE TABLE holder (digest TEXT, uuid TEXT, size INT, name TEXT, PRIMARY KEY (digest, uuid, size, name)) WITHOUT ROWID;
CREATE TABLE bytes (uuid TEXT PRIMARY KEY, size INT) WITHOUT ROWID;
CREATE TABLE catalog (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE broken (digest TEXT, uuid TEXT, size INT, state TEXT, why TEXT,
  PRIMARY KEY (digest, uuid, size)) WITHOUT ROWID;
CREATE TABLE missing (name TEXT, digest TEXT, kind TEXT, namer TEXT, PRIMARY KEY (name, digest)) WITHOUT ROWID;
"""


class Inventory:
    """What was listed. Entered while it is used; everything raises NoScratch where the disk is full."""

    def __init__(self) -> None:
        self._scratch = Scratch(_TABLES)

    async def __aenter__(self) -> Self:
        """Raises NoScratch."""
        await self._scratch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scratch.__aexit__(kind, exc, trace)

    async def place(self, found: Sequence[Placed]) -> None:
        """Takes what keys of repositories say."""
        await self._scratch.run(self._place, found)

    async def hold(self, found: Iterable[Holder]) -> None:
        """Takes derived keys of links."""
        rows = [(held.digest, held.copy.uuid, held.copy.size, held.name) for held in found]
        await self._scratch.insert("INSERT OR IGNORE INTO holder VALUES (?, ?, ?, ?)", rows)

    async def weigh(self, found: Iterable[tuple[str, int]]) -> None:
        """Takes copies whose bytes are there, and how many they are."""
        await self._scratch.insert("INSERT OR IGNORE INTO bytes VALUES (?, ?)", list(found))

    async def catalogue(self, found: Iterable[Name]) -> None:
        """Takes derived keys of repositories."""
        await self._scratch.insert("INSERT OR IGNORE INTO catalog VALUES (?)", [(name,) for name in found])

    async def index(self) -> None:
        """Call once everything is taken, before anything is asked."""
        await self._scratch.run(
            self._scratch.database.script,
            "CREATE INDEX copies ON link (uuid, digest, size); CREATE INDEX digests ON manifest (digest);",
        )

    async def choose(self, chosen: Callable[[str], bool]) -> None:
        """Lets questions say `chosen(uuid)`."""
        await self._scratch.run(self._scratch.database.define, "chosen", chosen)

    async def cached(self, names: Iterable[Name]) -> None:
        """Remembers that an upstream fills these repositories: what they lack comes when it is asked for."""
        await self._scratch.insert("UPDATE repository SET cached = 1 WHERE name = ?", [(name,) for name in names])

    async def note_broken(self, digest: Digest, copy: Copy, state: str, why: str) -> None:
        """Remembers a copy that is not what its links say."""
        rows = [(digest, copy.uuid, copy.size, state, why)]
        await self._scratch.insert("INSERT OR REPLACE INTO broken VALUES (?, ?, ?, ?, ?)", rows)

    async def note_missing(self, name: Name, digest: Digest, kind: str, namer: Digest) -> None:
        """Remembers that a repository lacks a blob or a child which one of its manifests names."""
        await self._scratch.insert("INSERT OR IGNORE INTO missing VALUES (?, ?, ?, ?)", [(name, digest, kind, namer)])

    async def count(self, question: str, *values: Any) -> int:
        """The one number that answers a question."""
        (row,) = await self._scratch.rows(question, *values)
        return int(row[0] or 0)

    def pages(self, question: str, *values: Any) -> AsyncIterator[list[Any]]:
        """The rows that answer a question, a page at a time."""
        return self._scratch.pages(question, *values)

    async def rows(self, question: str, *values: Any) -> list[Any]:
        """The rows that answer a question, of which there are few."""
        return await self._scratch.rows(question, *values)

    async def lacks(
        self, name: Name, blobs: Sequence[Digest], children: Sequence[Digest]
    ) -> tuple[set[Digest], set[Digest]]:
        """The blobs and the children that a repository was not seen to have; a child may be a blob as well."""
        return await self._scratch.run(self._lacks, name, blobs, children)

    def _lacks(
        self, name: Name, blobs: Sequence[Digest], children: Sequence[Digest]
    ) -> tuple[set[Digest], set[Digest]]:
        ask = self._scratch.database.execute

        def held(digest: Digest) -> bool:
            found = ask("SELECT 1 FROM link WHERE name = ? AND digest = ?", name, digest)
            return found.fetchone() is not None

        def stored(digest: Digest) -> bool:
            found = ask("SELECT 1 FROM manifest WHERE name = ? AND digest = ?", name, digest)
            return found.fetchone() is not None

        return (
            {digest for digest in blobs if not held(digest)},
            {digest for digest in children if not stored(digest) and not held(digest)},
        )

    def _place(self, found: Sequence[Placed]) -> None:
        with self._scratch.database.batch():
            for placed in found:
                self._place_one(placed)

    def _place_one(self, placed: Placed) -> None:
        execute = self._scratch.database.execute
        execute("INSERT OR IGNORE INTO repository (name) VALUES (?)", placed.name)
        match placed:
            case Link(name, digest, copy):
                execute("INSERT OR IGNORE INTO link VALUES (?, ?, ?, ?)", name, digest, copy.uuid, copy.size)
            case Stored(name, entry):
                row = (name, entry.digest, entry.nonce, entry.media_type, entry.size)
                execute("INSERT OR IGNORE INTO manifest VALUES (?, ?, ?, ?, ?)", *row)
            case Tagged(name, tag, size) if size:
                execute("INSERT OR IGNORE INTO tag VALUES (?, ?)", name, tag)
            case Referring(name, subject, digest, nonce):
                execute("INSERT OR IGNORE INTO referrer VALUES (?, ?, ?, ?)", name, subject, digest, nonce)
            case Deleted(name):
                execute("UPDATE repository SET deletions = 1 WHERE name = ?", name)


def entry_in(row: Sequence[Any]) -> tuple[Name, Entry]:
    """A row of `manifest`: the repository, and the manifest."""
    name, digest, nonce, media_type, size = row
    return Name(name), Entry(Digest(digest), nonce, media_type, size)


def tag_in(row: Sequence[Any]) -> tuple[Name, Tag]:
    """A row of `tag`."""
    return Name(row[0]), Tag(row[1])
