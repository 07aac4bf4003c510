"""The Docker daemon: build, push, remove, pull, run."""

import json
from pathlib import Path

import pytest

from tests.clients.content import DOCKER_MANIFEST, check_whole, manifest_of, tags_of
from tests.services.clients import Client
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients

DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY first /etc/first
COPY last /etc/last
ENTRYPOINT ["/bin/busybox"]
CMD ["cat", "/etc/first", "/etc/last"]
"""


@pytest.fixture
def context(tmp_path: Path, busybox: bytes, layers: list[dict[str, bytes]]) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "busybox").write_bytes(busybox)
    (folder / "busybox").chmod(0o755)
    (folder / "first").write_text("first layer\n")
    (folder / "last").write_bytes(layers[-1]["etc/last"])
    return folder


def log_in(docker: Client, server: RegistryServer) -> None:
    if server.credentials:
        user = server.credentials
        said = docker.run("login", "--username", user.name, "--password-stdin", server.host, stdin=user.password)
        assert "Login Succeeded" in said


def test_docker_builds_pushes_removes_pulls_and_runs_an_image(
    docker: Client, server: RegistryServer, context: Path, repository: str
) -> None:
    log_in(docker, server)
    name = f"{server.host}/{repository}:v1"
    docker.run("build", "--quiet", "--tag", name, str(context))
    docker.run("push", name)
    pushed = check_whole(server, repository, "v1")
    _, manifest = manifest_of(server, repository, "v1")
    assert (manifest["mediaType"], len(manifest["layers"])) == (DOCKER_MANIFEST, 3)

    docker.run("rmi", "--force", name)
    docker.run("image", "prune", "--all", "--force")
    assert not docker.run("images", "--all", "--quiet")

    docker.run("pull", name)
    digests = json.loads(docker.run("inspect", "--format", "{{json .RepoDigests}}", name))
    assert f"{server.host}/{repository}@{pushed}" in digests
    said = docker.run("run", "--rm", "--network", "none", name)
    assert said == "first layer\n" + (context / "last").read_text()


def test_docker_pushes_a_second_tag_without_sending_a_layer_again(
    docker: Client, server: RegistryServer, context: Path, repository: str
) -> None:
    log_in(docker, server)
    first, second = (f"{server.host}/{repository}:{tag}" for tag in ("one", "two"))
    docker.run("build", "--quiet", "--tag", first, str(context))
    docker.run("push", first)
    docker.run("tag", first, second)
    assert docker.run("push", second).count("Layer already exists") == 3
    assert tags_of(server, repository) == ["one", "two"]


def test_docker_mounts_the_layers_of_another_repository(
    docker: Client, server: RegistryServer, context: Path, repository: str
) -> None:
    log_in(docker, server)
    first, second = (f"{server.host}/{name}:v1" for name in (repository, f"{repository}-copy"))
    docker.run("build", "--quiet", "--tag", first, str(context))
    docker.run("push", first)
    docker.run("tag", first, second)
    assert docker.run("push", second).count(f"Mounted from {repository}") == 3
    assert check_whole(server, f"{repository}-copy", "v1") == check_whole(server, repository, "v1")


def test_docker_is_told_that_its_password_is_wrong(docker: Client, secured: RegistryServer) -> None:
    said = docker.fail("login", "--username", "edge", "--password-stdin", secured.host, stdin="a guess")
    assert "401" in said or "unauthorized" in said.lower(), said


def test_docker_without_a_password_may_not_push(
    docker: Client, secured: RegistryServer, context: Path, repository: str
) -> None:
    name = f"{secured.host}/{repository}:v1"
    docker.run("build", "--quiet", "--tag", name, str(context))
    docker.fail("push", name)
    assert tags_of(secured, repository) == []
