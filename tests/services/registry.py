"""A real Edge Registry process for tests: started, asked over HTTP, stopped or killed."""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.services.minio import free_port
from tests.services.process import await_answer

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = (sys.executable, "-m", "app")
START_SECONDS: Final = 100.0
"""Nobody promises how soon it is ready, and with all of CI's tests beside it that took 30; one that fails ends at once."""
STOP_SECONDS: Final = 45.0
COMMAND_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the registry under test."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registry said; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def filesystem_store(root: Path) -> dict[str, str]:
    """The environment that makes a registry keep everything below `root`."""
    return {"EDGE_REGISTRY_STORAGE__DRIVER": "filesystem", "EDGE_REGISTRY_STORAGE__FILESYSTEM__ROOT": str(root)}


def s3_store(endpoint: str, bucket: str, access_key: str, secret_key: str) -> dict[str, str]:
    """The environment that makes a registry keep everything in `bucket`, which it creates; `endpoint` is a URL."""
    return {
        "EDGE_REGISTRY_STORAGE__DRIVER": "s3",
        "EDGE_REGISTRY_STORAGE__S3__ENDPOINT": endpoint,
        "EDGE_REGISTRY_STORAGE__S3__BUCKET": bucket,
        "EDGE_REGISTRY_STORAGE__S3__ACCESS_KEY": access_key,
        "EDGE_REGISTRY_STORAGE__S3__SECRET_KEY": secret_key,
        "EDGE_REGISTRY_STORAGE__S3__CREATE_BUCKET": "true",
    }


def own_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of a registry, plus `settings`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_REGISTRY_", "REGISTRY_"))}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(settings)


def command(*arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None, status: int = 0) -> str:
    """Runs one `edge-registry` command to its end and returns its output; fails with that where it ends otherwise."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=CHECKOUT,
        env=own_environment(settings or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == status, (
        f"edge-registry {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
    )
    return done.stdout


class RegistryServer:
    """One `edge-registry serve` on a free port of 127.0.0.1, its log in `folder`.

    `store` is what `filesystem_store` or `s3_store` returned; `users` and `tls` switch on passwords and TLS, with a
    users' file and certificates that the registry's own commands make in `folder`; `settings` are further variables.
    """

    def __init__(
        self,
        folder: Path,
        store: Mapping[str, str],
        *,
        users: Credentials | None = None,
        tls: bool = False,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.credentials = users
        self.port = port or free_port()
        self.log = folder / "registry.log"
        self.certificates = folder / "certificates" if tls else None
        self._environment = {"EDGE_REGISTRY_HTTP__HOST": "127.0.0.1", "EDGE_REGISTRY_HTTP__PORT": str(self.port)}
        self._environment |= dict(store) | self._users(users) | self._tls() | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def _users(self, users: Credentials | None) -> dict[str, str]:
        if users is None:
            return {}
        file = self.folder / "htpasswd"
        command("user", "add", users.name, "--password-stdin", "--file", str(file), stdin=users.password + "\n")
        return {"EDGE_REGISTRY_AUTH__HTPASSWD": str(file)}

    def _tls(self) -> dict[str, str]:
        if self.certificates is None:
            return {}
        names = ("--name", "127.0.0.1", "--name", "localhost")
        command("setup", "certs", *names, "--folder", str(self.certificates))
        return {
            "EDGE_REGISTRY_HTTP__TLS__CERTIFICATE": str(self.certificates / "server.crt"),
            "EDGE_REGISTRY_HTTP__TLS__KEY": str(self.certificates / "server.key"),
        }

    @property
    def host(self) -> str:
        """`address:port`, as it stands in image names."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self.certificates else 'http'}://{self.host}"

    @property
    def ca(self) -> Path | None:
        """The authority that clients must trust; None without TLS."""
        return self.certificates / "ca.crt" if self.certificates else None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the registry was not started"
        return self._process.pid

    def start(self) -> "RegistryServer":
        """Starts the process and returns when /readyz says 200; fails with the log where it does not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, "serve"],
                cwd=CHECKOUT,
                env=own_environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if await_answer(self._process, self._is_ready, START_SECONDS):
            return self
        code = self._process.poll()
        self.kill()
        raise AssertionError(f"the registry did not become ready (exit status {code}):\n{self.read_log()}")

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz").status == 200
        except OSError:
            return False

    def stop(self) -> int:
        """SIGTERM; returns the exit status once the process has ended, and fails where it does not end."""
        assert self._process is not None, "the registry was not started"
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the registry did not stop:\n{self.read_log()}") from None

    def kill(self) -> None:
        """SIGKILL; returns once the process has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def read_log(self) -> str:
        """What the process wrote so far."""
        return self.log.read_text(errors="replace")

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request with the server's own credentials; `path` begins with a slash. Raises OSError."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=dict(headers or {}))
        if self.credentials:
            pair = f"{self.credentials.name}:{self.credentials.password}".encode()
            request.add_header("Authorization", "Basic " + base64.b64encode(pair).decode())
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return Answer(answer.status, _lower(answer.headers), answer.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, _lower(refusal.headers), refusal.read())

    def __enter__(self) -> "RegistryServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
