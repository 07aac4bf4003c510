"""Regctl: blobs, manifests, tags, indexes, artifacts with their referrers, copies."""

import json
from pathlib import Path

import pytest

from tests.clients.content import check_whole, is_there, tags_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout, digest
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


@pytest.fixture
def regctl(make_client: MakeClient, server: RegistryServer) -> Client:
    client = make_client("regctl")
    options = ["--tls", "enabled", "--cacert", server.ca.read_text()] if server.ca else ["--tls", "disabled"]
    client.run("registry", "set", "--skip-check", *options, server.host)
    if server.credentials:
        user = server.credentials
        client.run("registry", "login", "--user", user.name, "--pass-stdin", server.host, stdin=user.password)
    return client


@pytest.fixture
def name(regctl: Client, server: RegistryServer, layout: Layout, repository: str) -> str:
    """An image that regctl pushed."""
    pushed = f"{server.host}/{repository}:v1"
    regctl.run("image", "copy", f"ocidir://{layout.folder}:{layout.tag}", pushed)
    return pushed


def test_regctl_pushes_an_image_and_reads_its_parts(
    regctl: Client, server: RegistryServer, layout: Layout, name: str, repository: str, tmp_path: Path
) -> None:
    assert regctl.run("image", "digest", name) == layout.digest
    assert check_whole(server, repository, "v1") == layout.digest
    regctl.run("image", "copy", name, f"ocidir://{tmp_path / 'back'}:v1")
    back = Layout(tmp_path / "back", "v1", layout.digest, layout.layers)
    assert all(back.blob(named) == layout.blob(named) for named in (layout.digest, *layout.layers))
    assert json.loads(regctl.run("manifest", "get", "--format", "raw-body", name)) == json.loads(
        layout.blob(layout.digest)
    )


def test_regctl_puts_gets_and_deletes_a_blob(regctl: Client, server: RegistryServer, repository: str) -> None:
    content = "bytes of a blob"
    named = regctl.run("blob", "put", f"{server.host}/{repository}", stdin=content)
    assert named == digest(content.encode())
    assert regctl.run("blob", "get", f"{server.host}/{repository}", named) == content
    regctl.run("blob", "delete", f"{server.host}/{repository}", named)
    assert server.request("HEAD", f"/v2/{repository}/blobs/{named}").status == 404


def test_regctl_deletes_one_tag_and_keeps_the_others(
    regctl: Client, server: RegistryServer, layout: Layout, name: str, repository: str
) -> None:
    regctl.run("image", "copy", name, f"{server.host}/{repository}:v2")
    assert regctl.run("tag", "ls", f"{server.host}/{repository}").split() == ["v1", "v2"]
    regctl.run("tag", "delete", name)
    assert tags_of(server, repository) == ["v2"]
    assert check_whole(server, repository, layout.digest) == layout.digest
    regctl.run("manifest", "delete", f"{server.host}/{repository}@{layout.digest}")
    assert not is_there(server, repository, "v2")


def test_regctl_makes_an_index_of_two_images(
    regctl: Client, server: RegistryServer, index_layout: Layout, layout: Layout, name: str, repository: str
) -> None:
    made = f"{server.host}/{repository}:index"
    regctl.run("index", "create", made, "--ref", name, "--digest", layout.digest)
    entries = json.loads(regctl.run("manifest", "get", "--format", "raw-body", made))["manifests"]
    assert [entry["digest"] for entry in entries] == [layout.digest]
    regctl.run("image", "copy", f"ocidir://{index_layout.folder}:{index_layout.tag}", f"{made}-copied")
    assert check_whole(server, repository, "index-copied") == index_layout.digest


def test_regctl_attaches_an_artifact_that_referrers_list_and_copies_carry(
    regctl: Client, server: RegistryServer, layout: Layout, name: str, repository: str
) -> None:
    kind, content = "application/example.signature", "a signature"
    regctl.run("artifact", "put", "--artifact-type", kind, "--subject", name, stdin=content)
    listed = json.loads(regctl.run("artifact", "list", "--format", "{{json .}}", name))
    referrers = listed["descriptors"]
    assert [entry["artifactType"] for entry in referrers] == [kind]
    answer = server.request("GET", f"/v2/{repository}/referrers/{layout.digest}?artifactType={kind}")
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [referrers[0]["digest"]]
    assert regctl.run("artifact", "get", "--subject", name, "--filter-artifact-type", kind) == content

    regctl.run("image", "copy", "--referrers", name, f"{server.host}/{repository}-copy:v1")
    copied = server.request("GET", f"/v2/{repository}-copy/referrers/{layout.digest}").json()
    assert [entry["digest"] for entry in copied["manifests"]] == [referrers[0]["digest"]]
