"""Buildah: an image made step by step, pushed, and pulled as the base of another."""

from pathlib import Path

import pytest

from tests.clients.conftest import certificate_folder
from tests.clients.content import DOCKER_MANIFEST, check_whole, manifest_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import MANIFEST
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


@pytest.fixture
def buildah(image_store: list[str], make_client: MakeClient) -> Client:
    return make_client("buildah", image_store)


def transport(server: RegistryServer, folder: Path) -> list[str]:
    options = [f"--tls-verify={'true' if server.ca else 'false'}"]
    if server.ca:
        options += ["--cert-dir", str(certificate_folder(server, folder))]
    if server.credentials:
        options += ["--creds", f"{server.credentials.name}:{server.credentials.password}"]
    return options


@pytest.mark.parametrize(("form", "media_type"), [("oci", MANIFEST), ("docker", DOCKER_MANIFEST)])
def test_buildah_pushes_an_image_and_builds_on_what_it_pulls(
    buildah: Client, server: RegistryServer, tmp_path: Path, repository: str, form: str, media_type: str
) -> None:
    options = transport(server, tmp_path / "certificates")
    name = f"{server.host}/{repository}:base"
    (tmp_path / "greeting").write_text("made by buildah\n")
    container = buildah.run("from", "scratch")
    buildah.run("copy", container, str(tmp_path / "greeting"), "/etc/greeting")
    buildah.run("commit", "--rm", "--format", form, container, "base")
    buildah.run("push", *options, "base", f"docker://{name}")
    check_whole(server, repository, "base")
    assert manifest_of(server, repository, "base")[1]["mediaType"] == media_type

    buildah.run("rmi", "--all", "--force")
    container = buildah.run("from", *options, name)
    assert (Path(buildah.run("mount", container)) / "etc/greeting").read_text() == "made by buildah\n"
