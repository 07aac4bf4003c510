"""A real CNCF Distribution for tests: an upstream to pull from, or a pull-through proxy to be compared with."""

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
import yaml

from app.tls.authority import make_certificates
from tests.services.clients import find_program, refuse
from tests.services.minio import free_port
from tests.services.process import await_answer, end
from tests.services.pushing import Pusher
from tests.services.registry import Credentials

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0


def find_distribution() -> Path | None:
    """The program: `REGISTRY_BIN`, else `registry` where other clients are found too; None where there is none."""
    named = os.environ.get("REGISTRY_BIN")
    return Path(named) if named else find_program("registry")


def need_distribution(request: pytest.FixtureRequest) -> Path:
    """The program; the test is skipped without it, or fails under --require-clients."""
    found = find_distribution()
    if found is None:
        refuse(request, "no CNCF Distribution: set REGISTRY_BIN, or put `registry` on PATH")
    return found


class Distribution:
    """One `registry serve` on a free port of 127.0.0.1 with its files in `folder`.

    `users` asks for this user's password (Basic), `tls` speaks https with certificates of an authority in `folder`,
    `proxy` makes it a pull-through proxy of the registry at that URL, logged in there as `proxy_login`; `storage` is the
    section of its configuration that names another store than a folder in `folder`.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        users: Credentials | None = None,
        tls: bool = False,
        proxy: str | None = None,
        proxy_login: Credentials | None = None,
        port: int | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.credentials = folder, users
        self._storage = storage or {"filesystem": {"rootdirectory": str(folder / "data")}}
        self.port = port or free_port()
        self.log = folder / "distribution.log"
        self._program = program
        self._certificates = make_certificates(folder / "tls", ["127.0.0.1", "localhost"]) if tls else None
        self._proxy, self._proxy_login = proxy, proxy_login
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """`address:port`, as it stands in image names."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self._certificates else 'http'}://{self.host}"

    @property
    def ca(self) -> Path | None:
        """The authority that clients must trust; None without TLS."""
        return self._certificates.ca if self._certificates else None

    @property
    def pusher(self) -> Pusher:
        """Fills it."""
        return Pusher(self.url, login=self.credentials, ca=self.ca)

    def start(self) -> "Distribution":
        """Starts the process and returns when it answers; fails with its log where it does not."""
        configuration = self.folder / "distribution.yml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OTEL_"))}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "serve", str(configuration)],
                env=environment | {"OTEL_TRACES_EXPORTER": "none"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if await_answer(self._process, self._answers, START_SECONDS):
            return self
        self.stop()
        raise AssertionError(f"Distribution did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        """Ends the process; what it holds stays, and `start` brings it back on the same port."""
        process, self._process = self._process, None
        end(process, STOP_SECONDS)

    def _configuration(self) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": self.host, "secret": "tests"}
        if self._certificates:
            http["tls"] = {"certificate": str(self._certificates.certificate), "key": str(self._certificates.key)}
        written: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {**self._storage, "delete": {"enabled": True}},
            "http": http,
        }
        if self.credentials:
            written["auth"] = {"htpasswd": {"realm": "upstream", "path": str(self._htpasswd(self.credentials))}}
        if self._proxy:
            login = self._proxy_login
            given = {"username": login.name, "password": login.password} if login else {}
            written["proxy"] = {"remoteurl": self._proxy, **given}
        return written

    def _htpasswd(self, user: Credentials) -> Path:
        file = self.folder / "htpasswd"
        file.write_text(f"{user.name}:{bcrypt.hashpw(user.password.encode(), bcrypt.gensalt(4)).decode()}\n")
        return file

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        try:
            with urllib.request.urlopen(self.url + "/v2/", timeout=5, context=context):
                return True
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code == 401
        except OSError:
            return False

    def __enter__(self) -> "Distribution":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
