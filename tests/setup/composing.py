"""docker-compose.yml in a folder of its own, brought up by a real compose on a Docker daemon with a network of its own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.services.clients import CHECKOUT, Client

UP_SECONDS: Final = 300.0
REGISTRY_IMAGE: Final = "edge-registry:local"
STORE_IMAGE: Final[str] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]["object-store"][
    "image"
]
UPSTREAM: Final = "127.0.0.1:5000"
"""Where the stand-in for Docker Hub is for clients of the daemon."""
STAND_INS: Final[dict[str, Any]] = {
    "services": {
        # The stand-in for MinIO's image has a shell and no `mc`.
        "object-store": {
            "healthcheck": {"test": ["CMD", "wget", "-q", "-O", "-", "http://127.0.0.1:9000/minio/health/ready"]}
        },
        "cache": {
            "environment": {
                "EDGE_REGISTRY_PROXY__UPSTREAMS": "[{name: docker.io, url: 'http://upstream:5045', allow_private: true}]"
            }
        },
        "upstream": {
            "image": REGISTRY_IMAGE,
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


def compose_command(docker: Path, older: Path | None) -> list[str] | None:
    """`docker compose` where that plugin is there, else `older`, which is docker-compose, if any."""
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [str(docker), "compose"]
    return None if older is None else [str(older)]


class Composition:
    """The file with its `.env` in `folder`, and the compose that runs it."""

    def __init__(self, folder: Path, command: list[str], docker: Client) -> None:
        (folder / "scripts").mkdir(parents=True)
        shutil.copy(CHECKOUT / "docker-compose.yml", folder)
        shutil.copy(CHECKOUT / "scripts/dotenv", folder / "scripts")
        (folder / "stand-ins.yml").write_text(yaml.safe_dump(STAND_INS))
        subprocess.run([folder / "scripts/dotenv"], check=True, capture_output=True)
        self._folder = folder
        self._command = [*command, "-f", "docker-compose.yml", "-f", "stand-ins.yml"]
        self._environment = docker.environment

    @property
    def secrets(self) -> dict[str, str]:
        """What scripts/dotenv wrote."""
        return dict(line.split("=", 1) for line in (self._folder / ".env").read_text().splitlines())

    def run(self, *arguments: str) -> None:
        """Runs compose in the folder; fails with what it and the containers said where it fails."""
        done = self._run(*arguments)
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """What the containers said."""
        return self._run("--profile", "cache", "logs", "--no-color").stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
