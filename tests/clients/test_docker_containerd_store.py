"""Docker 29, which keeps images in containerd's store: the digests of the registry are its own."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.clients.attested import attest
from tests.clients.content import check_whole, is_there, tags_of
from tests.clients.outside import Outside
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.clients import Client
from tests.services.daemons import DockerDaemon
from tests.services.images import Layout
from tests.services.pushing import Pusher
from tests.services.registry import Credentials, RegistryServer, command, filesystem_store
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

HUB = "docker.io"
ARM = ("--platform", "linux/arm64")


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A registry in front of Docker Hub, which is the daemon's mirror of it.

    It has no default upstream: with this store Docker says to a mirror what it wants to have mirrored.
    """
    upstreams = {HUB: Upstream({"tag_ttl": 0, "connect_timeout": 1})}
    with open_edge(need_distribution(request), tmp_path_factory.mktemp("edge"), upstreams) as edge:
        yield edge


@pytest.fixture(scope="module")
def surroundings(way_out: Outside) -> Mapping[str, str]:
    return way_out.environment


@pytest.fixture(scope="module")
def dockerd(
    root: None,
    need: Callable[[str], Path],
    need_newer: Callable[[str], Path],
    edge: Edge,
    surroundings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DockerDaemon]:
    path = os.pathsep.join([str(need_newer("containerd")), os.environ["PATH"], "/usr/sbin", "/sbin"])
    with DockerDaemon(
        tmp_path_factory.mktemp("dockerd"),
        need_newer("docker") / "dockerd",
        need("docker"),
        mirrors=[f"http://{edge.host}"],
        environment={**surroundings, "PATH": path},
        snapshotter="native",
    ) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def empty(docker: Client) -> Iterator[None]:
    """Leaves the daemon nothing: what it holds, it neither pulls nor sends."""
    yield
    names = docker.run("images", "--all", "--quiet", "--no-trunc").split()
    if names:
        docker.run("rmi", "--force", *dict.fromkeys(names))
    docker.run("image", "prune", "--all", "--force")


def log_in(docker: Client, server: RegistryServer) -> None:
    if server.credentials:
        user = server.credentials
        docker.run("login", "--username", user.name, "--password-stdin", server.host, stdin=user.password)


def load(docker: Client, layout: Layout, name: str) -> None:
    """Gives the daemon the image under a name, with all its platforms."""
    index = layout.folder / "index.json"
    document = json.loads(index.read_text())
    document["manifests"][0]["annotations"] = {"io.containerd.image.name": name}
    index.write_text(json.dumps(document))
    docker.run("load", "--input", str(layout.archive(layout.folder.with_suffix(".tar"))))


def digest_of(docker: Client, name: str) -> str:
    return docker.run("inspect", "--format", "{{.Id}}", name)


def read(docker: Client, name: str) -> str:
    """The last file of the image. Debian's runc is too old to run what this Docker wants to be run."""
    container, target = docker.run("create", name), docker.home / "last"
    docker.run("cp", f"{container}:/etc/last", str(target))
    docker.run("rm", container)
    return target.read_text()


def last(layers: list[dict[str, bytes]]) -> str:
    return layers[-1]["etc/last"].decode()


def child_of(layout: Layout, architecture: str) -> str:
    children = json.loads(layout.blob(layout.digest))["manifests"]
    return str(next(child["digest"] for child in children if child["platform"]["architecture"] == architecture))


def forget(docker: Client, *names: str) -> None:
    """Removes these images, so that nothing of them is left."""
    docker.run("rmi", "--force", *names)
    docker.run("image", "prune", "--all", "--force")


def check_pulled(docker: Client, names: Sequence[str], digest: str, said: str) -> None:
    """Each name is pulled as that manifest, with those words in its last file; none is left."""
    for name in names:
        docker.run("pull", name)
        assert digest_of(docker, name) == digest
        assert read(docker, name) == said
        forget(docker, name)


def test_an_image_has_one_digest_here_and_there_when_it_is_pushed_removed_and_pulled(
    docker: Client, server: RegistryServer, layout: Layout, layers: list[dict[str, bytes]], repository: str
) -> None:
    log_in(docker, server)
    name = f"{server.host}/{repository}"
    load(docker, layout, f"{name}:v1")
    docker.run("push", f"{name}:v1")
    assert check_whole(server, repository, "v1") == layout.digest
    forget(docker, f"{name}:v1")
    check_pulled(docker, [f"{name}:v1", f"{name}@{layout.digest}"], layout.digest, last(layers))


