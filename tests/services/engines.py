"""Fixtures: other people's container programs, with daemons that are started once a module."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.services.clients import Client, find_newer, find_program, refuse
from tests.services.daemons import SHORT, ContainerdDaemon, DockerDaemon

MakeClient = Callable[..., Client]
"""`make_client(name, options=(), environment=None)`."""


@pytest.fixture(scope="session")
def need(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds a program, or skips the test."""

    def find(name: str) -> Path:
        found = find_program(name)
        if found is None:
            refuse(request, f"{name} is not installed")
        return found

    return find


@pytest.fixture(scope="session")
def need_newer(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds the folder of clients that are newer than Debian's, or skips the test."""

    def find(kind: str) -> Path:
        found = find_newer(kind)
        if found is None:
            refuse(request, f"{kind} is not built: run tests/services/newer.sh .cache/newer")
        return found

    return find


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> None:
    """Skips tests that start daemons, or containers, where the tests do not run as root."""
    if os.geteuid() != 0:
        refuse(request, "not root: daemons and containers cannot be started")


@pytest.fixture(scope="module")
def surroundings() -> Mapping[str, str]:
    """What daemons and clients have in their environment besides; for modules to say otherwise."""
    return {}


@pytest.fixture(scope="module")
def mirrors() -> Sequence[str]:
    """URLs of Docker's mirrors of Docker Hub; for modules to say otherwise."""
    return ()


@pytest.fixture
def make_client(need: Callable[[str], Path], tmp_path: Path, surroundings: Mapping[str, str]) -> MakeClient:
    """Makes a client with a home of its own."""

    def make(name: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Client:
        whole = {**surroundings, **(environment or {})}
        return Client(need(name), tmp_path / f"home-{name}", options=options, environment=whole)

    return make


@pytest.fixture(scope="module")
def dockerd(
    root: None,
    need: Callable[[str], Path],
    mirrors: Sequence[str],
    surroundings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DockerDaemon]:
    """Docker, which no other module's tests have anything in."""
    folder = tmp_path_factory.mktemp("dockerd")
    with DockerDaemon(folder, need("dockerd"), need("docker"), mirrors=mirrors, environment=surroundings) as daemon:
        yield daemon


@pytest.fixture
def docker(dockerd: DockerDaemon, make_client: MakeClient) -> Client:
    """The client of that Docker."""
    return make_client("docker", (), dockerd.client)


@pytest.fixture(scope="module", params=["1", "2"])
def generation(request: pytest.FixtureRequest) -> str:
    """Both generations of containerd in turn: Debian's, and the one that `newer.sh` builds."""
    return str(request.param)


@pytest.fixture(scope="module")
def containerd_programs(
    generation: str, need: Callable[[str], Path], need_newer: Callable[[str], Path]
) -> tuple[Path, Path]:
    """The containerd of that generation and its ctr."""
    if generation == "1":
        return need("containerd"), need("ctr")
    folder = need_newer("containerd")
    return folder / "containerd", folder / "ctr"


@pytest.fixture(scope="module")
def containerd(
    root: None,
    containerd_programs: tuple[Path, Path],
    surroundings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ContainerdDaemon]:
    """A containerd of either generation, which no other module's tests have anything in."""
    folder = tmp_path_factory.mktemp("containerd")
    with ContainerdDaemon(folder, *containerd_programs, environment=surroundings) as daemon:
        yield daemon


@pytest.fixture
def ctr(containerd: ContainerdDaemon, tmp_path: Path, surroundings: Mapping[str, str]) -> Client:
    """The client of that containerd."""
    return Client(containerd.ctr, tmp_path / "home-ctr", environment={**surroundings, **containerd.client})


@pytest.fixture
def image_store(root: None) -> Iterator[list[str]]:
    """Options that give podman and buildah a store of their own, with a path as short as podman wants it."""
    with tempfile.TemporaryDirectory(prefix="er-", dir=SHORT) as folder:
        yield ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]


@pytest.fixture
def podman(image_store: list[str], make_client: MakeClient) -> Client:
    """Podman, which has no daemon."""
    # crun does not start on machines that mount both generations of cgroups; runc does.
    options = (*image_store, "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc")
    return make_client("podman", options)
