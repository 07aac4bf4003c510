"""One process with two ports over one store: one to pull from, for everybody, and one to push to, for users."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import certificate_folder
from tests.clients.content import tags_of
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.clients import Client
from tests.services.images import Layout
from tests.services.registry import Credentials
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

HUB = "docker.io"


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    user = Credentials("edge", secrets.token_urlsafe(16))
    listeners: list[dict[str, Any]] = [
        {"anonymous": "none", "default_upstream": ""},
        {"read_only": True, "anonymous": "pull", "default_upstream": HUB, "tls": False},
    ]
    with open_edge(
        need_distribution(request),
        tmp_path_factory.mktemp("edge"),
        {HUB: Upstream()},
        listeners=listeners,
        users=user,
        tls=True,
    ) as edge:
        yield edge


@pytest.fixture
def writable(edge: Edge) -> str:
    return edge.hosts[0]


@pytest.fixture
def readable(edge: Edge) -> str:
    return edge.hosts[1]


@pytest.fixture
def repository() -> str:
    return f"team/app-{secrets.token_hex(4)}"


def log_in(client: Client, edge: Edge, host: str, *options: str) -> None:
    assert edge.server.credentials is not None
    user = edge.server.credentials
    client.run("login", *options, "--username", user.name, "--password-stdin", host, stdin=user.password)


def test_podman_pushes_to_one_port_and_docker_pulls_from_the_other(
    podman: Client,
    docker: Client,
    edge: Edge,
    writable: str,
    readable: str,
    layout: Layout,
    layers: list[dict[str, bytes]],
    tmp_path: Path,
    repository: str,
) -> None:
    options = ["--tls-verify=true", "--cert-dir", str(certificate_folder(edge.server, tmp_path / "certificates"))]
    image = podman.run("pull", "--quiet", f"oci:{layout.folder}:{layout.tag}")
    podman.fail("push", "--quiet", *options, image, f"{writable}/{repository}:v1")
    log_in(podman, edge, writable, *options)
    podman.run("push", "--quiet", *options, image, f"{writable}/{repository}:v1")
    docker.run("pull", f"{readable}/{repository}:v1")
    said = docker.run("run", "--rm", "--network", "none", f"{readable}/{repository}:v1")
    assert said == layers[-1]["etc/last"].decode()


def test_docker_pulls_an_upstream_image_from_one_port_pushes_it_to_the_other_and_podman_pulls_it_back(
    podman: Client, docker: Client, edge: Edge, writable: str, readable: str, layout: Layout, repository: str
) -> None:
    edge.push(HUB, repository, layout)
    docker.run("pull", f"{readable}/{repository}:latest")
    docker.run("tag", f"{readable}/{repository}:latest", f"{writable}/mine/{repository}:v1")
    docker.fail("push", f"{writable}/mine/{repository}:v1")
    log_in(docker, edge, writable)
    docker.run("push", f"{writable}/mine/{repository}:v1")
    podman.run("pull", "--quiet", "--tls-verify=false", f"{readable}/mine/{repository}:v1")
    assert tags_of(edge.server, f"mine/{repository}") == ["v1"]


def test_the_read_only_port_says_so_to_those_who_push(
    podman: Client, docker: Client, edge: Edge, readable: str, layout: Layout, repository: str
) -> None:
    image = podman.run("pull", "--quiet", f"oci:{layout.folder}:{layout.tag}")
    said = podman.fail("push", "--quiet", "--tls-verify=false", image, f"{readable}/{repository}:v1")
    assert "read-only" in said, said
    edge.push(HUB, repository, layout)
    docker.run("pull", f"{readable}/{repository}:latest")
    docker.run("tag", f"{readable}/{repository}:latest", f"{readable}/mine/{repository}:v1")
    said = docker.fail("push", f"{readable}/mine/{repository}:v1")
    assert "read-only" in said, said
    assert tags_of(edge.server, f"mine/{repository}") == []
