"""Containerd through `ctr`: push, remove, pull, run."""

import secrets
from pathlib import Path

import pytest

from tests.clients.content import check_whole
from tests.services.clients import Client
from tests.services.images import Layout
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


def transport(server: RegistryServer, folder: Path, password: str | None = None) -> list[str]:
    """The options for one server, whose authority is named as on a node: in a folder of hosts."""
    if server.ca is None:
        return ["--plain-http"]
    hosts = folder / "hosts" / server.host
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(f'server = "{server.url}"\n[host."{server.url}"]\nca = "{server.ca}"\n')
    assert server.credentials is not None
    user = f"{server.credentials.name}:{password or server.credentials.password}"
    return ["--hosts-dir", str(folder / "hosts"), "--user", user]


def test_containerd_pushes_removes_pulls_and_runs_an_image(
    ctr: Client, server: RegistryServer, layout: Layout, layers: list[dict[str, bytes]], tmp_path: Path, repository: str
) -> None:
    name = f"{server.host}/{repository}:latest"
    ctr.run(
        "images", "import", "--base-name", f"{server.host}/{repository}", str(layout.archive(tmp_path / "image.tar"))
    )
    ctr.run("images", "push", *transport(server, tmp_path), name)
    assert check_whole(server, repository, "latest") == layout.digest

    ctr.run("images", "remove", "--sync", name)
    assert layout.digest not in ctr.run("content", "list")
    ctr.run("images", "pull", *transport(server, tmp_path), name)
    assert layout.digest in ctr.run("images", "list", f"name=={name}")
    said = ctr.run("run", "--rm", name, f"test-{secrets.token_hex(4)}")
    assert said == layers[-1]["etc/last"].decode()


def test_containerd_pushes_and_pulls_every_platform_of_an_index(
    ctr: Client, server: RegistryServer, index_layout: Layout, tmp_path: Path, repository: str
) -> None:
    name = f"{server.host}/{repository}:latest"
    archive = str(index_layout.archive(tmp_path / "index.tar"))
    ctr.run("images", "import", "--all-platforms", "--no-unpack", "--base-name", f"{server.host}/{repository}", archive)
    ctr.run("images", "push", *transport(server, tmp_path), name)
    assert check_whole(server, repository, "latest") == index_layout.digest
    ctr.run("images", "remove", "--sync", name)
    ctr.run("images", "pull", "--all-platforms", *transport(server, tmp_path), name)
    listed = ctr.run("images", "list", f"name=={name}")
    assert index_layout.digest in listed
    assert "linux/arm64" in listed


def test_containerd_with_a_wrong_password_may_not_pull(
    ctr: Client, secured: RegistryServer, tmp_path: Path, repository: str
) -> None:
    said = ctr.fail("images", "pull", *transport(secured, tmp_path, "a guess"), f"{secured.host}/{repository}:latest")
    assert "401" in said or "authorization failed" in said.lower(), said
