"""Logins that the configuration names: nobody, or a user with a password or a file that holds it."""

from pathlib import Path

from pydantic import SecretStr

from app.proxy.credentials.login import Login
from app.proxy.credentials.watched import Unreadable, Watched
from app.proxy.errors import Denied


class Anonymous:
    """Nobody."""

    identity = "anonymous"

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        return None


class Password:
    """A user whose password stands in the configuration."""

    def __init__(self, username: str, password: SecretStr) -> None:
        self.identity = f"user:{username}"
        self._login = Login(username, password.get_secret_value())

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        return self._login


class PasswordFile:
    """A user whose password stands in a file, which may change; a line break at its end is no part of it."""

    def __init__(self, username: str, path: Path) -> None:
        """Reads the file, blocking. Raises StartError."""
        self.identity = f"user:{username}"
        self._username = username
        self._file = Watched(path, _password)

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        try:
            return Login(self._username, await self._file.now(renew=renew))
        except Unreadable as exc:
            raise Denied(f"{host}: the password's file {exc}") from None


def _password(data: bytes) -> str:
    try:
        password = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not text") from None
    if not password:
        raise ValueError("is empty")
    return password
