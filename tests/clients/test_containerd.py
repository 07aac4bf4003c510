"""Containerd through `ctr`: push, remove, pull, run."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.clients.content import check_whole
from tests.services.clients import Client
from tests.services.front import Fault, Front
from tests.services.images import Layout, write_image
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients

BREAK: Final = 3 << 20
"""Where a connection ends."""


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


@pytest.fixture
def front(plain: RegistryServer) -> Iterator[Front]:
    """The cable to a registry."""
    with Front(plain.url) as front:
        yield front


@pytest.fixture
def large(plain: RegistryServer, tmp_path: Path, repository: str) -> Layout:
    """An image in the repository, tag `1`, with one layer that takes its time."""
    found = write_image(tmp_path / "large", [{"ballast": secrets.token_bytes(3 * BREAK)}])
    Pusher(plain.url).layout(repository, found, "1")
    return found


def ranges(front: Front, layout: Layout) -> list[str | None]:
    """What was asked of the layer, in order."""
    return [request.headers.get("range") for request in front.records.find(f"*{layout.layers[0]}")]


def test_containerd_continues_a_layer_whose_connection_ended(
    ctr: Client, front: Front, large: Layout, repository: str
) -> None:
    front.on(f"/v2/*/blobs/{large.layers[0]}", Fault(cut=BREAK), times=1)
    ctr.run("images", "pull", "--plain-http", f"{front.host}/{repository}:1")
    assert ranges(front, large) == [None, f"bytes={BREAK}-"]


def test_containerd_2_continues_a_layer_with_the_next_pull_after_the_registry_was_away(
    ctr: Client, generation: str, front: Front, large: Layout, repository: str
) -> None:
    pull = ("images", "pull", "--plain-http", f"{front.host}/{repository}:1")
    path = f"/v2/*/blobs/{large.layers[0]}"
    front.on(path, Fault(stall=BREAK), times=1)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(ctr.fail, *pull)
        front.wait_until(lambda: any(request.sent >= BREAK for request in front.records.find(path)))
        front.down("refused")
        failing.result()
    front.up()
    ctr.run(*pull)
    first, again = ranges(front, large)
    assert first is None
    if generation == "2":  # the first one begins anew
        assert again is not None
        assert 0 < int(again.removeprefix("bytes=").removesuffix("-")) <= BREAK
    assert large.digest in ctr.run("images", "list")
