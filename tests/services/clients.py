"""Programs of other people that tests run: found, run with a home of their own, heard out when they fail."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
RUN_SECONDS: Final = 240.0


def find_program(name: str) -> Path | None:
    """The program on PATH, in ~/go/bin or in .cache/bin of the checkout; None where it is in none of them."""
    places = [
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/sbin",
        str(Path.home() / "go/bin"),
        str(CHECKOUT / ".cache/bin"),
    ]
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None


def find_newer(kind: str) -> Path | None:
    """The folder of `containerd` 2, `buildkit`, `compose` 2 or `docker` 29 as `newer.sh` built them; None where it did not.

    Below NEWER_BIN, .cache/newer of the checkout, or ~/.cache/edge-registry/newer.
    """
    named = os.environ.get("NEWER_BIN")
    places = [Path(named)] if named else [CHECKOUT / ".cache/newer", Path.home() / ".cache/edge-registry/newer"]
    return next((place / kind for place in places if (place / kind / "version").exists()), None)


def refuse(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Skips the test, or fails it under --require-clients."""
    if request.config.getoption("--require-clients"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class Client:
    """One program; `options` come before the arguments of every run, and its files stay below `home`."""

    def __init__(
        self, program: Path, home: Path, *, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "auth.json").write_text("{}")  # podman and buildah refuse a file of passwords that is not there
        self.program = program
        self.home = home
        self.options = tuple(options)
        self.environment = _private_home(home) | dict(environment or {})

    def run(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> str:
        """Runs to the end and returns standard output, stripped; fails with both outputs where the program fails."""
        done = self._run(arguments, stdin, cwd)
        called = f"{self.program.name} {' '.join(arguments)}"
        assert done.returncode == 0, f"{called}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def fail(self, *arguments: str, stdin: str = "") -> str:
        """Runs to the end, fails where the program succeeds, and returns both of its outputs."""
        done = self._run(arguments, stdin, None)
        assert done.returncode != 0, f"{self.program.name} {' '.join(arguments)} succeeded:\n{done.stdout}"
        return done.stdout + done.stderr

    def hear(self, *arguments: str) -> str:
        """Runs to the end and returns both outputs, for what clients say beside it; fails where the program fails."""
        done = self._run(arguments, "", None)
        assert done.returncode == 0, f"{self.program.name} {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _run(self, arguments: Sequence[str], stdin: str, cwd: Path | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.program), *self.options, *arguments],
            cwd=cwd or self.home,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )


def _private_home(home: Path) -> dict[str, str]:
    """An environment in which no client reads, or leaves, anything in the home of whoever runs the tests."""
    return {
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "DOCKER_CONFIG": str(home / "docker"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
    }
