"""Exported archives, loaded by the programs of others; and images carried to where there is no network."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.content import check_whole, manifest_of
from tests.services.client import Image
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout
from tests.services.minio import MinioServer
from tests.services.pushing import Index, Pusher
from tests.services.registry import RegistryServer, command, filesystem_store, s3_store

pytestmark = pytest.mark.clients

MB = 1_000_000
UPSTREAMS = {"EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps([{"name": "docker.io", "url": "http://127.0.0.1:1"}])}
"""As a site that pulls through a mirror has them: a plain name could be taken for one of Docker Hub."""


class Source:
    """A registry on a folder, and exports from it."""

    def __init__(self, folder: Path) -> None:
        self.store = filesystem_store(folder / "store")
        self.server = RegistryServer(folder, self.store)
        self._folder = folder

    def export(self, *arguments: str, name: str = "") -> Path:
        target = self._folder / (name or f"{secrets.token_hex(4)}.tar")
        command("export", *arguments, "-o", str(target), settings=self.store)
        return target


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    found = Source(tmp_path_factory.mktemp("source"))
    with found.server:
        yield found


@pytest.fixture
def pushed(source: Source, layout: Layout, index_layout: Layout, repository: str) -> str:
    """A repository with an image under `one` and an index for two platforms under `multi`, which share layers."""
    pusher = Pusher(source.server.url)
    pusher.layout(repository, layout, "one")
    pusher.layout(repository, index_layout, "multi")
    return repository


def config_of(layout: Layout, digest: str) -> str:
    return str(json.loads(layout.blob(digest))["config"]["digest"])


def child_of(layout: Layout, architecture: str) -> str:
    children = json.loads(layout.blob(layout.digest))["manifests"]
    return str(next(child["digest"] for child in children if child["platform"]["architecture"] == architecture))


@pytest.mark.parametrize("form", ["combined", "docker"])
def test_docker_loads_and_runs_an_exported_archive(
    docker: Client,
    source: Source,
    pushed: str,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    form: str,
) -> None:
    archive = source.export(f"{pushed}:*", "--format", form, "--platform", "linux/amd64")
    said = docker.run("load", "--input", str(archive))
    assert set(said.splitlines()) == {f"Loaded image: {pushed}:{tag}" for tag in ("one", "multi")}
    configs = {
        "one": config_of(layout, layout.digest),
        "multi": config_of(index_layout, child_of(index_layout, "amd64")),
    }
    for tag, config in configs.items():
        assert docker.run("inspect", "--format", "{{.Id}}", f"{pushed}:{tag}") == config
        assert docker.run("run", "--rm", "--network", "none", f"{pushed}:{tag}") == layers[-1]["etc/last"].decode()
        docker.run("rmi", "--force", f"{pushed}:{tag}")


def test_docker_and_containerd_say_what_a_delta_is(docker: Client, ctr: Client, source: Source, pushed: str) -> None:
    first = source.export(f"{pushed}:one")
    delta = source.export(f"{pushed}:*", "--have", str(first))
    assert "DELTA-for-edge-registry-import-only" in docker.fail("load", "--input", str(delta))
    assert "DELTA-for-edge-registry-import-only" in ctr.fail("images", "import", str(delta))


@pytest.mark.parametrize("options", [(), ("--format", "oci"), ("--platform", "linux/amd64")], ids=" ".join)
def test_containerd_imports_and_runs_an_exported_archive_with_the_digests_of_the_registry(
    ctr: Client,
    source: Source,
    pushed: str,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    options: Sequence[str],
) -> None:
    archive = source.export(f"{pushed}:*", "--host", "registry.local:5045", *options)
    ctr.run("images", "import", str(archive))
    for tag, found in (("one", layout), ("multi", index_layout)):
        name = f"registry.local:5045/{pushed}:{tag}"
        assert found.digest in ctr.run("images", "list", f"name=={name}")
        said = ctr.run("run", "--rm", name, f"test-{secrets.token_hex(4)}")
        assert said == layers[-1]["etc/last"].decode()
        ctr.run("images", "remove", "--sync", name)


def test_containerd_imports_every_platform_and_no_signature_as_an_image(
    ctr: Client, source: Source, index_layout: Layout, repository: str
) -> None:
    pusher = Pusher(source.server.url)
    pusher.layout(repository, index_layout, "multi")
    _, document = manifest_of(source.server, repository, "multi")
    index = Index(index_layout.blob(index_layout.digest), document["mediaType"], {})
    pusher.referrer(repository, index)
    archive = source.export(f"{repository}:multi", "--referrers")
    ctr.run("images", "import", "--all-platforms", "--no-unpack", str(archive))
    listed = ctr.run("images", "list", f"name~={repository}")
    assert index_layout.digest in listed
    assert "linux/amd64,linux/arm64" in listed
    assert ctr.run("images", "list", "--quiet").splitlines() == [f"docker.io/{repository}:multi"]
    ctr.run("images", "remove", "--sync", f"docker.io/{repository}:multi")


@pytest.mark.parametrize("kind", ["oci-archive", "oci"])
def test_skopeo_copies_from_an_exported_layout_byte_for_byte(
    make_client: MakeClient, source: Source, pushed: str, layout: Layout, index_layout: Layout, kind: str
) -> None:
    skopeo = make_client("skopeo")
    target = source.export(f"{pushed}:*", *(["--format", "oci-dir"] if kind == "oci" else []))
    for tag, found in (("one", layout), ("multi", index_layout)):
        there = f"{source.server.host}/{pushed}-back:{tag}"
        skopeo.run(
            "--insecure-policy",
            "copy",
            "--all",
            "--dest-tls-verify=false",
            f"{kind}:{target}:{tag}",
            f"docker://{there}",
        )
        assert check_whole(source.server, f"{pushed}-back", tag) == found.digest


@pytest.mark.parametrize("form", ["combined", "docker"])
def test_skopeo_copies_from_an_exported_docker_archive(
    make_client: MakeClient, source: Source, pushed: str, layout: Layout, form: str
) -> None:
    skopeo = make_client("skopeo")
    archive = source.export(f"{pushed}:*", "--format", form, "--platform", "linux/amd64")
    there = f"{source.server.host}/{pushed}-back:one"
    skopeo.run(
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        f"docker-archive:{archive}:{pushed}:one",
        f"docker://{there}",
    )
    check_whole(source.server, f"{pushed}-back", "one")
    _, manifest = manifest_of(source.server, f"{pushed}-back", "one")
    assert manifest["config"]["digest"] == config_of(layout, layout.digest)


def test_podman_loads_an_exported_archive(podman: Client, source: Source, pushed: str, layout: Layout) -> None:
    podman.run("load", "--input", str(source.export(f"{pushed}:*")))
    listed = json.loads(podman.run("images", "--format", "json"))
    names = [name for image in listed for name in image["Names"]]
    assert any(name.endswith(f"{pushed}:one") for name in names), names


def test_crane_validates_and_pushes_an_exported_docker_archive(
    make_client: MakeClient, source: Source, pushed: str, layout: Layout
) -> None:
    crane = make_client("crane")
    archive = source.export(f"{pushed}:one", "--format", "docker")
    crane.run("validate", "--tarball", str(archive))
    crane.run("push", "--insecure", str(archive), f"{source.server.host}/{pushed}-crane:one")
    _, manifest = manifest_of(source.server, f"{pushed}-crane", "one")
    assert [layer["digest"] for layer in manifest["layers"]] == list(layout.layers)


class Site:
    """A registry without a network, on MinIO, to which archives are carried."""

    def __init__(self, folder: Path, minio: MinioServer) -> None:
        bucket = f"site-{secrets.token_hex(4)}"
        self.store = s3_store(minio.endpoint, bucket, minio.access_key, minio.secret_key)
        self.store |= UPSTREAMS
        self.server = RegistryServer(folder, self.store, settings={"EDGE_REGISTRY_PROXY__AIR_GAPPED": "true"})

    def bring(self, archive: Path) -> None:
        command("import", str(archive), settings=self.store)

    def check(self, images: Mapping[str, Image | Index]) -> None:
        """Everything can be pulled, whole, by tag and by digest."""
        for name, image in images.items():
            repository, tag = name.rsplit(":", 1)
            assert check_whole(self.server, repository, tag) == image.digest
            assert check_whole(self.server, repository, image.digest) == image.digest


@pytest.fixture
def site(tmp_path: Path, minio: MinioServer) -> Iterator[Site]:
    found = Site(tmp_path / "site", minio)
    with found.server:
        yield found


@pytest.mark.minio
def test_ten_images_are_carried_to_a_site_without_a_network_and_then_what_has_changed(
    site: Site, tmp_path: Path
) -> None:
    home = Source(tmp_path / "home")
    images: dict[str, Any] = {}
    with home.server:
        pusher = Pusher(home.server.url)
        for number in range(8):
            # Noise is made from the repository's name: layers of one repository are shared by its tags.
            repository, tag = f"team/app-{number % 4}", f"v{number // 4}"
            images[f"{repository}:{tag}"] = pusher.image(repository, tag, [2 * MB, 10_000 + number])
        images["team/multi:v1"] = pusher.index("team/multi", "v1", {"linux/amd64": [MB], "linux/arm64": [MB]})
        images["docker.io/library/alpine:3"] = pusher.image("docker.io/library/alpine", "3", [MB])
        signature = pusher.referrer("team/multi", images["team/multi:v1"])

        everything = home.export("*:*", "--referrers", name="everything.tar")
        size = everything.stat().st_size
        assert 11 * MB < size < 12 * MB
        site.bring(everything)
        site.check(images)
        assert check_whole(site.server, "team/multi", signature.digest) == signature.digest

        images["team/app-1:v1"] = pusher.image("team/app-1", "v1", [2 * MB, 300_000])
        images["team/multi:v1"] = pusher.index("team/multi", "v1", {"linux/amd64": [MB, 200_000], "linux/arm64": [MB]})
        (tmp_path / "have.txt").write_text(command("export", "--inventory", settings=site.store))
        delta = home.export("*:*", "--referrers", "--have", str(tmp_path / "have.txt"), name="delta.tar")
        assert 500_000 < delta.stat().st_size < 600_000
        site.bring(delta)
        site.check(images)

        again = tmp_path / "again.tar"
        home.store |= UPSTREAMS
        command("export", "*:*", "--referrers", "-o", str(again), settings=site.store)
        assert again.read_bytes() == home.export("*:*", "--referrers").read_bytes()


@pytest.mark.minio
def test_a_delta_brought_to_another_site_is_refused_whole_and_named(
    site: Site, source: Source, pushed: str, tmp_path: Path
) -> None:
    first = source.export(f"{pushed}:one")
    delta = source.export(f"{pushed}:*", "--have", str(first))
    command("import", str(delta), settings=site.store, status=1)
    answer = site.server.request("GET", f"/v2/{pushed}/tags/list")
    assert answer.status == 404, answer.body


@pytest.mark.minio
def test_one_platform_is_carried_with_its_index_and_pulled_by_docker(
    site: Site, docker: Client, source: Source, pushed: str, index_layout: Layout, layers: list[dict[str, bytes]]
) -> None:
    site.bring(source.export(f"{pushed}:multi", "--platform", "linux/amd64"))
    named, _ = manifest_of(site.server, pushed, "multi")
    assert named == index_layout.digest
    assert check_whole(site.server, pushed, child_of(index_layout, "amd64")) == child_of(index_layout, "amd64")
    for reference in (":multi", f"@{index_layout.digest}"):
        name = f"{site.server.host}/{pushed}{reference}"
        docker.run("pull", name)
        assert docker.run("run", "--rm", "--network", "none", name) == layers[-1]["etc/last"].decode()
        docker.run("rmi", "--force", name)