def test_an_index_is_pushed_with_all_its_platforms_and_attestations_or_one_of_its_platforms_alone(
    docker: Client, plain: RegistryServer, index_layout: Layout, layers: list[dict[str, bytes]], repository: str
) -> None:
    layout, attestations = attest(index_layout)
    name = f"{plain.host}/{repository}"
    load(docker, layout, f"{name}:all")
    docker.run("push", f"{name}:all")
    assert check_whole(plain, repository, "all") == layout.digest
    assert all(is_there(plain, repository, attestation) for attestation in attestations)
    docker.run("tag", f"{name}:all", f"{name}-arm:one")
    docker.run("push", *ARM, f"{name}-arm:one")
    assert check_whole(plain, f"{repository}-arm", "one") == child_of(layout, "arm64")
    assert not is_there(plain, f"{repository}-arm", layout.digest)

    forget(docker, f"{name}:all", f"{name}-arm:one")
    docker.run("pull", *ARM, f"{name}:all")
    assert digest_of(docker, f"{name}:all") == layout.digest
    assert docker.run("image", "inspect", *ARM, "--format", "{{.Architecture}}", f"{name}:all") == "arm64"
    forget(docker, f"{name}:all")
    check_pulled(docker, [f"{name}:all", f"{name}@{layout.digest}"], layout.digest, last(layers))


def test_an_index_that_was_pulled_for_one_platform_is_pushed_as_that_and_whole_once_the_other_is_there(
    docker: Client, plain: RegistryServer, index_layout: Layout, repository: str
) -> None:
    Pusher(plain.url).layout(repository, index_layout, "all")
    source, target = f"{plain.host}/{repository}:all", f"{plain.host}/{repository}-copy:all"
    docker.run("pull", "--platform", "linux/amd64", source)
    docker.run("tag", source, target)
    assert "only the available single-platform image was pushed" in docker.hear("push", target)
    assert check_whole(plain, f"{repository}-copy", "all") == child_of(index_layout, "amd64")
    docker.run("pull", *ARM, source)
    docker.run("push", target)
    assert check_whole(plain, f"{repository}-copy", "all") == index_layout.digest


