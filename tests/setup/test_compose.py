"""docker-compose.yml, brought up by a real compose: push, pull, pull through, and nothing left."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.archives import write_program
from tests.services.clients import Client
from tests.services.daemons import DockerDaemon
from tests.services.engines import need, need_newer, root
from tests.services.minio import MinioServer, find_minio
from tests.services.pod_image import write_minio_image, write_registry_image
from tests.setup.composing import (
    BASE_IMAGE,
    REGISTRY_IMAGE,
    STORE_IMAGE,
    UPSTREAM,
    Composition,
    alone,
    install_plugin,
)

__all__ = ["need", "need_newer", "root"]

pytestmark = [pytest.mark.clients, pytest.mark.minio, pytest.mark.timeout(600)]

READY_SECONDS = 120.0
CACHE_PROFILE = ("--profile", "cache")
REGISTRY, CACHE = "127.0.0.1:5045", "127.0.0.1:5046"


@pytest.fixture(scope="module")
def daemon(
    root: None, need: Callable[[str], Path], minio: MinioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerDaemon]:
    """A daemon that has the images of the file, made here, and the cache as its mirror."""
    folder = tmp_path_factory.mktemp("dockerd")
    store = find_minio()
    assert store is not None
    program = alone(folder, need("dockerd"))
    with DockerDaemon(folder, program, need("docker"), mirrors=[f"http://{CACHE}"], small=False) as running:
        docker = Client(need("docker"), folder / "home", environment=running.client)
        for archive in (
            write_registry_image(folder / "registry.tar", folder / "layers", BASE_IMAGE),
            write_minio_image(folder / "minio.tar", Path(store), STORE_IMAGE),
        ):
            docker.run("load", "--input", str(archive))
            archive.unlink()
        yield running


@pytest.fixture
def docker(daemon: DockerDaemon, need: Callable[[str], Path], tmp_path: Path) -> Client:
    return Client(need("docker"), tmp_path / "home", environment=daemon.client)


@pytest.fixture(params=["docker compose", "docker-compose"])
def composition(
    request: pytest.FixtureRequest, docker: Client, need: Callable[[str], Path], tmp_path: Path
) -> Iterator[Composition]:
    """With Compose 2, as a plugin of docker, and with Debian's docker-compose 1.29."""
    newer = request.param == "docker compose"
    if newer:
        command = install_plugin(docker, request.getfixturevalue("need_newer")("compose") / "docker-compose")
    else:
        command = [str(need("docker-compose"))]
    made = Composition(tmp_path / "compose", command, docker, waits=newer)
    try:
        yield made
    finally:
        made.run("--profile", "cache", "down", "--volumes", "--timeout", "10")
        docker.run("rmi", "--force", REGISTRY_IMAGE)


@pytest.fixture
def hello(docker: Client, need: Callable[[str], Path], tmp_path: Path) -> str:
    """An image that the daemon has, and nobody else."""
    name = f"hello-{secrets.token_hex(4)}:1"
    archive = write_program(tmp_path / "hello.tar", name, [need("busybox")], {"Cmd": ["echo", "hello"]})
    docker.run("load", "--input", str(archive))
    return name


def bring_up(docker: Client, composition: Composition, *waited: str, options: Sequence[str] = ()) -> str:
    """Brings the file up as the README says, returns when the services `waited` are healthy, and what was said."""
    if composition.waits:
        said = composition.run(*options, "up", "--build", "--wait")
    else:
        said = composition.run(*options, "up", "--build", "--detach")
        for service in waited:
            await_ready(docker, composition, service)
    assert {healthy(docker, service) for service in waited} == {True}
    return said


def healthy(docker: Client, service: str) -> bool:
    (container,) = docker.run("ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}").split()
    return docker.run("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"


def await_ready(docker: Client, composition: Composition, service: str) -> None:
    """Returns when its health check succeeds, as `up --wait` of newer composes does."""
    deadline = time.monotonic() + READY_SECONDS
    while not healthy(docker, service):
        assert time.monotonic() < deadline, composition.logs()
        time.sleep(0.2)


def services(docker: Client) -> set[str]:
    """The services whose containers run."""
    return set(docker.run("ps", "--format", '{{.Label "com.docker.compose.service"}}').split())


def log_in(docker: Client, composition: Composition) -> None:
    """As the user whose password stands in .env."""
    user, password = (composition.secrets[name] for name in ("REGISTRY_USER", "REGISTRY_PASSWORD"))
    docker.run("login", "--username", user, "--password-stdin", REGISTRY, stdin=password)


def send(docker: Client, image: str, name: str) -> None:
    """Pushes the image under another name and forgets that name."""
    docker.run("tag", image, name)
    docker.run("push", name)
    docker.run("rmi", name)


def check_nothing_left(docker: Client) -> None:
    for what in (("ps", "--all"), ("volume", "ls"), ("network", "ls", "--filter", "type=custom")):
        assert docker.run(*what, "--quiet") == "", what


def test_what_the_file_brings_up_is_pushed_to_and_pulled_from_and_goes_away_again(
    docker: Client, composition: Composition, hello: str
) -> None:
    assert composition.check() == composition.check("--profile", "cache") == "", "warnings"
    said = bring_up(docker, composition, "registry", "object-store")
    assert "pull" not in said.lower(), said
    assert services(docker) == {"object-store", "registry"}
    name = f"{REGISTRY}/team/{hello}"
    docker.run("tag", hello, name)
    assert "no basic auth credentials" in docker.fail("push", name)
    log_in(docker, composition)
    send(docker, hello, name)
    docker.run("rmi", hello)
    users = ("user", "list", "--file", "/etc/edge-registry/htpasswd")
    said = composition.run("run", "--rm", "-T", "--entrypoint", "edge-registry", "user", *users)
    assert composition.secrets["REGISTRY_USER"] in said.splitlines()

    bring_up(docker, composition, "registry")  # repeating it changes nothing
    docker.run("pull", name)
    assert docker.run("run", "--rm", "--network", "none", name) == "hello"

    docker.run("rmi", name)
    composition.run("down", "--volumes")
    check_nothing_left(docker)


def test_the_cache_is_a_profile_serves_while_the_upstream_is_away_and_shows_nobody_what_was_pushed(
    docker: Client, composition: Composition, hello: str
) -> None:
    bring_up(docker, composition, "registry", "cache", options=CACHE_PROFILE)
    send(docker, hello, f"{UPSTREAM}/library/{hello}")
    log_in(docker, composition)
    send(docker, hello, f"{REGISTRY}/team/{hello}")
    docker.run("rmi", hello)

    name = f"{CACHE}/docker.io/library/{hello}"
    docker.run("pull", name)
    docker.run("rmi", name)
    composition.run("stop", "--timeout", "10", "upstream")
    docker.run("pull", hello)  # the cache is the daemon's mirror of Docker Hub
    assert docker.run("run", "--rm", "--network", "none", hello) == "hello"
    docker.fail("pull", f"{CACHE}/team/{hello}")
    docker.run("tag", hello, name)
    assert "denied: requested access to the resource is denied" in docker.fail("push", name)
    docker.run("rmi", hello, name)

    composition.run(*CACHE_PROFILE, "down", "--volumes")
    check_nothing_left(docker)
