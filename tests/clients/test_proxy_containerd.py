"""Containerd through `ctr` before the proxy: mirrors in hosts.toml, a private registry, no uplink, every platform."""

import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.clients.attested import attest
from tests.clients.mirrors import EVERYTHING, write_hosts
from tests.clients.outside import Outside
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.clients import Client
from tests.services.front.server import Outage
from tests.services.images import Layout, write_image
from tests.services.registry import Credentials
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

ONE, TWO, HUB, PRIVATE = "one.example", "two.example:8443", "docker.io", "private.example"
OUTAGES: Final[Mapping[str, Outage]] = {"gone.example": "refused", "hole.example": "blackhole"}
"""Upstreams that only one test uses, and what happens to them there."""


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("edge")
    user = Credentials("robot$puller", secrets.token_urlsafe(16))
    at_once = {"tag_ttl": 0, "connect_timeout": 1}
    upstreams = {name: Upstream(at_once) for name in (ONE, TWO, HUB, *OUTAGES)}
    upstreams[PRIVATE] = Upstream(users=user, prefix="/company")
    with open_edge(need_distribution(request), folder, upstreams, default=PRIVATE) as edge:
        yield edge


@pytest.fixture(scope="module")
def surroundings(way_out: Outside) -> Mapping[str, str]:
    return way_out.environment


@pytest.fixture
def repository() -> str:
    return f"team/app-{secrets.token_hex(4)}"


def small(folder: Path, said: str) -> Layout:
    """An image of one small layer."""
    return write_image(folder / said, [{"etc/said": said.encode() + secrets.token_bytes(8)}])


def listed(ctr: Client, name: str) -> str:
    return ctr.run("images", "list", f"name=={name}")


def pull(ctr: Client, hosts: Path, name: str, *options: str) -> None:
    ctr.run("images", "pull", *options, "--hosts-dir", str(hosts), name)


def test_without_a_mirror_containerd_wants_to_reach_the_registry_itself(
    ctr: Client, outside: Outside, repository: str
) -> None:
    ctr.fail("images", "pull", f"{ONE}/{repository}:latest")
    assert outside.asked[0].startswith(ONE)


@pytest.mark.parametrize("per_host", [True, False], ids=["per host", "default"])
def test_containerd_pulls_from_three_upstreams_by_their_own_names(
    ctr: Client, edge: Edge, outside: Outside, tmp_path: Path, repository: str, per_host: bool
) -> None:
    pushed = {name: edge.push(name, repository, small(tmp_path, name)) for name in (ONE, TWO, HUB)}
    for name in pushed if per_host else [EVERYTHING]:
        write_hosts(tmp_path / "hosts", name, f"http://{edge.host}")
    for name, digest in pushed.items():
        pull(ctr, tmp_path / "hosts", f"{name}/{repository}:latest")
        assert digest in listed(ctr, f"{name}/{repository}:latest")
    assert len(set(pushed.values())) == 3
    assert outside.asked == []


def test_containerd_pulls_a_one_word_name_of_docker_hub_and_runs_it(
    ctr: Client, edge: Edge, outside: Outside, layout: Layout, layers: list[dict[str, bytes]], tmp_path: Path
) -> None:
    word = f"busybox-{secrets.token_hex(4)}"
    digest = edge.push(HUB, f"library/{word}", layout)
    name = f"docker.io/library/{word}:latest"
    pull(ctr, write_hosts(tmp_path / "hosts", HUB, f"http://{edge.host}"), name)
    assert digest in listed(ctr, name)
    assert ctr.run("run", "--rm", name, f"test-{secrets.token_hex(4)}") == layers[-1]["etc/last"].decode()
    assert outside.asked == []


