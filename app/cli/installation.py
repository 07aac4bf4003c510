"""An installation as its configuration describes it, in the words of `app.doctor`."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from pydantic import SecretStr

from app import configuration, fields
from app.configuration import Configuration
from app.doctor.configuration import NamedFile, Way
from app.doctor.names import Host
from app.doctor.port import Place
from app.doctor.report import failed, warning
from app.doctor.store import Opened, open_bucket, open_folder
from app.errors import StartError
from app.mistakes import redacted
from app.settings import Listener, Settings

_FOLDERS: Final = frozenset({"storage.filesystem.root", "proxy.spool.folder"})
_SECRET_FILES: Final = ("password_file", "tls.key", "auth.htpasswd", "credentials.config", "google.file")
_FROM_FILE: Final = "_FILE"


class Installation:
    """What a configuration says. `refusal` is why a server would not start with it, a line for each reason."""

    def __init__(self, found: Configuration) -> None:
        """Reads nothing."""
        self._found = found
        self.refusal: str | None = None
        self.settings: Settings = found.settings
        try:
            self.settings = configuration.resolve(found.settings)
        except StartError as exc:
            self.refusal = str(exc)
        self.warnings = found.warnings

    @property
    def users(self) -> bool:
        """Whether there is a file of users."""
        return self.settings.auth.htpasswd is not None

    def summary(self) -> str:
        """How many settings come from where."""
        origins = [origin for origin in self._found.origins.values() if origin != "default"]
        kinds = [origin if origin.startswith("file ") else origin.partition(" ")[0] for origin in origins]
        said = ", ".join(f"{kinds.count(kind)} from {kind}" for kind in dict.fromkeys(kinds))
        return said or "defaults only"

    def listeners(self) -> list[tuple[Listener, Place]]:
        """Where the server listens."""
        found = self.settings.listening()
        return [(one, Place(one.key, one.host, one.port, one.tls)) for one in found]

    def ways(self) -> list[Way]:
        """Who may come in where."""
        return [
            Way(
                one.key,
                one.host,
                one.port,
                configuration.is_loopback(one.host),
                one.anonymous,
                not one.open_door,
                one.read_only,
            )
            for one in self.settings.listening()
        ]

    def hosts(self, named: Sequence[str], *, tls: bool | None = None) -> list[Host]:
        """The registry's names: those of the options, and that of http.public_url.

        `tls` is how the former are spoken to, where that is known better than from the configuration.
        """
        public = urlsplit(self.settings.http.public_url or "")
        if tls is None:
            tls = public.scheme == "https" or any(one.tls for one in self.settings.listening())
        found = [Host(public.netloc, public.scheme)] if public.netloc else []
        found += [Host(name, "https" if tls else "http") for name in named]
        return list({host.text: host for host in found}.values())

    def files(self) -> list[NamedFile]:
        """The files that are named in it, and the file that it is itself where secrets stand in it, blocking."""
        found = []
        for leaf in fields.leaves(self.settings):
            if not isinstance(leaf.value, Path) or not leaf.given or leaf.key == "storage.filesystem.root":
                continue
            secret = leaf.key.endswith(_SECRET_FILES)
            found.append(
                NamedFile(leaf.key, leaf.value, secret=secret, kind="folder" if leaf.key in _FOLDERS else "file")
            )
        found += [NamedFile("configuration", path, secret=self._holds_secrets(path)) for path in self._documents()]
        return [*found, *(NamedFile(name, path, secret=True) for name, path in self._secret_files())]

    def secrets(self) -> Iterator[str]:
        """Every secret that is known here, so that none of them gets into a bundle; blocking."""
        for leaf in fields.leaves(self.settings):
            if isinstance(leaf.value, SecretStr):
                yield leaf.value.get_secret_value()
            elif isinstance(leaf.value, Path) and leaf.key.endswith("password_file"):
                yield _text(leaf.value).strip()

    def page(self) -> str:
        """What is configured, without secrets, a setting a line."""
        lines = []
        for leaf in fields.leaves(self.settings):
            origin = self._found.origins.get(leaf.root, "default")
            origin = origin if leaf.key == leaf.root or leaf.given else "default"
            value = "****" if isinstance(leaf.value, SecretStr) else redacted(str(leaf.value))
            lines.append(f"{leaf.key} = {value}  # {origin}")
        return "\n".join(lines) + "\n"

    def _documents(self) -> list[Path]:
        origins = {origin for origin in self._found.origins.values() if origin.startswith("file ")}
        return [Path(origin.removeprefix("file ")) for origin in sorted(origins)]

    def _secret_files(self) -> Iterator[tuple[str, Path]]:
        """Files that hold one secret each: `..._FILE` in the environment, `..._file` in YAML."""
        for key, origin in self._found.origins.items():
            name = origin.removeprefix("environment ")
            if origin.startswith("environment ") and name.endswith(_FROM_FILE) and name in os.environ:
                yield key, Path(os.environ[name])
        known = fields.roots(Settings)
        for path in self._documents():
            for key, value in _walk(_parsed(path)):
                if key.endswith("_file") and key.removesuffix("_file") in known and isinstance(value, str):
                    yield key, Path(value)

    def _holds_secrets(self, path: Path) -> bool:
        text = _text(path)
        return any(
            isinstance(leaf.value, SecretStr) and leaf.value.get_secret_value() in text
            for leaf in fields.leaves(self.settings)
        )


def chain_of(settings: Settings) -> list[x509.Certificate]:
    """The server's certificate and what stands behind it, blocking; empty where there is none that can be read."""
    path = settings.http.tls.certificate
    try:
        return x509.load_pem_x509_certificates(path.read_bytes()) if path else []
    except (OSError, ValueError):
        return []


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Opened]:
    """The store that the settings choose, with nothing made in it that a server would make at its start."""
    if settings.storage.driver == "memory":
        found = warning("memory", "everything is gone when the server stops", "set storage.driver: filesystem, or s3")
        yield Opened(None, None, (found,))
        return
    from app.main import open_driver  # what needs no store need not wait for the web framework

    s3 = settings.storage.s3
    storage = settings.storage.model_copy(update={"s3": s3.model_copy(update={"create_bucket": False})})
    try:
        driver = open_driver(settings.model_copy(update={"storage": storage}))
    except StartError as exc:
        yield Opened(None, None, (failed("credentials", str(exc), "set both storage.s3.access_key and secret_key"),))
        return
    root = storage.filesystem.root
    async with open_bucket(driver, s3) if storage.driver == "s3" else open_folder(driver, root) as opened:
        yield opened


def _parsed(path: Path) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError):
        return None


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{prefix}{name}", value
        yield from _walk(value, f"{prefix}{name}.")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
