"""What the tests of access share: a users' file, cheap hashes, and bcrypt that counts how often it ran."""

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from app.auth.authenticator import Authenticator
from app.auth.hashing import HashingPool
from app.auth.htpasswd import add
from app.auth.throttle import Throttle
from app.auth.users import Users

Report = list[tuple[str, str]]


class CountingBcrypt:
    """The real bcrypt; `lines` are the hashes it was asked about, `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, password: bytes, line: bytes) -> bool:
        self.lines.append(line)
        assert self.hold.wait(20)
        return bcrypt.checkpw(password, line)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def basic(user: str, password: str, encoding: str = "utf-8") -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode(encoding))


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    """alice and bob, at the lowest cost there is."""
    path = tmp_path / "htpasswd"
    add(path, "alice", "secret", cost=4)
    add(path, "bob", "hunter2", cost=4)
    return path


@pytest.fixture
def checks() -> CountingBcrypt:
    return CountingBcrypt()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(checks: CountingBcrypt) -> Iterator[Callable[..., Authenticator]]:
    """Makes authenticators and ends their threads."""
    made: list[Authenticator] = []

    def build(
        path: Path | None,
        *,
        throttle: Throttle | None = None,
        waiting: int = 64,
        seconds: float = 300,
        every: float = 1.0,
    ) -> Authenticator:
        users = Users.load(path, every=every) if path else None
        hashing = HashingPool(check=checks, waiting=waiting)
        made.append(Authenticator(users, realm="r", verdict_seconds=seconds, hashing=hashing, throttle=throttle))
        return made[-1]

    yield build
    checks.hold.set()
    for authenticator in made:
        authenticator.close()
