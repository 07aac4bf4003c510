"""The listings of one survey, joined in a temporary database.

About 150 bytes for each link and 60 for each digest that a manifest names, in the folder for temporary files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.collection import Candidate
from app.registry.keys import Copy, Entry
from app.upkeep.garbage.packing import digest_in, packed_digest, packed_uuid, uuid_in
from app.upkeep.scratch import Database
from storage import Entry as Listed

TABLES: Final = """
CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE link (uuid, repository INT, digest, size INT, modified REAL, needed INT DEFAULT 0);
CREATE TABLE manifest (repository INT, digest, nonce, PRIMARY KEY (repository, digest, nonce)) WITHOUT ROWID;
CREATE TABLE need (repository INT, digest, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE loose_holder (uuid, size INT, digest, name TEXT);
CREATE TABLE unlinked (uuid PRIMARY KEY, size INT) WITHOUT ROWID;
CREATE TABLE doomed (uuid PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE garbage (kind TEXT, key TEXT, size INT);
CREATE TEMP TABLE page (uuid, size INT, modified REAL, digest, name TEXT);
"""
_INDEX: Final = """
UPDATE link SET needed = 1 WHERE EXISTS
  (SELECT 1 FROM need WHERE need.repository = link.repository AND need.digest = link.digest);
CREATE INDEX copies ON link (uuid, repository, needed, modified);
"""
_CHOOSE: Final = """
CREATE TABLE candidate (first INTEGER PRIMARY KEY, uuid);
INSERT INTO candidate SELECT min(rowid) AS first, uuid FROM link GROUP BY uuid
  HAVING max(needed) = 0 AND max(modified) < {settled!r} ORDER BY first;
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """How many there are, and their bytes."""

    count: int
    size: int


class Join:
    """One survey. It blocks: called where its database is."""

    def __init__(self, database: Database) -> None:
        """`database` has `TABLES`."""
        self._database = database
        self._repositories: tuple[str, int] = ("", 0)
        self.manifests = 0
        self.bytes = Sums(0, 0)

    def place(self, listed: Sequence[Listed], oldest: float) -> list[tuple[Name, Entry]]:
        """Takes a page of keys of repositories; returns its manifests.

        Referrers that are older than `oldest` and have no manifest are garbage. Keys that are not of the registry's making
        are passed over.
        """
        links, stored, referrers = [], [], []
        for entry in listed:
            try:
                name, kind = keys.placed(entry.key)
                if kind == "blobs":
                    copy = keys.copy_of(entry.key)
                    digest = packed_digest(keys.digest_below(entry.key))
                    links.append((packed_uuid(copy.uuid), self._id(name), digest, copy.size, entry.modified))
                elif kind == "manifests":
                    stored.append((name, keys.entry_of(entry.key, entry.size)))
                elif kind == "referrers" and entry.modified < oldest:
                    referrers.append((self._id(name), keys.referring(entry.key), entry))
            except (ValueError, IndexError):
                continue
        with self._database.batch():
            self._database.many("INSERT INTO link VALUES (?, ?, ?, ?, ?, 0)", links)
            self._store(stored)
            alone = [entry for repository, (of, nonce), entry in referrers if not self._stored(repository, of, nonce)]
            self._database.many(
                "INSERT INTO garbage VALUES ('referrers', ?, ?)", [(entry.key, entry.size) for entry in alone]
            )
        self.manifests += len(stored)
        return stored

    def need(self, named: Iterable[tuple[Name, Iterable[Digest]]]) -> None:
        """Takes what manifests of repositories name."""
        with self._database.batch():
            for name, digests in named:
                repository = self._id(name)
                rows = [(repository, packed_digest(digest)) for digest in digests]
                self._database.many("INSERT OR IGNORE INTO need VALUES (?, ?)", rows)

    def doom(self, uuids: Iterable[str]) -> None:
        """Takes copies that may go where no link is found."""
        self._database.many("INSERT OR IGNORE INTO doomed VALUES (?)", [(packed_uuid(uuid),) for uuid in uuids])

    def index(self) -> None:
        """Call once every repository is placed, before what follows."""
        self._database.script(_INDEX)

    def hold(self, listed: Sequence[Listed], oldest: float) -> None:
        """Takes a page of derived keys: those older than `oldest` that have no link are left over.

        Until they go their bytes are not doomed, for the link may be one that the listing left out.
        """
        rows = []
        for entry in listed:
            try:
                copy, name = keys.holding(entry.key)
                digest = packed_digest(keys.digest_below(entry.key))
            except (ValueError, IndexError):
                continue
            rows.append((packed_uuid(copy.uuid), copy.size, entry.modified, digest, name))
        with self._database.batch():
            self._database.many("INSERT INTO page VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("""
                DELETE FROM page WHERE EXISTS
                  (SELECT 1 FROM link JOIN repository ON repository.id = link.repository
                   WHERE link.uuid = page.uuid AND repository.name = page.name)""")
            self._database.execute("DELETE FROM doomed WHERE uuid IN (SELECT uuid FROM page)")
            loose = "INSERT INTO loose_holder SELECT uuid, size, digest, name FROM page WHERE modified < ?"
            self._database.execute(loose, oldest)
            self._database.execute("DELETE FROM page")

    def weigh(self, listed: Sequence[Listed], oldest: float) -> None:
        """Takes a page of bytes: those older than `oldest` that nothing links are suspect."""
        self.bytes = Sums(self.bytes.count + len(listed), self.bytes.size + sum(entry.size for entry in listed))
        named = [(packed_uuid(entry.key.removeprefix(keys.DATA)), entry) for entry in listed if entry.modified < oldest]
        rows = [(uuid, entry.size, entry.modified) for uuid, entry in named if isinstance(uuid, bytes)]  # else not ours
        with self._database.batch():
            self._database.many("INSERT INTO page (uuid, size, modified) VALUES (?, ?, ?)", rows)
            self._database.execute("""
                INSERT OR IGNORE INTO unlinked SELECT uuid, size FROM page
                WHERE NOT EXISTS (SELECT 1 FROM link WHERE link.uuid = page.uuid)""")
            self._database.execute("DELETE FROM page")

    def throw(self, kind: str, listed: Iterable[tuple[str, int]]) -> None:
        """Takes keys that go by their age alone, each with its size in bytes."""
        self._database.many("INSERT INTO garbage VALUES (?, ?, ?)", [(kind, key, size) for key, size in listed])

    def choose(self, settled: float) -> Sums:
        """Finds the copies that no manifest of a repository needs which links them, all of whose links are older.

        Adopted ones have no bytes: those lie elsewhere, and stay.
        """
        self._database.script(_CHOOSE.format(settled=settled))
        return self._sums("""
            SELECT count(*), sum(CASE WHEN typeof(link.uuid) = 'blob' THEN link.size ELSE 0 END)
            FROM candidate JOIN link ON link.rowid = candidate.first""")

    def orphans(self) -> Sums:
        """Bytes that nothing links, and that may go."""
        return self._sums("SELECT count(*), sum(size) FROM unlinked JOIN doomed USING (uuid)")

    def spare(self, uuids: Iterable[str]) -> None:
        """Takes copies that stay though nothing links them."""
        self._database.many("DELETE FROM unlinked WHERE uuid = ?", [(packed_uuid(uuid),) for uuid in uuids])

    def forget_orphans(self) -> None:
        """Takes note that they went."""
        self._database.execute("DELETE FROM unlinked WHERE uuid IN (SELECT uuid FROM doomed)")

    def suspects(self) -> Sums:
        """Bytes that nothing links, without those that went."""
        return self._sums("SELECT count(*), sum(size) FROM unlinked")

    def loose_links(self) -> int:
        """Links that no manifest of their repository needs, to copies that are needed elsewhere."""
        found = self._database.execute("""
            SELECT count(*) FROM link WHERE needed = 0 AND EXISTS
              (SELECT 1 FROM link AS other WHERE other.uuid = link.uuid AND other.needed = 1)""").fetchone()
        return int(found[0])

    def candidates(self, batch: int, after: int) -> tuple[list[Candidate], int]:
        """The next copies that go, in the order of the repositories that link them, and where the next batch begins."""
        rows = self._database.execute(
            "SELECT candidate.uuid, first, digest, size FROM candidate JOIN link ON link.rowid = first "
            "WHERE first > ? ORDER BY first LIMIT ?",
            after,
            batch,
        ).fetchall()
        found = []
        for uuid, _, digest, size in rows:
            linking = self._database.execute(
                "SELECT DISTINCT digest, name FROM link JOIN repository ON repository.id = repository WHERE uuid = ?",
                uuid,
            ).fetchall()
            if all(other == digest for other, _ in linking):  # a copy has one digest, by which all its links are found
                names = frozenset(Name(name) for _, name in linking)
                found.append(Candidate(digest_in(digest), Copy(uuid_in(uuid), size), names))
        return found, rows[-1][1] if rows else -1

    def unknown(self, name: Name, entries: Sequence[Entry]) -> list[Entry]:
        """Those manifests of a repository that were not there when it was surveyed."""
        repository = self._id(name)
        return [entry for entry in entries if not self._stored(repository, entry.digest)]

    def learn(self, stored: Sequence[tuple[Name, Entry]]) -> None:
        """Takes manifests that came since, whose needs are known."""
        self._store(stored)

    def forget(self, stored: Sequence[tuple[Name, Entry]]) -> None:
        """Takes note that these manifests went, and that nobody knows what they need."""
        self._database.many(
            "DELETE FROM manifest WHERE repository = ? AND digest = ? AND nonce = ?", self._rows(stored)
        )

    def needed(self, name: Name, digests: Iterable[Digest]) -> set[Digest]:
        """Those of the digests that a manifest of the repository names, as far as was learnt."""
        repository = self._id(name)
        ask = "SELECT 1 FROM need WHERE repository = ? AND digest = ?"
        return {
            digest for digest in digests if self._database.execute(ask, repository, packed_digest(digest)).fetchone()
        }

    def _id(self, name: str) -> int:
        known, number = self._repositories
        if known != name:
            self._database.execute("INSERT OR IGNORE INTO repository (name) VALUES (?)", name)
            (number,) = self._database.execute("SELECT id FROM repository WHERE name = ?", name).fetchone()
            self._repositories = (name, number)
        return number

    def _store(self, stored: Iterable[tuple[Name, Entry]]) -> None:
        self._database.many("INSERT OR IGNORE INTO manifest VALUES (?, ?, ?)", self._rows(stored))

    def _rows(self, stored: Iterable[tuple[Name, Entry]]) -> Sequence[Sequence[object]]:
        return [(self._id(name), packed_digest(entry.digest), packed_uuid(entry.nonce)) for name, entry in stored]

    def _stored(self, repository: int, digest: Digest, nonce: str | None = None) -> bool:
        ask = "SELECT 1 FROM manifest WHERE repository = ? AND digest = ?"
        values: list[object] = [repository, packed_digest(digest)]
        if nonce is not None:
            ask, values = f"{ask} AND nonce = ?", [*values, packed_uuid(nonce)]
        return self._database.execute(ask, *values).fetchone() is not None

    def _sums(self, question: str) -> Sums:
        count, size = self._database.execute(question).fetchone()
        return Sums(int(count), int(size or 0))
