"""Podman and skopeo before the proxy: mirrors in registries.conf, paths that name the upstream, no uplink."""

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.content import manifest_of
from tests.clients.mirrors import write_registries
from tests.clients.outside import Outside
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

HUB, OTHER, HOLE, LAZY = "docker.io", "other.example", "hole.example", "lazy.example"


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    quick = {"tag_ttl": 0, "connect_timeout": 1}
    upstreams = {
        HUB: Upstream(quick),
        OTHER: Upstream(quick),
        HOLE: Upstream(quick),
        LAZY: Upstream({"connect_timeout": 1, "prefetch": {"enabled": False}}),
    }
    with open_edge(need_distribution(request), tmp_path_factory.mktemp("edge"), upstreams) as edge:
        yield edge


@pytest.fixture(scope="module")
def surroundings(way_out: Outside) -> Mapping[str, str]:
    return way_out.environment


@pytest.fixture
def skopeo(make_client: MakeClient) -> Client:
    return make_client("skopeo")


@pytest.fixture
def repository() -> str:
    return f"team/app-{secrets.token_hex(4)}"


def mirrored(client: Client, edge: Edge, *names: str) -> None:
    """Tells the client that the registry is a mirror of these, by a path of their name."""
    write_registries(client.home, {name: [f"{edge.host}/{name}"] for name in names})


def digest_of(podman: Client, name: str) -> str:
    return podman.run("image", "inspect", "--format", "{{.Digest}}", name)


def test_without_a_mirror_podman_wants_to_reach_the_registry_itself(podman: Client, outside: Outside) -> None:
    podman.fail("pull", "--quiet", f"{OTHER}/team/app:latest")
    assert outside.asked[0].startswith(OTHER)


def test_podman_pulls_from_two_upstreams_by_their_own_names_and_runs_an_image(
    podman: Client,
    edge: Edge,
    outside: Outside,
    layout: Layout,
    index_layout: Layout,
    layers: list[dict[str, bytes]],
    repository: str,
) -> None:
    edge.push(HUB, f"library/{repository[5:]}", layout)
    digest = edge.push(OTHER, repository, index_layout)
    mirrored(podman, edge, HUB, OTHER)
    podman.run("pull", "--quiet", f"docker.io/{repository[5:]}:latest")
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    said = podman.run("run", "--rm", "--network", "none", *limits, f"docker.io/library/{repository[5:]}")
    assert said == layers[-1]["etc/last"].decode()
    podman.run("pull", "--quiet", f"{OTHER}/{repository}@{digest}")
    assert outside.asked == []


def test_podman_pulls_by_a_path_that_names_the_upstream(
    podman: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    digest = edge.push(OTHER, repository, layout)
    name = f"{edge.host}/{OTHER}/{repository}:latest"
    podman.run("pull", "--quiet", "--tls-verify=false", name)
    assert digest_of(podman, name) == digest


def test_skopeo_copies_every_platform_out_of_a_mirror_byte_for_byte(
    skopeo: Client, edge: Edge, outside: Outside, index_layout: Layout, tmp_path: Path, repository: str
) -> None:
    digest = edge.push(OTHER, repository, index_layout)
    mirrored(skopeo, edge, OTHER)
    target = tmp_path / "back"
    skopeo.run("--insecure-policy", "copy", "--quiet", "--all", f"docker://{OTHER}/{repository}", f"oci:{target}:v1")
    back = Layout(target, "v1", digest, index_layout.layers)
    assert all(back.blob(named) == index_layout.blob(named) for named in (digest, *index_layout.layers))
    assert outside.asked == []


def test_skopeo_inspects_and_lists_tags_by_a_path_that_names_the_upstream(
    skopeo: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    digest = edge.push(OTHER, repository, layout, "v1")
    edge.push(OTHER, repository, layout, "v2")
    name = f"docker://{edge.host}/{OTHER}/{repository}"
    assert json.loads(skopeo.run("inspect", "--tls-verify=false", f"{name}:v1"))["Digest"] == digest
    assert json.loads(skopeo.run("list-tags", "--tls-verify=false", name))["Tags"] == ["v1", "v2"]


def test_skopeo_may_not_push_into_the_name_space_of_an_upstream(
    skopeo: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    source, target = f"oci:{layout.folder}:{layout.tag}", f"docker://{edge.host}/{OTHER}/{repository}:v1"
    said = skopeo.fail("--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", source, target)
    assert "405" in said or "unsupported" in said.lower(), said
    assert edge.fronts[OTHER].count(f"/v2/{repository}/*", "POST") == 0


def test_podman_pulls_a_cached_tag_while_the_uplink_swallows_everything(
    podman: Client, edge: Edge, outside: Outside, layout: Layout, repository: str
) -> None:
    digest = edge.push(HOLE, repository, layout)
    name = f"{HOLE}/{repository}:latest"
    mirrored(podman, edge, HOLE)
    podman.run("pull", "--quiet", name)
    podman.run("rmi", "--all", "--force")
    with edge.offline(HOLE, how="blackhole", restart=True):
        podman.run("pull", "--quiet", name)
        assert digest_of(podman, name) == digest
        assert outside.asked == []


def test_podman_goes_to_its_next_mirror_when_only_the_manifest_is_here_and_the_uplink_is_gone(
    podman: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    digest = edge.push(LAZY, repository, layout)
    manifest_of(edge.server, f"{LAZY}/{repository}", "latest")
    name = f"{LAZY}/{repository}:latest"
    write_registries(podman.home, {LAZY: [f"{edge.host}/{LAZY}", edge.origins[LAZY].host]})
    with edge.offline(LAZY):
        podman.run("pull", "--quiet", name)
    assert digest_of(podman, name) == digest
