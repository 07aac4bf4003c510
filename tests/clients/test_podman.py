"""Podman: push, remove, pull, run."""

from pathlib import Path

import pytest

from tests.clients.conftest import certificate_folder
from tests.clients.content import check_whole, is_there
from tests.services.clients import Client
from tests.services.images import Layout
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


def transport(server: RegistryServer, folder: Path) -> list[str]:
    if server.ca is None:
        return ["--tls-verify=false"]
    return ["--tls-verify=true", "--cert-dir", str(certificate_folder(server, folder))]


def log_in(podman: Client, server: RegistryServer, options: list[str]) -> None:
    if server.credentials:
        user = server.credentials
        podman.run("login", *options, "--username", user.name, "--password-stdin", server.host, stdin=user.password)


def test_podman_pushes_removes_pulls_and_runs_an_image(
    podman: Client,
    server: RegistryServer,
    layout: Layout,
    layers: list[dict[str, bytes]],
    tmp_path: Path,
    repository: str,
) -> None:
    options = transport(server, tmp_path / "certificates")
    log_in(podman, server, options)
    name = f"{server.host}/{repository}:v1"
    image = podman.run("pull", "--quiet", f"oci:{layout.folder}:{layout.tag}")
    podman.run("push", "--quiet", *options, "--digestfile", str(tmp_path / "digest"), image, name)
    assert check_whole(server, repository, "v1") == (tmp_path / "digest").read_text()

    podman.run("rmi", "--all", "--force")
    assert not podman.run("images", "--all", "--quiet")
    podman.run("pull", "--quiet", *options, name)
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    said = podman.run("run", "--rm", "--network", "none", *limits, name)
    assert said == layers[-1]["etc/last"].decode()


def test_podman_pushes_and_pulls_a_manifest_list(
    podman: Client, server: RegistryServer, index_layout: Layout, tmp_path: Path, repository: str
) -> None:
    options = transport(server, tmp_path / "certificates")
    log_in(podman, server, options)
    name = f"{server.host}/{repository}:multi"
    podman.run("manifest", "create", "--all", "both", f"oci:{index_layout.folder}:{index_layout.tag}")
    podman.run("manifest", "push", "--all", *options, "both", f"docker://{name}")
    assert is_there(server, repository, check_whole(server, repository, "multi"))
    podman.run("pull", "--quiet", *options, "--arch", "arm64", name)
    assert podman.run("image", "inspect", "--format", "{{.Architecture}}", name) == "arm64"


def test_podman_does_not_trust_an_unknown_authority(podman: Client, secured: RegistryServer) -> None:
    assert secured.credentials is not None
    said = podman.fail("pull", "--tls-verify=true", f"{secured.host}/anything:v1")
    assert "certificate" in said, said
