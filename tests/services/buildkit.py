"""A BuildKit of a test's own: its daemon, on a node's files where there is a node, and builds by its client."""

import base64
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from tests.nodes.roots import make_root, program
from tests.services.clients import Client
from tests.services.daemons import Daemon
from tests.services.registry import Credentials

RESOLVING: Final = ("passwd", "group", "nsswitch.conf")
"""Files of /etc that a node has from this machine."""
CONFIG: Final = "/etc/buildkit/buildkitd.toml"


class BuildkitDaemon(Daemon):
    """A buildkitd on a node: the /etc of the root `node` stands in place of this machine's, buildkitd.toml and all.

    `programs` is the folder of buildkitd and buildctl. Steps run with runc, in the machine's own network. Its mounts are
    in a namespace of its own, and go with it, killed or not.
    """

    def __init__(
        self, folder: Path, programs: Path, runc: Path, *, node: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, "buildkitd")
        self._programs, self._runc, self._node = programs, runc, node
        self._surroundings = dict(environment or {})

    @property
    def client(self) -> Mapping[str, str]:
        return {"BUILDKIT_HOST": f"unix://{self.socket}"}

    def _environment(self) -> Mapping[str, str]:
        return self._surroundings

    def _command(self) -> list[str]:
        daemon = [
            *(str(self._programs / "buildkitd"), "--config", CONFIG, "--cdi-disabled"),
            *("--addr", f"unix://{self.socket}", "--root", str(self.folder / "root")),
            *("--containerd-worker=false", "--oci-worker=true", "--oci-worker-snapshotter=native"),
            *("--oci-worker-net=host", f"--oci-worker-binary={self._runc}"),
        ]
        inner = f'mount --bind {self._node}/etc /etc && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", inner, "sh", *daemon]

    def _probe(self) -> list[str]:
        return [str(self._programs / "buildctl"), "debug", "workers"]

    def kill(self) -> None:
        """SIGKILL; returns once the process has ended. Its files stay, for `start`."""
        assert self._process is not None, "buildkitd was not started"
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Brings it back after `kill`; returns when it answers."""
        self._start()


@dataclass(frozen=True, slots=True)
class Built:
    """The digest that a build exported, "" where it exported none, and the lines in which BuildKit said how."""

    digest: str
    said: str


class Builder:
    """Builds Dockerfiles in the running `daemon` by a buildctl with a home of its own, and with its logins."""

    def __init__(self, daemon: BuildkitDaemon, client: Client) -> None:
        self.daemon = daemon
        self._client = client

    def log_in(self, host: str, user: Credentials) -> None:
        """Leaves a login where `docker login` does."""
        folder = self._client.home / "docker"
        folder.mkdir(exist_ok=True)
        pair = base64.b64encode(f"{user.name}:{user.password}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))

    def build(self, context: Path, *options: str) -> Built:
        """Builds the Dockerfile in a folder; fails with what was said where that fails. `push` makes an option."""
        metadata = self._client.home / f"{secrets.token_hex(4)}.json"
        said = self._client.hear(*_build(context, options), "--metadata-file", str(metadata))
        found = json.loads(metadata.read_text()) if metadata.exists() else {}
        return Built(str(found.get("containerimage.digest", "")), said)

    def try_build(self, context: Path, *options: str) -> Built | None:
        """Builds it; None where that fails."""
        try:
            return self.build(context, *options)
        except AssertionError:
            return None

    def fail(self, context: Path, *options: str) -> str:
        """Builds it, fails where that succeeds, and returns what was said."""
        return self._client.fail(*_build(context, options))


def _build(context: Path, options: Sequence[str]) -> list[str]:
    local = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    return ["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *options]


StartBuilder = Callable[..., Builder]
"""`start(node, environment=None)`: another BuildKit, empty, on a node, its daemon with this in its environment."""


@contextmanager
def open_builders(programs: Path, runc: Path, folder: Path) -> Iterator[StartBuilder]:
    """What starts builders, and ends them all; `programs` is the folder of buildkitd and buildctl."""
    with ExitStack() as stack:

        def start(node: Path, environment: Mapping[str, str] | None = None) -> Builder:
            place = Path(tempfile.mkdtemp(prefix="builder-", dir=folder))
            daemon = BuildkitDaemon(place, programs, runc, node=node, environment=environment)
            stack.enter_context(daemon)
            return Builder(daemon, Client(programs / "buildctl", place / "home", environment=daemon.client))

        yield start


def push(name: str, *options: str) -> str:
    """The option that pushes a build as `name`."""
    return ",".join([f"--output=type=image,name={name},push=true", *options])


def make_context(folder: Path, dockerfile: str, files: Mapping[str, bytes] | None = None) -> Path:
    """A folder to build from, new or again; every file in it can be executed. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {"Dockerfile": dockerfile.encode(), **(files or {})}.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755)
    return folder


def make_node(folder: Path, *options: str) -> Path:
    """The root of a node as a person leaves it who does for BuildKit what `node-config` prints with these options.

    The script that is printed is run, and what it says to add to buildkitd.toml is added.
    """
    files = {f"etc/{name}": Path("/etc", name).read_text() for name in RESOLVING if Path("/etc", name).exists()}
    node = make_root(folder / "node", {"etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": "", **files})
    printed = program("node-config", "--for", "buildkit", *options, cwd=folder)
    assert printed.status == 0, printed.stderr
    Client(Path("/bin/sh"), folder / "home-sh", environment={"ROOT": str(node)}).run("-s", stdin=printed.stdout)
    _, marked, rest = printed.stdout.partition(f"# {CONFIG}: add to it")
    assert marked, printed.stdout
    sections = takewhile(lambda line: line == "#" or line.startswith("#   "), rest.splitlines()[1:])
    return make_root(node, {CONFIG.lstrip("/"): "".join(f"{line[4:]}\n" for line in sections)})
