"""Crane: push, pull, copy, mount, append, delete, listings."""

import json
from pathlib import Path

import pytest

from tests.clients.content import check_whole, is_there, manifest_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout, layer_tar
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


@pytest.fixture
def crane(make_client: MakeClient, server: RegistryServer) -> Client:
    client = make_client("crane", environment={"SSL_CERT_FILE": str(server.ca)} if server.ca else None)
    if server.credentials:
        user = server.credentials
        client.run("auth", "login", server.host, "--username", user.name, "--password-stdin", stdin=user.password)
    return client


def test_crane_pushes_a_layout_and_pulls_it_back(
    crane: Client, server: RegistryServer, layout: Layout, tmp_path: Path, repository: str
) -> None:
    name = f"{server.host}/{repository}:v1"
    crane.run("push", str(layout.folder), name)
    assert crane.run("digest", name) == layout.digest
    assert check_whole(server, repository, "v1") == layout.digest
    crane.run("pull", "--format", "oci", name, str(tmp_path / "back"))
    back = Layout(tmp_path / "back", "v1", layout.digest, layout.layers)
    crane.run("validate", "--remote", name)
    assert all(back.blob(named) == layout.blob(named) for named in (layout.digest, *layout.layers))


def test_crane_copies_between_repositories_by_mounting(
    crane: Client, server: RegistryServer, index_layout: Layout, repository: str
) -> None:
    source, target = f"{server.host}/{repository}:v1", f"{server.host}/{repository}-copy:v1"
    crane.run("push", "--index", str(index_layout.folder), source)
    crane.run("copy", source, target)
    pushed, _ = manifest_of(server, repository, "v1")
    assert check_whole(server, f"{repository}-copy", "v1") == pushed


def test_crane_appends_a_layer_and_images_to_an_index(
    crane: Client, server: RegistryServer, layout: Layout, tmp_path: Path, repository: str
) -> None:
    base, grown, index = (f"{server.host}/{repository}:{tag}" for tag in ("base", "grown", "index"))
    crane.run("push", str(layout.folder), base)
    (tmp_path / "layer.tar").write_bytes(layer_tar({"etc/more": b"appended\n"}))
    crane.run("append", "--base", base, "--new_layer", str(tmp_path / "layer.tar"), "--new_tag", grown)
    check_whole(server, repository, "grown")
    assert len(manifest_of(server, repository, "grown")[1]["layers"]) == len(layout.layers) + 1

    crane.run("index", "append", "--manifest", base, "--manifest", grown, "--tag", index)
    check_whole(server, repository, "index")
    children = {child["digest"] for child in json.loads(crane.run("manifest", index))["manifests"]}
    assert children == {layout.digest, crane.run("digest", grown)}


def test_crane_lists_tags_and_repositories_and_deletes(
    crane: Client, server: RegistryServer, layout: Layout, repository: str
) -> None:
    name = f"{server.host}/{repository}"
    crane.run("push", str(layout.folder), f"{name}:v1")
    crane.run("tag", f"{name}:v1", "v2")
    assert crane.run("ls", name).split() == ["v1", "v2"]
    assert repository in crane.run("catalog", server.host).split()
    crane.run("delete", f"{name}@{layout.digest}")
    assert not is_there(server, repository, layout.digest)
    assert crane.run("ls", name).split() == []
