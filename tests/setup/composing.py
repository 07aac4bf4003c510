"""docker-compose.yml in a folder of its own, brought up by a real compose on a Docker daemon with a network of its own."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.services.clients import CHECKOUT, Client

UP_SECONDS: Final = 300.0
REGISTRY_IMAGE: Final = "edge-registry:local"
BASE_IMAGE: Final = "edge-registry:base"
"""What the stand-in for the Dockerfile builds that image from: all of it."""
STORE_IMAGE: Final[str] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]["object-store"][
    "image"
]
UPSTREAM: Final = "127.0.0.1:5000"
"""Where the stand-in for Docker Hub is for clients of the daemon."""
OFTEN: Final = {"interval": "1s", "retries": 60}
STAND_INS: Final[dict[str, Any]] = {
    "services": {
        # The stand-in for MinIO's image has a shell and no `mc`.
        "object-store": {
            "healthcheck": OFTEN
            | {"test": ["CMD", "wget", "-q", "-O", "-", "http://127.0.0.1:9000/minio/health/ready"]}
        },
        "registry": {"healthcheck": OFTEN},
        "cache": {
            "healthcheck": OFTEN,
            "environment": {
                "EDGE_REGISTRY_PROXY__UPSTREAMS": "[{name: docker.io, url: 'http://upstream:5045', allow_private: true}]"
            },
        },
        "upstream": {
            "image": BASE_IMAGE,
            "profiles": ["cache"],
            "environment": {
                "EDGE_REGISTRY_HTTP__HOST": "0.0.0.0",
                "EDGE_REGISTRY_AUTH__ANONYMOUS": "push",
                "EDGE_REGISTRY_STORAGE__DRIVER": "filesystem",
            },
            "ports": [f"{UPSTREAM}:5045"],
        },
    }
}
"""What takes the place of what cannot be had without a way out."""
# The file's ports are fixed, so the daemon gets a network namespace, where nobody else has them.
ALONE: Final = '#!/bin/sh\nexec unshare --net sh -c \'ip link set lo up && exec "$0" "$@"\' {program} "$@"\n'


def alone(folder: Path, dockerd: Path) -> Path:
    """A program that runs `dockerd` in a network namespace of its own, in `folder`."""
    script = folder / "dockerd-alone"
    script.write_text(ALONE.format(program=dockerd))
    script.chmod(0o755)
    return script


def install_plugin(docker: Client, compose: Path) -> list[str]:
    """Makes the program `compose` the client's `docker compose`, and returns that command."""
    plugins = Path(docker.environment["DOCKER_CONFIG"]) / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(compose)
    return [str(docker.program), "compose"]


class Composition:
    """The file with its `.env` in `folder`, and the compose that runs it; `waits`: it knows `up --wait`."""

    def __init__(self, folder: Path, command: list[str], docker: Client, *, waits: bool) -> None:
        (folder / "scripts").mkdir(parents=True)
        shutil.copy(CHECKOUT / "docker-compose.yml", folder)
        shutil.copy(CHECKOUT / "scripts/dotenv", folder / "scripts")
        (folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\n")
        (folder / "stand-ins.yml").write_text(yaml.safe_dump(STAND_INS))
        subprocess.run([folder / "scripts/dotenv"], check=True, capture_output=True)
        self.waits = waits
        self._folder = folder
        self._compose = command
        self._command = [*command, "-f", "docker-compose.yml", "-f", "stand-ins.yml"]
        self._environment = docker.environment

    @property
    def secrets(self) -> dict[str, str]:
        """What scripts/dotenv wrote."""
        return dict(line.split("=", 1) for line in (self._folder / ".env").read_text().splitlines())

    def run(self, *arguments: str) -> str:
        """Runs compose in the folder and returns both of its outputs; fails with them and what the containers said."""
        done = self._run(*arguments)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {said}\n{self.logs()}"
        return said

    def check(self, *arguments: str) -> str:
        """What `config --quiet` says of the file as it is published, without any of the stand-ins."""
        done = self._run(*arguments, "config", "--quiet", command=self._compose)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def logs(self) -> str:
        """What the containers said."""
        return self._run("--profile", "cache", "logs", "--no-color").stdout

    def _run(self, *arguments: str, command: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(command or self._command), *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
