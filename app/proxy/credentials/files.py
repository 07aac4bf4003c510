"""Logins out of docker's config.json or podman's auth.json, and the helpers that those name."""

from pathlib import Path

from app.proxy.credentials.config import Config, parse
from app.proxy.credentials.helper import Helper
from app.proxy.credentials.login import Login
from app.proxy.credentials.watched import Unreadable, Watched
from app.proxy.errors import Denied


class ConfigFile:
    """One such file, read again when it changes."""

    def __init__(self, path: Path, helper_lifetime: float) -> None:
        """Reads the file, blocking; `helper_lifetime` in seconds. Raises StartError."""
        self.identity = f"config:{path.name}"
        self._file = Watched(path, parse)
        self._name = path.name
        self._helper_lifetime = helper_lifetime
        self._helpers: dict[str, Helper] = {}

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        try:
            config = await self._file.now(renew=renew)
        except Unreadable as exc:
            raise Denied(f"{host}: the file of logins {exc}") from None
        name = config.helper(host)
        if name is None:
            return self._written(config, host)
        try:
            return await self._helper(name).login(host, renew=renew) or self._written(config, host)
        except Denied:  # a file that was copied names helpers that are not here
            if (login := self._written(config, host)) is not None:
                return login
            raise

    def _written(self, config: Config, host: str) -> Login | None:
        try:
            return config.login(host)
        except ValueError as exc:
            raise Denied(f"{host}: its entry in {self._name} {exc}") from None

    def _helper(self, name: str) -> Helper:
        if name not in self._helpers:
            self._helpers[name] = Helper(name, self._helper_lifetime)
        return self._helpers[name]