def test_layers_are_mounted_from_another_repository_and_not_sent_again_for_another_tag(
    docker: Client, server: RegistryServer, layout: Layout, repository: str
) -> None:
    log_in(docker, server)
    first, second, third = (f"{server.host}/{repository}{end}" for end in (":v1", ":v2", "-copy:v1"))
    load(docker, layout, first)
    docker.run("push", first)
    for name, how in ((second, "Layer already exists"), (third, f"Mounted from {repository}")):
        docker.run("tag", first, name)
        assert docker.run("push", name).count(how) == 3
    assert check_whole(server, f"{repository}-copy", "v1") == layout.digest
    assert tags_of(server, repository) == ["v1", "v2"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with a password, from which everybody pulls."""
    folder = tmp_path_factory.mktemp("shown")
    users = Credentials("edge", secrets.token_urlsafe(24))
    settings = {"EDGE_REGISTRY_AUTH__ANONYMOUS": "pull"}
    with RegistryServer(folder, filesystem_store(folder / "data"), users=users, settings=settings) as server:
        yield server


def test_everybody_pulls_where_that_is_allowed_and_pushes_with_the_password_only(
    docker: Client, shown: RegistryServer, layout: Layout, layers: list[dict[str, bytes]], repository: str
) -> None:
    name = f"{shown.host}/{repository}:v1"
    load(docker, layout, name)
    docker.fail("push", name)
    assert tags_of(shown, repository) == []
    log_in(docker, shown)
    docker.run("push", name)
    docker.run("logout", shown.host)
    forget(docker, name)
    check_pulled(docker, [name], layout.digest, last(layers))


def test_docker_is_told_that_its_password_is_wrong_or_missing(
    docker: Client, shown: RegistryServer, secured: RegistryServer, layout: Layout, repository: str
) -> None:
    said = docker.fail("login", "--username", "edge", "--password-stdin", shown.host, stdin="a guess")
    assert "unauthorized" in said.lower(), said
    name = f"{secured.host}/{repository}:v1"
    log_in(docker, secured)
    load(docker, layout, name)
    docker.run("push", name)
    docker.run("logout", secured.host)
    forget(docker, name)
    said = docker.fail("pull", name)
    assert "no basic auth credentials" in said, said


class Site:
    """A registry, and the commands that carry archives into and out of its store."""

    def __init__(self, folder: Path) -> None:
        self.store = filesystem_store(folder / "data")
        self.server = RegistryServer(folder, self.store)

    def bring(self, archive: Path, *arguments: str) -> str:
        """Imports beside the running server, and returns the digest of the one image."""
        [read] = json.loads(command("import", str(archive), *arguments, "--json", settings=self.store))["archives"]
        return str(read["images"][0]["digest"])

    def export(self, target: Path, *arguments: str) -> Path:
        command("export", *arguments, "-o", str(target), settings=self.store)
        return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    with found.server:
        yield found


@pytest.mark.parametrize("held", ["an image", "an index", "one platform of an index"])
def test_what_docker_saved_is_imported_with_its_digest_and_pulled_by_tag_and_digest(
    docker: Client,
    plain: RegistryServer,
    site: Site,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    repository: str,
    tmp_path: Path,
    held: str,
) -> None:
    found = layout if held == "an image" else index_layout
    source = f"{plain.host}/{repository}:v1"
    if held == "one platform of an index":
        Pusher(plain.url).layout(repository, found, "v1")
        docker.run("pull", source)
    else:
        load(docker, found, source)
    docker.run("save", source, "--output", str(tmp_path / "saved.tar"))
    forget(docker, source)
    assert site.bring(tmp_path / "saved.tar") == found.digest
    names = [f"{site.server.host}/{repository}{end}" for end in (":v1", f"@{found.digest}")]
    check_pulled(docker, names, found.digest, last(layers))


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("", ()),
        ("", ("--format", "oci")),
        ("registry.local:5045/", ("--host", "registry.local:5045")),
        ("", ("--platform", "linux/amd64")),
    ],
)
def test_docker_loads_an_exported_archive_with_the_digests_of_the_registry(
    docker: Client,
    site: Site,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    repository: str,
    tmp_path: Path,
    host: str,
    options: Sequence[str],
) -> None:
    images = {"one": layout, "multi": index_layout}
    for tag, found in images.items():
        Pusher(site.server.url).layout(repository, found, tag)
    archive = site.export(tmp_path / "images.tar", f"{repository}:*", *options)
    said = docker.run("load", "--input", str(archive))
    assert set(said.splitlines()) == {f"Loaded image: {host}{repository}:{tag}" for tag in images}
    for tag, found in images.items():
        name = f"{host}{repository}:{tag}"
        assert digest_of(docker, name) == found.digest
        assert read(docker, name) == last(layers)


def test_docker_refuses_a_delta_and_says_what_it_is(
    docker: Client, site: Site, layout: Layout, index_layout: Layout, repository: str, tmp_path: Path
) -> None:
    Pusher(site.server.url).layout(repository, layout, "one")
    first = site.export(tmp_path / "first.tar", f"{repository}:*")
    Pusher(site.server.url).layout(repository, index_layout, "multi")
    delta = site.export(tmp_path / "delta.tar", f"{repository}:*", "--have", str(first))
    assert "DELTA-for-edge-registry-import-only" in docker.fail("load", "--input", str(delta))
    assert not docker.run("images", "--all", "--quiet")


@pytest.fixture
def word() -> str:
    return f"busybox-{secrets.token_hex(4)}"


def test_a_name_of_docker_hub_comes_from_the_mirror_by_tag_and_digest_with_and_without_an_uplink(
    docker: Client,
    edge: Edge,
    outside: Outside,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    word: str,
) -> None:
    attested, _ = attest(index_layout)
    pulls = [(word, layout), (f"{word}-multi", attested)]
    for name, found in pulls:
        edge.push(HUB, f"library/{name}", found)
        check_mirrored(docker, edge, name, found, layers)
    with edge.offline(HUB, restart=True):
        for name, found in pulls:
            check_mirrored(docker, edge, name, found, layers)
    edge.forget_outage()
    assert outside.asked == []


def check_mirrored(docker: Client, edge: Edge, word: str, found: Layout, layers: list[dict[str, bytes]]) -> None:
    """Pulls it as an image of Docker Hub and from the registry itself."""
    names = [word, f"{word}@{found.digest}", f"{edge.host}/{HUB}/library/{word}"]
    check_pulled(docker, names, found.digest, last(layers))


def test_one_platform_and_then_another_of_an_index_comes_from_the_mirror(
    docker: Client, edge: Edge, outside: Outside, index_layout: Layout, word: str
) -> None:
    digest = edge.push(HUB, f"library/{word}", index_layout)
    docker.run("pull", word)
    docker.run("pull", *ARM, word)
    assert docker.run("image", "inspect", *ARM, "--format", "{{.Architecture}}", word) == "arm64"
    assert digest_of(docker, word) == digest
    assert outside.asked == []


def test_what_the_mirror_has_not_is_asked_of_docker_hub(
    docker: Client, edge: Edge, outside: Outside, word: str
) -> None:
    docker.fail("pull", word)
    assert edge.fronts[HUB].count(f"/v2/library/{word}/manifests/latest") > 0
    assert set(outside.asked) == {"registry-1.docker.io:443"}
