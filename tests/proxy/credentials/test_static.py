"""Logins that the configuration names."""

from pathlib import Path

import pytest

from app.errors import StartError
from app.proxy.credentials import Credentials, Login, open_credentials
from app.proxy.credentials.watched import Unreadable, Watched
from app.proxy.errors import Denied
from app.proxy.settings import CredentialsSettings

HOST = "registry.example:5000"


def opened(**settings: object) -> Credentials:
    return open_credentials(CredentialsSettings.model_validate(settings))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_without_credentials_everybody_is_anonymous() -> None:
    credentials = open_credentials(None)
    assert await credentials.login(HOST) is None
    assert credentials.identity == "anonymous"


async def test_a_user_and_a_password() -> None:
    credentials = opened(username="me", password="hush")
    assert await credentials.login(HOST) == Login("me", "hush")
    assert credentials.identity == "user:me"
    assert "hush" not in repr(await credentials.login(HOST))


async def test_a_changed_password_file_is_read_when_the_old_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("one\n")
    credentials = opened(username="me", password_file=str(path))
    assert await credentials.login(HOST) == Login("me", "one")
    path.write_text("two ways\n")
    assert await credentials.login(HOST, renew=True) == Login("me", "two ways")
    assert credentials.identity == "user:me"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_password_file_without_a_password_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(StartError, match=r"is (empty|not text)"):
        opened(username="me", password_file=str(path))


def test_a_password_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        opened(username="me", password_file=str(tmp_path / "nowhere"))


async def test_a_password_file_that_vanishes_is_denied_only_when_the_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("one")
    credentials = opened(username="me", password_file=str(path))
    path.unlink()
    assert await credentials.login(HOST) == Login("me", "one")
    with pytest.raises(Denied, match=f"^{HOST}: the password's file password cannot be read: No such file"):
        await credentials.login(HOST, renew=True)


async def test_a_file_is_believed_for_a_second_and_read_again_after_it(tmp_path: Path) -> None:
    path, clock = tmp_path / "file", Clock()
    path.write_bytes(b"one")
    file = Watched(path, bytes.decode, clock=clock)
    path.write_bytes(b"two")
    assert await file.now() == "one"
    clock.now += 1.5
    assert await file.now() == "two"


async def test_a_file_that_is_broken_for_a_moment_keeps_its_meaning(tmp_path: Path) -> None:
    path, clock = tmp_path / "file", Clock()
    path.write_bytes(b"1")
    file = Watched(path, int, clock=clock)
    path.write_bytes(b"half")
    clock.now += 2
    assert await file.now() == 1
    with pytest.raises(Unreadable):
        await file.now(renew=True)
    path.write_bytes(b"3")
    assert await file.now(renew=True) == 3


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 << 20))
    with pytest.raises(StartError, match="is too large"):
        Watched(path, bytes.decode)


def test_a_helper_that_is_not_installed_stops_the_start() -> None:
    with pytest.raises(StartError, match="docker-credential-no-such on PATH"):
        opened(helper="no-such")
