"""Skopeo: copies both ways and between repositories, inspection, tags, deletion."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import certificate_folder
from tests.clients.content import DOCKER_LIST, DOCKER_MANIFEST, check_whole, is_there, manifest_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


class Skopeo:
    """Skopeo with the options of one server, which it spells differently for each side of a copy."""

    def __init__(self, client: Client, server: RegistryServer, certificates: Path) -> None:
        self._client = client
        self._server = server
        self._certificates = certificate_folder(server, certificates)

    def _options(self, side: str = "") -> list[str]:
        user = self._server.credentials
        options = [f"--{side}tls-verify={'true' if self._server.ca else 'false'}"]
        options += [f"--{side}cert-dir={self._certificates}"] if self._server.ca else []
        return options + ([f"--{side}creds={user.name}:{user.password}"] if user else [])

    def name(self, repository: str, reference: str) -> str:
        return f"docker://{self._server.host}/{repository}{'@' if ':' in reference else ':'}{reference}"

    def copy(self, source: str, target: str, *options: str) -> None:
        sides = [*self._options("src-")] if source.startswith("docker:") else []
        sides += self._options("dest-") if target.startswith("docker:") else []
        self._client.run("--insecure-policy", "copy", "--quiet", *sides, *options, source, target)

    def run(self, verb: str, *arguments: str) -> str:
        return self._client.run(verb, *self._options(), *arguments)


@pytest.fixture
def skopeo(make_client: MakeClient, server: RegistryServer, tmp_path: Path) -> Skopeo:
    return Skopeo(make_client("skopeo"), server, tmp_path / "certificates")


def test_skopeo_copies_an_oci_layout_there_and_back_byte_for_byte(
    skopeo: Skopeo, server: RegistryServer, layout: Layout, tmp_path: Path, repository: str
) -> None:
    skopeo.copy(f"oci:{layout.folder}:{layout.tag}", skopeo.name(repository, "v1"))
    assert check_whole(server, repository, "v1") == layout.digest
    skopeo.copy(skopeo.name(repository, "v1"), f"oci:{tmp_path / 'back'}:v1")
    back = Layout(tmp_path / "back", "v1", layout.digest, layout.layers)
    for named in (layout.digest, *layout.layers):
        assert back.blob(named) == layout.blob(named)


def test_skopeo_copies_a_docker_schema_2_image_there_and_back(
    skopeo: Skopeo, server: RegistryServer, layout: Layout, tmp_path: Path, repository: str
) -> None:
    skopeo.copy(f"oci:{layout.folder}:{layout.tag}", skopeo.name(repository, "v2"), "--format", "v2s2")
    named = check_whole(server, repository, "v2")
    assert manifest_of(server, repository, "v2")[1]["mediaType"] == DOCKER_MANIFEST
    skopeo.copy(skopeo.name(repository, named), f"dir:{tmp_path / 'folder'}")
    assert {path.name for path in (tmp_path / "folder").iterdir()} >= {d.removeprefix("sha256:") for d in layout.layers}
    skopeo.copy(f"dir:{tmp_path / 'folder'}", skopeo.name(f"{repository}-copy", "v2"))
    assert check_whole(server, f"{repository}-copy", "v2") == named


def test_skopeo_copies_an_index_with_every_platform_between_repositories(
    skopeo: Skopeo, server: RegistryServer, index_layout: Layout, repository: str
) -> None:
    skopeo.copy(f"oci:{index_layout.folder}:{index_layout.tag}", skopeo.name(repository, "multi"), "--all")
    assert check_whole(server, repository, "multi") == index_layout.digest
    skopeo.copy(skopeo.name(repository, "multi"), skopeo.name(f"{repository}-copy", "multi"), "--all")
    assert check_whole(server, f"{repository}-copy", "multi") == index_layout.digest


def test_skopeo_copies_a_docker_manifest_list(
    skopeo: Skopeo, server: RegistryServer, index_layout: Layout, repository: str
) -> None:
    source = f"oci:{index_layout.folder}:{index_layout.tag}"
    skopeo.copy(source, skopeo.name(repository, "list"), "--all", "--format", "v2s2")
    check_whole(server, repository, "list")
    assert manifest_of(server, repository, "list")[1]["mediaType"] == DOCKER_LIST


def test_skopeo_inspects_lists_and_deletes(
    skopeo: Skopeo, server: RegistryServer, layout: Layout, repository: str
) -> None:
    source = f"oci:{layout.folder}:{layout.tag}"
    for tag in ("b", "a"):
        skopeo.copy(source, skopeo.name(repository, tag))
    seen = json.loads(skopeo.run("inspect", skopeo.name(repository, "a")))
    assert (seen["Digest"], tuple(seen["Layers"])) == (layout.digest, layout.layers)
    listed = json.loads(skopeo.run("list-tags", f"docker://{server.host}/{repository}"))
    assert listed["Tags"] == ["a", "b"]
    skopeo.run("delete", skopeo.name(repository, "a"))
    assert not is_there(server, repository, layout.digest)
    assert not is_there(server, repository, "a")
