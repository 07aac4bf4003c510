"""A second machine, beside the cluster, on which people work with Docker."""

import time
from pathlib import Path
from typing import Final

from tests.services.archives import Layer, write_archive
from tests.services.cluster.node import Node
from tests.services.cluster.programs import installed
from tests.services.images import EXECUTABLE
from tests.services.registry import Credentials, command

START_SECONDS: Final = 40.0
DAEMON: Final = (
    # It runs no containers: it needs no network of its own, and vfs works wherever a folder does.
    *("--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false"),
    *("--ip-forward=false", "--ip-masq=false"),
)


class DockerMachine:
    """Has its own network, /etc and Docker daemon while entered; its files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder)

    def __enter__(self) -> "DockerMachine":
        self.node.start()
        try:
            self.node.spawn("dockerd", installed("dockerd"), *DAEMON)
            self._await()
        except BaseException:
            self.node.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.node.stop()

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Runs `docker` and returns standard output; fails where it fails."""
        return self.node.run(installed("docker"), *arguments, stdin=stdin, environment=self._environment)

    def fail(self, *arguments: str) -> str:
        """Runs `docker`, fails where it succeeds, and returns both of its outputs."""
        done = self.node.attempt(installed("docker"), *arguments, environment=self._environment)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def trust(self, host: str, ca: Path) -> None:
        """Does what `edge-registry node-config` says for Docker, by running what it prints."""
        said = command("node-config", "--for", "docker", "--host", host, "--ca", str(ca))
        self.node.run("sh", "-s", stdin=said)

    def push(self, program: Path, target: str, user: Credentials) -> None:
        """Loads an image of `program`, new each time, logs in, tags it `host:port/name:tag` and pushes it."""
        archive = self.node.folder / "image.tar"
        layer = archive.with_suffix(".layer")
        with Layer(layer) as files:
            files.copy(program, program.name, mode=EXECUTABLE)
            files.write("made", str(time.time_ns()).encode())
        write_archive(archive, "made:here", [layer], {"Entrypoint": [f"/{program.name}"]})
        self.run("login", "--username", user.name, "--password-stdin", target.partition("/")[0], stdin=user.password)
        self.run("load", "--input", str(archive))
        self.run("tag", "made:here", target)
        self.run("push", "--quiet", target)

    @property
    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.node.folder), "DOCKER_CONFIG": str(self.node.folder / "docker")}

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.node.attempt(installed("docker"), "version", environment=self._environment).returncode:
            self.node.check_alive()
            assert time.monotonic() < deadline, f"the Docker daemon does not answer; logs: {self.node.folder}"
            time.sleep(0.1)
