"""Daemons that container clients need, each in a folder of its own: started, awaited, stopped."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

START_SECONDS: Final = 40.0
STOP_SECONDS: Final = 20.0


class Daemon:
    """A process that is up once the unix socket `socket` answers `probe`; its log stays in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], probe: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts `command` and returns when `probe` succeeds; fails with the log where it does not."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0:
                return
            time.sleep(0.1)
        self.stop()
        raise AssertionError(f"{self._name} did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns once the process has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class DockerDaemon(Daemon):
    """A Docker daemon without any network of its own; registries on 127.0.0.0/8 may speak plain HTTP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "dockerd")
        self.address = f"unix://{self.socket}"

    def run(
        self,
        dockerd: Path,
        docker: Path,
        *,
        mirrors: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        small: bool = True,
    ) -> "DockerDaemon":
        """Starts it and the containerd that it brings. Needs root. `mirrors` are URLs of mirrors of Docker Hub.

        `small`: the images have a few megabytes; else the daemon may choose how it stores them.
        """
        command = [
            *(str(dockerd), "--host", self.address, "--pidfile", str(self.folder / "dockerd.pid")),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
            # vfs works wherever a folder does, and copies every file for every container.
            *(("--storage-driver", "vfs") if small else ()),
            *("--bridge", "none", "--insecure-registry", "127.0.0.0/8"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *(f"--registry-mirror={mirror}" for mirror in mirrors),
        ]
        self.start(command, [str(docker), "--host", self.address, "version"], environment)
        return self


class ContainerdDaemon(Daemon):
    """A containerd without Kubernetes' part."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "containerd")

    def run(self, containerd: Path, ctr: Path) -> "ContainerdDaemon":
        """Starts it. Needs root."""
        configuration = self.folder / "config.toml"
        configuration.write_text(
            f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.socket}"\n[ttrpc]\naddress = "{self.socket}.ttrpc"\n'
        )
        self.start(
            [str(containerd), "--config", str(configuration)], [str(ctr), "--address", str(self.socket), "version"]
        )
        return self
