"""The htpasswd file: its lines, read and written with libpass."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from passlib.apache import HtpasswdFile, htpasswd_context
from passlib.context import CryptContext

from app.auth.basic import text
from app.errors import StartError
from app.files import replace

LONGEST_PASSWORD: Final = 72
"""Bytes of a password that bcrypt looks at; longer ones are refused, never cut."""

LOWEST_COST: Final = 10
HIGHEST_COST: Final = 15
"""bcrypt costs: below the first a warning is due; above the second one check takes seconds and the line is refused."""

_LONGEST_USER: Final = 128
_BCRYPT: Final = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Entries:
    """What a file says: the bcrypt hash of each user, and the complaints about the rest, without any hash in them."""

    hashes: Mapping[str, bytes]
    warnings: Sequence[str]

    @property
    def cost(self) -> int:
        """The most common bcrypt cost; LOWEST_COST without users."""
        costs = [cost_of(line) for line in self.hashes.values()]
        return max(set(costs), key=lambda cost: (costs.count(cost), cost)) if costs else LOWEST_COST


def cost_of(line: bytes) -> int:
    """The cost (log2 of the rounds) of a bcrypt hash."""
    return int(line[4:6])


def parse(data: bytes) -> Entries:
    """The users in the bytes of a file. Raises ValueError, naming the line, where it is no htpasswd file."""
    file = _file(data)
    hashes: dict[str, bytes] = {}
    refused: list[str] = []
    cheap = 0
    for name in file.users():
        line = file.get_hash(name)
        user = text(name)
        if complaint := _complaint(user, line):
            refused.append(complaint)
            continue
        hashes[user] = line
        cheap += cost_of(line) < LOWEST_COST
    if cheap:
        refused.append(
            f"{cheap} of its passwords have a bcrypt cost below {LOWEST_COST} and are quick to guess from a copy"
        )
    return Entries(hashes, refused)


def users(path: Path) -> list[str]:
    """The names in the file, in its order, those with a refused scheme too. Raises StartError."""
    return [text(name) for name in _parsed(path, _read(path)).users()]


def add(path: Path, user: str, password: str, cost: int = LOWEST_COST) -> bool:
    """Sets the password of a user, new or not; makes the file where there is none. True when the user is new.

    `cost` is bcrypt's, 4 to HIGHEST_COST. The file is replaced whole, with mode 0600 and its owner kept; comments and
    other lines stay. Raises StartError for a name or password that cannot be used and for a file that cannot be read
    or written.
    """
    _check_user(user)
    _check_password(password)
    if not 4 <= cost <= HIGHEST_COST:
        raise StartError(f"the bcrypt cost must be between 4 and {HIGHEST_COST}, not {cost}")
    context = CryptContext(["bcrypt"], bcrypt__ident="2y", bcrypt__rounds=cost, bcrypt__truncate_error=True)
    line = context.hash(password)
    with _changing(path) as file:
        return not file.set_hash(user.encode(), line)


def remove(path: Path, user: str) -> None:
    """Removes a user from the file. Raises StartError when there is no such user, or no such file."""
    if not path.exists():
        raise StartError(f"the users' file {path} does not exist")
    with _changing(path) as file:
        if not [file.delete(name) for name in file.users() if text(name) == user]:
            raise StartError(f"there is no user {user!r} in {path}")


def decoy(cost: int) -> bytes:
    """A bcrypt hash that no password fits, as costly to check as a real one of this cost."""
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    salt = "".join(secrets.choice(alphabet) for _ in range(21)) + "."  # the last one holds two bits only: "." is valid
    return f"$2b${cost:02}${salt}{''.join(secrets.choice(alphabet) for _ in range(31))}".encode()


def _file(data: bytes) -> HtpasswdFile:
    return HtpasswdFile.from_string(data.removeprefix(_BOM), return_unicode=False)


def _parsed(path: Path, data: bytes) -> HtpasswdFile:
    try:
        return _file(data)
    except ValueError as exc:
        raise StartError(f"the users' file {path} cannot be used: {exc}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StartError(f"the users' file {path} cannot be read: {exc.strerror or exc}") from exc


def _complaint(user: str, line: bytes) -> str | None:
    """Why a line is not used, or None."""
    if not user or not user.isprintable() or len(user) > _LONGEST_USER:
        return f"the user name {user[:_LONGEST_USER]!r} is refused"
    if _BCRYPT.fullmatch(line):
        if 4 <= cost_of(line) <= HIGHEST_COST:
            return None
        return f"user {user!r} is refused: bcrypt cost {cost_of(line)} is not between 4 and {HIGHEST_COST}"
    scheme = "broken bcrypt" if line.startswith(b"$2") else htpasswd_context.identify(line)
    return f"user {user!r} is refused: the password's scheme is {scheme}, only bcrypt is accepted"


def _check_user(user: str) -> None:
    if not user or len(user) > _LONGEST_USER or ":" in user or not user.isprintable() or user != user.strip():
        raise StartError(
            f"a user name is 1 to {_LONGEST_USER} printable characters, no colon, no space around it; not {user!r}"
        )
    if user.startswith("#"):
        raise StartError("a user name cannot begin with '#': that is a comment in the file")
    if len(user.encode(errors="replace")) > 255:
        raise StartError("a user name is at most 255 bytes long")


def _check_password(password: str) -> None:
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise StartError("the password is not valid text") from None
    if not password:
        raise StartError("the password is empty")
    if size > LONGEST_PASSWORD:
        raise StartError(f"the password is {size} bytes long; bcrypt takes at most {LONGEST_PASSWORD}")
    if "\0" in password:
        raise StartError("the password holds a NUL character")


@contextmanager
def _changing(path: Path) -> Iterator[HtpasswdFile]:
    """The file, to be changed inside the block and written back at its end; two programs take turns."""
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
    except OSError as exc:
        raise StartError(f"the folder of {path} cannot be used: {exc.strerror or exc}") from exc
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        file = _parsed(path, _read(target) if target.exists() else b"")
        yield file
        replace(target, file.to_string())
        os.fsync(folder)
    except OSError as exc:
        raise StartError(f"the users' file {path} cannot be written: {exc.strerror or exc}") from exc
    finally:
        os.close(folder)