def test_containerd_pulls_by_a_path_that_names_the_upstream(
    ctr: Client, edge: Edge, outside: Outside, tmp_path: Path, repository: str
) -> None:
    digest = edge.push(ONE, repository, small(tmp_path, "here"))
    hosts = write_hosts(tmp_path / "hosts", ONE, f"http://{edge.host}/v2/{ONE}", override_path=True)
    pull(ctr, hosts, f"{ONE}/{repository}:latest")
    assert digest in listed(ctr, f"{ONE}/{repository}:latest")
    assert outside.asked == []


def test_containerd_goes_on_to_the_registry_itself_where_the_mirror_knows_no_such_upstream(
    ctr: Client, edge: Edge, outside: Outside, tmp_path: Path, repository: str
) -> None:
    hosts = write_hosts(tmp_path / "hosts", EVERYTHING, f"http://{edge.host}")
    ctr.fail("images", "pull", "--hosts-dir", str(hosts), f"other.example/{repository}:latest")
    assert f"/v2/{repository}/manifests/latest" in edge.server.read_log()
    assert set(outside.asked) == {"other.example:443"}


def test_containerd_pulls_an_image_of_a_private_registry_without_its_password(
    ctr: Client, edge: Edge, outside: Outside, tmp_path: Path
) -> None:
    repository = f"project/repo/image-{secrets.token_hex(4)}"
    digest = edge.push(PRIVATE, f"company/{repository}", small(tmp_path, "private"))
    name = f"localhost:{edge.server.port}/{repository}:latest"
    ctr.run("images", "pull", name)
    assert digest in listed(ctr, name)
    asked = edge.fronts[PRIVATE].records.find(f"/v2/company/{repository}/*")
    assert {request.status for request in asked} == {200, 401}
    assert any(request.authorization for request in asked)


@pytest.mark.parametrize("upstream", OUTAGES)
def test_containerd_pulls_a_cached_tag_while_the_uplink_is_gone(
    ctr: Client, edge: Edge, outside: Outside, tmp_path: Path, repository: str, upstream: str
) -> None:
    name = f"{upstream}/{repository}:latest"
    digest = edge.push(upstream, repository, small(tmp_path, "cached"))
    hosts = write_hosts(tmp_path / "hosts", upstream, f"http://{edge.host}")
    pull(ctr, hosts, name)
    ctr.run("images", "remove", "--sync", name)
    assert digest not in ctr.run("content", "list")
    with edge.offline(upstream, how=OUTAGES[upstream], restart=True):
        pull(ctr, hosts, name)
        assert digest in listed(ctr, name)
        assert outside.asked == []
        began = time.monotonic()
        ctr.fail("images", "pull", "--hosts-dir", str(hosts), f"{upstream}/{repository}-missing:latest")
        assert time.monotonic() - began < 20, "one dial of containerd into a black hole takes 30 s"


def test_containerd_fetches_every_platform_and_every_attestation(
    ctr: Client, edge: Edge, index_layout: Layout, tmp_path: Path, repository: str
) -> None:
    layout, attestations = attest(index_layout)
    digest = edge.push(TWO, repository, layout)
    name = f"{TWO}/{repository}:latest"
    hosts = write_hosts(tmp_path / "hosts", TWO, f"http://{edge.host}")
    ctr.run("content", "fetch", "--all-platforms", "--hosts-dir", str(hosts), name)
    held = ctr.run("content", "list")
    for named in (digest, *attestations, *layout.layers):
        assert named in held
    fetched = ctr.run("content", "get", digest)
    assert fetched == layout.blob(digest).decode()


def test_containerd_pulls_its_own_platform_of_an_index_with_attestations(
    ctr: Client, edge: Edge, index_layout: Layout, layers: list[dict[str, bytes]], tmp_path: Path, repository: str
) -> None:
    layout, _ = attest(index_layout)
    edge.push(TWO, repository, layout)
    name = f"{TWO}/{repository}:latest"
    pull(ctr, write_hosts(tmp_path / "hosts", TWO, f"http://{edge.host}"), name, "--platform", "linux/amd64")
    assert ctr.run("run", "--rm", name, f"test-{secrets.token_hex(4)}") == layers[-1]["etc/last"].decode()
