"""The users that exist right now: the htpasswd file, read again when its content changes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from app.auth.htpasswd import Entries, cost_of, decoy, parse
from app.errors import StartError

Report = Callable[[str, str], None]
"""Takes a level (`info`, `warning`, `error`) and one line for the operator, which holds no secret."""

_NAMED: Final = 5
"""The most complaints about single lines that one reading reports."""


def silent(level: str, message: str) -> None:
    """A report to nobody."""


class Users:
    """A view of the file that is never older than `every` seconds when `fresh` is true.

    Requests drive the reading, so no background task can be forgotten or die. A file that vanished or broke leaves the
    users as they were and is reported once; an empty one is believed: nobody may log in.
    """

    def __init__(
        self,
        path: Path,
        data: bytes,
        entries: Entries,
        *,
        report: Report = silent,
        every: float = 1.0,
        settle: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._report = report
        self._every = every
        self._settle = settle
        self._clock = clock
        self._trouble = ""
        self._looking = asyncio.Lock()
        self._decoy = decoy(entries.cost)
        self._adopt(data, entries, clock())

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        report: Report = silent,
        every: float = 1.0,
        settle: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Reads the file for the first time, blocking; `every` and `settle` are seconds.

        Raises StartError when it is missing, unreadable, no htpasswd file or without a user that could log in.
        """
        hint = f"add a user with: edge-registry user add NAME --file {path}"
        try:
            data = path.read_bytes()
            entries = parse(data)
        except FileNotFoundError:
            raise StartError(f"the users' file {path} does not exist; {hint}") from None
        except OSError as exc:
            raise StartError(f"the users' file {path} cannot be read: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise StartError(f"the users' file {path} cannot be used: {exc}") from None
        if not entries.hashes:
            reason = f" ({entries.warnings[0]})" if entries.warnings else ""
            raise StartError(f"the users' file {path} holds no user with a bcrypt password{reason}; {hint}")
        return cls(path, data, entries, report=report, every=every, settle=settle, clock=clock)

    @property
    def fresh(self) -> bool:
        """Whether the file was looked at less than `every` seconds ago; `refresh` makes it so."""
        return self._clock() - self._looked < self._every

    def hash_of(self, user: str) -> bytes | None:
        """The bcrypt hash of a user, None for a user that cannot log in."""
        return self._entries.hashes.get(user)

    @property
    def decoy(self) -> bytes:
        """The hash that an unknown user's password is checked against: none fits, and it costs what most users' do."""
        return self._decoy

    async def refresh(self) -> None:
        """Looks at the file unless it is fresh; raises nothing. Concurrent callers share one look."""
        if self.fresh:
            return
        async with self._looking:
            if not self.fresh:
                await self._look()

    async def _look(self) -> None:
        started = self._clock()
        try:
            data, entries = await asyncio.to_thread(self._read)
        except (OSError, ValueError) as exc:
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            self._looked = started
            if reason != self._trouble:
                self._trouble = reason
                self._report("error", f"the users' file {self._path} cannot be used, its last users stay: {reason}")
            return
        self._trouble = ""
        if entries is None:
            self._looked = started
        else:
            self._adopt(data, entries, started)
            self._report(
                "info", f"the users' file {self._path} changed and was read again: {len(entries.hashes)} users"
            )

    def _read(self) -> tuple[bytes, Entries | None]:
        """The bytes, and what they say where they are new; waits for an editor that writes the file in place to end."""
        data = self._path.read_bytes()
        if data == self._data:
            return data, None
        for _ in range(5):
            time.sleep(self._settle)  # in a thread
            before, data = data, self._path.read_bytes()
            if before == data:
                break
        return data, parse(data)

    def _adopt(self, data: bytes, entries: Entries, looked: float) -> None:
        self._data, self._entries, self._looked = data, entries, looked
        if cost_of(self._decoy) != entries.cost:
            self._decoy = decoy(entries.cost)
        for line in entries.warnings[:_NAMED]:
            self._report("warning", f"the users' file {self._path}: {line}")
        if len(entries.warnings) > _NAMED:
            self._report("warning", f"the users' file {self._path}: {len(entries.warnings) - _NAMED} more complaints")
