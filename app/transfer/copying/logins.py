"""Logins that people have on this machine already: what docker, podman and skopeo wrote down when they logged in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from app.proxy.credentials.files import ConfigFile
from app.proxy.credentials.login import Credentials, Login
from app.proxy.credentials.static import Anonymous
from app.proxy.errors import Denied

_HELPER_LIFETIME: Final = 600.0


class FirstOf:
    """The login of the first of several sources that has one."""

    identity = "files"

    def __init__(self, sources: Sequence[Credentials]) -> None:
        self._sources = sources

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        refused: Denied | None = None
        for source in self._sources:
            try:
                found = await source.login(host, renew=renew)
            except Denied as exc:  # the helper of one file is not here: another file may have the login
                refused = exc
                continue
            if found is not None:
                return found
        if refused is not None:
            raise refused
        return None


def own_logins(environment: Mapping[str, str], home: Path) -> Credentials:
    """Those of the files that exist, in the order in which skopeo looks. Reads them, blocking. Raises StartError."""
    files = [path for path in _places(environment, home) if path.is_file()]
    return FirstOf([ConfigFile(path, _HELPER_LIFETIME) for path in files]) if files else Anonymous()


def logins_of(file: Path) -> Credentials:
    """Those of one file. Reads it, blocking. Raises StartError."""
    return ConfigFile(file, _HELPER_LIFETIME)


def _places(environment: Mapping[str, str], home: Path) -> Sequence[Path]:
    named, docker, run = (environment.get(key) for key in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"))
    return [
        *([Path(named)] if named else []),
        *([Path(run) / "containers" / "auth.json"] if run else []),
        home / ".config" / "containers" / "auth.json",
        (Path(docker) if docker else home / ".docker") / "config.json",
    ]
