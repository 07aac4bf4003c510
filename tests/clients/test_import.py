"""Archives that other people's programs write, imported behind an air gap and pulled there, by tag and by digest."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.clients.content import check_whole
from tests.clients.mirrors import write_hosts
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout
from tests.services.minio import free_port
from tests.services.registry import RegistryServer, command, filesystem_store
from tests.transfer.archives import docker_save, tar

pytestmark = pytest.mark.clients

HUB: Final = "docker.io"


class Gapped:
    """A registry that dials nobody, with Docker Hub as its default upstream, and its `import`."""

    def __init__(self, folder: Path) -> None:
        self.settings = filesystem_store(folder / "data") | {
            "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps([{"name": HUB, "url": "https://registry-1.docker.io"}]),
            "EDGE_REGISTRY_PROXY__DEFAULT_UPSTREAM": HUB,
            "EDGE_REGISTRY_PROXY__AIR_GAPPED": "true",
        }
        self.server = RegistryServer(folder / "server", {}, settings=self.settings, port=free_port())

    def bring(self, *arguments: str) -> str:
        """Imports beside the running server, and returns the digest of the one image."""
        [archive] = json.loads(command("import", *arguments, "--json", settings=self.settings))["archives"]
        return str(archive["images"][0]["digest"])


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gapped]:
    found = Gapped(tmp_path_factory.mktemp("gapped"))
    with found.server:
        yield found


@pytest.fixture(scope="module")
def mirrors(gapped: Gapped) -> Sequence[str]:
    return [gapped.server.url]


@pytest.fixture
def tools(make_client: MakeClient) -> Callable[[str], Client]:
    return lambda name: make_client(name)


class Bench:
    """Where an image is turned into an archive; `name` is what it is called, `team/app-...:v1` of Docker Hub."""

    def __init__(self, folder: Path, layout: Layout, name: str, source: str) -> None:
        self.folder = folder
        self.layout = layout
        self.name = name
        self.source = source
        """The same image in a registry."""
        self.file = str(folder / "archive.tar")


Made = tuple[list[str], bool]
"""What `import` is told, and whether the archive keeps the digest that the image has in registries."""


def oci_folder(bench: Bench, _docker: Client, _ctr: Client, _tools: Callable[[str], Client]) -> Made:
    return [str(bench.layout.folder), "--name", f"{HUB}/{bench.name}"], True


def oci_archive_of_skopeo(bench: Bench, _docker: Client, _ctr: Client, tools: Callable[[str], Client]) -> Made:
    target = f"oci-archive:{bench.file}:{HUB}/{bench.name}"
    tools("skopeo").run("--insecure-policy", "copy", f"oci:{bench.layout.folder}:latest", target)
    packed = Path(f"{bench.file}.gz")
    packed.write_bytes(gzip.compress(Path(bench.file).read_bytes(), 1))
    return [str(packed)], True


def docker_archive_of_skopeo(bench: Bench, _docker: Client, _ctr: Client, tools: Callable[[str], Client]) -> Made:
    target = f"docker-archive:{bench.file}:{HUB}/{bench.name}"
    tools("skopeo").run("--insecure-policy", "copy", f"oci:{bench.layout.folder}:latest", target)
    return [bench.file], False


def saved_by_docker(bench: Bench, docker: Client, _ctr: Client, _tools: Callable[[str], Client]) -> Made:
    docker.run("pull", bench.source)
    docker.run("tag", bench.source, bench.name)
    docker.run("save", bench.name, "--output", bench.file)
    docker.run("rmi", "--force", bench.name, bench.source)
    return [bench.file], False


def saved_by_an_older_docker(bench: Bench, _docker: Client, _ctr: Client, _tools: Callable[[str], Client]) -> Made:
    manifest = json.loads(bench.layout.blob(bench.layout.digest))
    layers = [gzip.decompress(bench.layout.blob(layer["digest"])) for layer in manifest["layers"]]
    files = docker_save([bench.name], *layers)
    config = bench.layout.blob(manifest["config"]["digest"])
    Path(bench.file).write_bytes(tar([(p, config if p.endswith(".json") and len(p) == 69 else d) for p, d in files]))
    return [bench.file], False


def exported_by_ctr(bench: Bench, _docker: Client, ctr: Client, _tools: Callable[[str], Client]) -> Made:
    name = f"{HUB}/{bench.name}"
    ctr.run("images", "pull", "--plain-http", bench.source)
    ctr.run("images", "tag", bench.source, name)
    ctr.run("images", "export", bench.file, name)
    ctr.run("images", "remove", "--sync", name, bench.source)
    return [bench.file], True


def pulled_by_crane(bench: Bench, _docker: Client, _ctr: Client, tools: Callable[[str], Client]) -> Made:
    tools("crane").run("pull", "--insecure", bench.source, bench.file)
    return [bench.file, "--name", f"{HUB}/{bench.name}"], False


def pulled_by_crane_as_a_layout(bench: Bench, _docker: Client, _ctr: Client, tools: Callable[[str], Client]) -> Made:
    tools("crane").run("pull", "--insecure", "--format", "oci", bench.source, str(bench.folder / "crane"))
    return [str(bench.folder / "crane"), "--name", f"{HUB}/{bench.name}"], True


WRITERS: Final = [
    oci_folder,
    oci_archive_of_skopeo,
    docker_archive_of_skopeo,
    saved_by_docker,
    saved_by_an_older_docker,
    exported_by_ctr,
    pulled_by_crane,
    pulled_by_crane_as_a_layout,
]


@pytest.mark.parametrize("write", WRITERS)
def test_an_archive_is_imported_and_pulled_by_tag_and_by_digest(
    write: Callable[..., Made],
    gapped: Gapped,
    plain: RegistryServer,
    docker: Client,
    ctr: Client,
    tools: Callable[[str], Client],
    layout: Layout,
    layers: list[dict[str, bytes]],
    repository: str,
    tmp_path: Path,
) -> None:
    repository = repository.replace("/app/", "/app-")
    name, said = f"{repository}:v1", layers[-1]["etc/last"].decode()
    source = f"{plain.host}/{name}"
    tools("crane").run("push", "--insecure", str(layout.folder), source)
    told, kept = write(Bench(tmp_path, layout, name, source), docker, ctr, tools)

    digest = gapped.bring(*told)
    assert check_whole(gapped.server, f"{HUB}/{repository}", "v1") == digest
    assert (digest == layout.digest) is kept
    check_docker(docker, gapped.server.host, repository, digest, said)
    check_containerd(ctr, gapped.server, repository, digest, said, tmp_path)


def check_docker(docker: Client, host: str, repository: str, digest: str, said: str) -> None:
    """Docker gets it from its mirror under the name of the Hub, and from the registry itself under both of its names."""
    names = [f"{repository}:v1", f"{repository}@{digest}"]
    for name in [*names, *(f"{host}/{name}" for name in names), f"{host}/{HUB}/{repository}@{digest}"]:
        docker.run("pull", name)
        assert docker.run("run", "--rm", "--network", "none", name) == said
        docker.run("rmi", "--force", name)


def check_containerd(
    ctr: Client, server: RegistryServer, repository: str, digest: str, said: str, folder: Path
) -> None:
    """Containerd gets it through hosts.toml, and from the registry itself."""
    hosts = write_hosts(folder / "hosts", HUB, server.url)
    for number, ending in enumerate((":v1", f"@{digest}")):
        mirrored, plain = f"{HUB}/{repository}{ending}", f"{server.host}/{repository}{ending}"
        ctr.run("images", "pull", "--hosts-dir", str(hosts), mirrored)
        assert digest in ctr.run("images", "list", f"name=={mirrored}")
        assert ctr.run("run", "--rm", mirrored, f"{digest[7:20]}-{number}") == said
        ctr.run("images", "remove", "--sync", mirrored)
        ctr.run("images", "pull", "--plain-http", plain)
        ctr.run("images", "remove", "--sync", plain)


def test_every_platform_of_an_index_keeps_its_digest(
    gapped: Gapped,
    plain: RegistryServer,
    ctr: Client,
    generation: str,
    tools: Callable[[str], Client],
    index_layout: Layout,
    repository: str,
    tmp_path: Path,
) -> None:
    repository = repository.replace("/app/", "/many-")
    source, name = f"{plain.host}/{repository}:v1", f"{HUB}/{repository}:v1"
    copied = (f"oci:{index_layout.folder}:latest", f"docker://{source}")
    tools("skopeo").run("--insecure-policy", "copy", "--all", "--dest-tls-verify=false", *copied)
    hosts = write_hosts(tmp_path / "hosts", HUB, gapped.server.url)
    for options in (["--platform", "linux/amd64"], ["--all-platforms"]):
        ctr.run("images", "pull", *options, "--plain-http", source)
        ctr.run("images", "tag", "--force", source, name)
        ctr.run("images", "export", *options, str(tmp_path / "index.tar"), name)
        ctr.run("images", "remove", "--sync", name, source)
        assert gapped.bring(str(tmp_path / "index.tar")) == index_layout.digest
        # ctr 2 wants the manifests of all platforms, which an archive of one does not have; the kubelet does not.
        own = ["--skip-metadata"] if (generation, options[0]) == ("2", "--platform") else []
        for reference in (name, f"{HUB}/{repository}@{index_layout.digest}"):
            ctr.run("images", "pull", *options, *own, "--hosts-dir", str(hosts), reference)
            assert index_layout.digest in ctr.run("images", "list", f"name=={reference}")
            ctr.run("images", "remove", "--sync", reference)
    assert check_whole(gapped.server, f"{HUB}/{repository}", index_layout.digest) == index_layout.digest


def test_several_images_that_podman_saved_are_pulled_by_podman(
    gapped: Gapped,
    plain: RegistryServer,
    podman: Client,
    tools: Callable[[str], Client],
    layout: Layout,
    repository: str,
    tmp_path: Path,
) -> None:
    names = [f"{plain.host}/{repository}-{number}:v1" for number in (1, 2)]
    for name in names:
        tools("crane").run("push", "--insecure", str(layout.folder), name)
        podman.run("pull", "--tls-verify=false", name)
    podman.run("save", "--multi-image-archive", "--output", str(tmp_path / "podman.tar"), *names)
    podman.run("rmi", "--force", *names)
    digest = gapped.bring(str(tmp_path / "podman.tar"))
    for number in (1, 2):
        for ending in (":v1", f"@{digest}"):
            podman.run("pull", "--tls-verify=false", f"{gapped.server.host}/{repository}-{number}{ending}")
