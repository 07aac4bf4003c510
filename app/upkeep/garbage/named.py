"""What manifests name, remembered by digest, so that each is read and parsed once and not once a cycle.

A local file. Losing it costs reading; a wrong one must not cost content, so what is remembered was parsed from bytes that
hashed to the digest, each row carries a checksum, and a row that does not fit it is as good as none.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import digests_named
from app.upkeep.garbage.packing import digest_in, packed_digest

_FILE: Final = "manifests-1.sqlite"
"""The number rises when other strings of a manifest count."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS named (digest BLOB PRIMARY KEY, names BLOB NOT NULL, mark BLOB NOT NULL) WITHOUT ROWID
"""
_SETTINGS: Final = "PRAGMA cache_size = -8192; PRAGMA synchronous = OFF;"
_SPARE: Final = 10_000


class NamedDigests:
    """The file. It blocks: one thread calls it. Any number of processes may share its folder."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder it is a private one that ends with this object. A file that cannot be used is made anew."""
        self._folder = folder
        self._private: tempfile.TemporaryDirectory[str] | None = None
        self._database: sqlite3.Connection | None = None

    def close(self) -> None:
        """Closes the file; a private one goes."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._private is not None:
            self._private.cleanup()

    def known(self, digests: Sequence[Digest]) -> dict[Digest, Sequence[Digest]]:
        """What those name that are remembered."""
        found: dict[Digest, Sequence[Digest]] = {}
        try:
            for digest in digests:
                row = (
                    self._open()
                    .execute("SELECT names, mark FROM named WHERE digest = ?", (packed_digest(digest),))
                    .fetchone()
                )
                if row is not None and row[1] == _mark(digest, row[0]):
                    found[digest] = _unpacked(row[0])
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)
        return found

    def learn(self, digest: Digest, data: bytes) -> Sequence[Digest]:
        """What a manifest of these bytes names. Raises ManifestInvalid where they are not its, or cannot be understood."""
        if digest_of(data, algorithm_of(digest)) != digest:
            raise ManifestInvalid("it does not hash to its digest")
        names = [Digest(name) for name in sorted(digests_named(data))]
        row = _packed(names)
        try:
            self._open().execute(
                "INSERT OR REPLACE INTO named VALUES (?, ?, ?)", (packed_digest(digest), row, _mark(digest, row))
            )
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)
        return names

    def settle(self) -> None:
        """Keeps what was learnt, for other processes too."""
        with suppress(sqlite3.Error):
            if self._database is not None:
                self._database.commit()

    def trim(self, living: int) -> None:
        """Forgets everything where far more is remembered than there is: `living` manifests."""
        try:
            (rows,) = self._open().execute("SELECT count(*) FROM named").fetchone()
            if rows > 2 * living + _SPARE:
                self._open().execute("DELETE FROM named")
            self.settle()
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)

    def _open(self) -> sqlite3.Connection:
        """Raises sqlite3.Error, or OSError where the folder cannot be made."""
        if self._database is None:
            path = self._place() / _FILE
            path.touch(0o600)
            self._database = sqlite3.connect(path, timeout=5, check_same_thread=False)
            self._database.executescript(_SETTINGS + _TABLE)
        return self._database

    def _place(self) -> Path:
        if self._folder is not None:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            return self._folder
        if self._private is None:
            self._private = tempfile.TemporaryDirectory(prefix="edge-registry-named-")
        return Path(self._private.name)

    def _give_up(self, failure: Exception) -> None:
        """Begins a private file. One that is damaged goes, one that others hold for too long stays theirs."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        if self._folder is not None and not isinstance(failure, sqlite3.OperationalError | OSError):
            with suppress(OSError):
                (self._folder / _FILE).unlink()
        self._folder = None


def _mark(digest: Digest, names: bytes) -> bytes:
    return hashlib.blake2b(digest.encode() + b"\0" + names, digest_size=8).digest()


def _packed(names: Iterable[Digest]) -> bytes:
    found = [packed_digest(name) for name in names]
    return b"".join(bytes([len(name)]) + name for name in found if isinstance(name, bytes))


def _unpacked(names: bytes) -> list[Digest]:
    found, at = [], 0
    while at < len(names):
        end = at + 1 + names[at]
        found.append(digest_in(names[at + 1 : end]))
        at = end
    return found
