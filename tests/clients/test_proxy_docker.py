"""The Docker daemon before the proxy: a mirror of Docker Hub, a private registry, no uplink, indexes."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.clients.attested import attest
from tests.clients.outside import Outside
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.client import noise
from tests.services.clients import Client
from tests.services.front import Fault
from tests.services.images import Layout, write_image
from tests.services.registry import Credentials
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

HUB, PRIVATE = "docker.io", "private.example"


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Two ports: the first in front of Docker Hub, the second in front of a private registry."""
    user = Credentials("robot$puller", secrets.token_urlsafe(16))
    upstreams = {HUB: Upstream({"tag_ttl": 0, "connect_timeout": 1}), PRIVATE: Upstream(users=user, prefix="/company")}
    listeners = [{"read_only": True, "default_upstream": name} for name in upstreams]
    folder = tmp_path_factory.mktemp("edge")
    with open_edge(need_distribution(request), folder, upstreams, listeners=listeners) as edge:
        yield edge


@pytest.fixture(scope="module")
def surroundings(way_out: Outside) -> Mapping[str, str]:
    return way_out.environment


@pytest.fixture(scope="module")
def mirrors(edge: Edge) -> Sequence[str]:
    return [f"http://{edge.host}"]


@pytest.fixture
def word() -> str:
    return f"busybox-{secrets.token_hex(4)}"


def digests(docker: Client, name: str) -> list[str]:
    found = json.loads(docker.run("inspect", "--format", "{{json .RepoDigests}}", name))
    return [entry.partition("@")[2] for entry in found]


def forget(docker: Client, name: str) -> None:
    docker.run("rmi", "--force", name)
    docker.run("image", "prune", "--all", "--force")
    assert not docker.run("images", "--all", "--quiet")


def test_docker_pulls_a_one_word_name_through_its_mirror_and_runs_it(
    docker: Client, edge: Edge, outside: Outside, layout: Layout, layers: list[dict[str, bytes]], word: str
) -> None:
    digest = edge.push(HUB, f"library/{word}", layout)
    docker.run("pull", word)
    assert digests(docker, word) == [digest]
    assert docker.run("run", "--rm", "--network", "none", word) == layers[-1]["etc/last"].decode()
    assert outside.asked == []


def test_docker_pulls_by_digest_and_a_name_of_two_words_through_its_mirror(
    docker: Client, edge: Edge, outside: Outside, layout: Layout, word: str
) -> None:
    digest = edge.push(HUB, f"team/{word}", layout, "v1.2")
    docker.run("pull", f"team/{word}@{digest}")
    docker.run("pull", f"team/{word}:v1.2")
    assert digests(docker, f"team/{word}:v1.2") == [digest]
    assert outside.asked == []


def test_docker_goes_on_to_docker_hub_where_the_mirror_has_nothing(
    docker: Client, edge: Edge, outside: Outside, word: str
) -> None:
    docker.fail("pull", word)
    assert edge.fronts[HUB].count(f"/v2/library/{word}/manifests/latest") > 0
    assert set(outside.asked) == {"registry-1.docker.io:443"}


def test_docker_pulls_an_image_of_a_private_registry_without_its_password(
    docker: Client, edge: Edge, layout: Layout, word: str
) -> None:
    repository = f"project/repo/{word}"
    digest = edge.push(PRIVATE, f"company/{repository}", layout)
    port = edge.hosts[1].partition(":")[2]
    docker.run("pull", f"localhost:{port}/{repository}:latest")
    assert digests(docker, f"localhost:{port}/{repository}:latest") == [digest]


def test_docker_pulls_a_cached_tag_while_the_uplink_is_gone(
    docker: Client, edge: Edge, outside: Outside, layout: Layout, word: str
) -> None:
    digest = edge.push(HUB, f"library/{word}", layout)
    docker.run("pull", word)
    forget(docker, word)
    with edge.offline(HUB, restart=True):
        docker.run("pull", word)
        assert digests(docker, word) == [digest]
        assert outside.asked == []
        assert "503" in docker.fail("pull", f"{edge.host}/{word}-missing")
    edge.forget_outage()


def test_docker_pulls_a_layer_that_the_upstream_breaks_off(
    docker: Client, edge: Edge, outside: Outside, tmp_path: Path, word: str
) -> None:
    layout = write_image(tmp_path / "large", [{"noise": noise(3_000_000, word)}])
    digest = edge.push(HUB, f"library/{word}", layout)
    front = edge.fronts[HUB]
    blob = f"/v2/library/{word}/blobs/{layout.layers[0]}"
    rule = front.on(blob, Fault(cut=2_500_000), method="GET", times=1)
    docker.run("pull", word)
    assert digests(docker, word) == [digest]
    assert rule.taken == 1
    assert front.sent(blob) <= 4_500_000, "begun anew it is 5.5 MB; what was on its way when it broke may come again"
    assert outside.asked == []


def test_docker_pulls_its_own_platform_of_an_index_with_attestations(
    docker: Client, edge: Edge, outside: Outside, index_layout: Layout, layers: list[dict[str, bytes]], word: str
) -> None:
    layout, _ = attest(index_layout)
    digest = edge.push(HUB, f"library/{word}", layout)
    docker.run("pull", word)
    assert digests(docker, word) == [digest]
    assert docker.run("run", "--rm", "--network", "none", word) == layers[-1]["etc/last"].decode()
    docker.run("pull", "--platform", "linux/arm64", word)
    assert docker.run("inspect", "--format", "{{.Architecture}}", word) == "arm64"
    assert outside.asked == []
