"""Daemons that container clients need: started, awaited, stopped, each with its files in a folder of its own."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.services.process import await_answer, end

START_SECONDS: Final = 40.0
STOP_SECONDS: Final = 20.0
SHORT: Final = Path("/tmp")
"""Where sockets are: the temporary folders of a test's own are too deep for them, and so can TMPDIR be."""
SOCKET_BYTES: Final = 107
"""How long the path of a unix socket may be on Linux."""

_FOR_KUBERNETES: Final = (
    *("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"),
    "io.containerd.nri.v1.nri",
)
_NATIVE: Final = """[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "native"
differ = "walking"
"""
"""Lets what containerd 2 pulls be unpacked by the snapshotter that works wherever a folder does; 1.6 does not read it."""


class Daemon:
    """A program that listens on the unix socket `socket` while it is entered. Needs root.

    Its files and its log stay in `folder`; its sockets are in a new folder below `short`, which goes when it ends.
    """

    def __init__(self, folder: Path, name: str, *, short: Path = SHORT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._sockets = tempfile.TemporaryDirectory(prefix="er-", dir=short)
        self.sockets = Path(self._sockets.name)
        self.socket = self.sockets / f"{name}.sock"
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Mapping[str, str]:
        """The environment that makes its client talk to it."""
        raise NotImplementedError

    def _longest(self) -> Path:
        """The socket with the longest path."""
        return self.socket

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _probe(self) -> list[str]:
        """A program that succeeds once the daemon answers."""
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        return {}

    def __enter__(self) -> Self:
        """Returns when the daemon answers; fails with its log where it does not."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        longest = os.fsencode(self._longest())
        assert len(longest) <= SOCKET_BYTES, (
            f"{self._name} cannot start: a socket's path may have {SOCKET_BYTES} bytes, and {os.fsdecode(longest)} "
            f"has {len(longest)}"
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=os.environ | dict(self._environment()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if not await_answer(self._process, self._answers, START_SECONDS):
            raise AssertionError(f"{self._name} did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def _answers(self) -> bool:
        done = subprocess.run(
            self._probe(), env=os.environ | self.client, capture_output=True, timeout=START_SECONDS, check=False
        )
        return done.returncode == 0

    def _stop(self) -> None:
        process, self._process = self._process, None
        end(process, STOP_SECONDS)
        for mounted in _mounts_below(self.sockets):  # a daemon that had to be killed leaves some
            subprocess.run(["umount", "--lazy", mounted], check=False)
        self._sockets.cleanup()


class DockerDaemon(Daemon):
    """A Docker daemon without any network of its own; registries on 127.0.0.0/8 may speak plain HTTP.

    `mirrors` are URLs of mirrors of Docker Hub, `environment` is of the daemon. `small`: the images have a few
    megabytes; else the daemon may choose how it stores them. `snapshotter`: the one of containerd that is to be used,
    with containerd's store of images in place of Docker's own; the daemon takes the containerd that is first on PATH.
    """

    def __init__(
        self,
        folder: Path,
        dockerd: Path,
        docker: Path,
        *,
        mirrors: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        small: bool = True,
        snapshotter: str | None = None,
    ) -> None:
        super().__init__(folder, "dockerd")
        self._dockerd, self._docker = dockerd, docker
        self._mirrors, self._small, self._snapshotter = mirrors, small, snapshotter
        self._surroundings = dict(environment or {})

    @property
    def address(self) -> str:
        """As `docker --host` takes it."""
        return f"unix://{self.socket}"

    @property
    def client(self) -> Mapping[str, str]:
        # What builds by default needs a plugin.
        return {"DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}

    def _longest(self) -> Path:
        return self.sockets / "exec/containerd/containerd-debug.sock"

    def _environment(self) -> Mapping[str, str]:
        return self._surroundings

    def _command(self) -> list[str]:
        return [
            *(str(self._dockerd), "--host", self.address, "--pidfile", str(self.folder / "dockerd.pid")),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.sockets / "exec")),
            *self._storage(),
            *("--bridge", "none", "--insecure-registry", "127.0.0.0/8"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *(f"--registry-mirror={mirror}" for mirror in self._mirrors),
        ]

    def _storage(self) -> Sequence[str]:
        if self._snapshotter:
            return ("--storage-driver", self._snapshotter, "--feature", "containerd-snapshotter")
        # vfs works wherever a folder does, and copies every file for every container.
        return ("--storage-driver", "vfs") if self._small else ()

    def _probe(self) -> list[str]:
        return [str(self._docker), "version"]


class ContainerdDaemon(Daemon):
    """A containerd of either generation without Kubernetes' part; `environment` is of the daemon.

    Generation 2 pulls and pushes by itself where the first lets `ctr` do it, so it also needs to know the way out.
    """

    def __init__(
        self,
        folder: Path,
        containerd: Path,
        ctr: Path,
        *,
        environment: Mapping[str, str] | None = None,
        short: Path = SHORT,
    ) -> None:
        super().__init__(folder, "containerd", short=short)
        self.ctr = ctr
        self._containerd = containerd
        self._surroundings = dict(environment or {})

    @property
    def client(self) -> Mapping[str, str]:
        return {"CONTAINERD_ADDRESS": str(self.socket), "CONTAINERD_SNAPSHOTTER": "native"}

    def _longest(self) -> Path:
        return Path(f"{self.socket}.ttrpc")

    def _environment(self) -> Mapping[str, str]:
        # The shim beside ctr belongs to this containerd; that of a package may be of another generation.
        path = os.pathsep.join([str(self.ctr.parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return self._surroundings | {"PATH": path}

    def _command(self) -> list[str]:
        configuration = self.folder / "config.toml"
        configuration.write_text(
            f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/state"\n'
            f"disabled_plugins = {list(_FOR_KUBERNETES)}\n"
            f'[grpc]\naddress = "{self.socket}"\n[ttrpc]\naddress = "{self.socket}.ttrpc"\n{_NATIVE}'
        )
        return [str(self._containerd), "--config", str(configuration)]

    def _probe(self) -> list[str]:
        return [str(self.ctr), "version"]


def _mounts_below(folder: Path) -> list[str]:
    """The deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
