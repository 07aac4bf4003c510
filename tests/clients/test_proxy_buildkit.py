"""BuildKit before the proxy, with the mirrors that node-config prints: FROM of upstreams that it never speaks to."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.content import check_whole, manifest_of
from tests.clients.outside import Outside
from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.buildkit import Builder, StartBuilder, make_context, make_node, open_builders, push
from tests.services.images import Layout, write_image
from tests.services.registry import Credentials, RegistryServer
from tests.services.upstreams import need_distribution

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("root")]

NAME: Final = "container-registry.test"
"""What BuildKit calls the registry where it speaks no TLS."""
HUB, ONE, GONE = "docker.io", "one.example", "gone.example:8443"
ALL: Final = (HUB, ONE, GONE)
"""The upstreams; only one test uses the last."""
READING: Final = 'RUN ["/bin/busybox", "cat", "/etc/last"]\n'


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A port with TLS that wants a password, and a plain one from which everybody may pull."""
    listeners: list[dict[str, Any]] = [
        {"anonymous": "none"},
        {"read_only": True, "anonymous": "pull", "tls": False},
    ]
    with open_edge(
        need_distribution(request),
        tmp_path_factory.mktemp("edge"),
        {name: Upstream({"tag_ttl": 0, "connect_timeout": 1}) for name in ALL},
        listeners=listeners,
        users=Credentials("ann", secrets.token_urlsafe(16)),
        tls=True,
    ) as edge:
        yield edge


@pytest.fixture(scope="module")
def tls_node(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_node(tmp_path_factory.mktemp("tls"), "--host", edge.host, "--ca", str(edge.server.ca), *mirrored())


@pytest.fixture(scope="module")
def plain_node(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    port = edge.hosts[1].partition(":")[2]
    host = ["--host", f"{NAME}:{port}", "--address", f"{NAME}=127.0.0.1", "--plain-http"]
    return make_node(tmp_path_factory.mktemp("plain"), *host, *mirrored())


@pytest.fixture(params=["plain_node", "tls_node"])
def node(request: pytest.FixtureRequest) -> Path:
    """Both of them in turn."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def surroundings(way_out: Outside) -> Mapping[str, str]:
    return way_out.environment | dict.fromkeys(("NO_PROXY", "no_proxy"), f"127.0.0.1,localhost,{NAME}")


@pytest.fixture
def start_builder(
    need: Callable[[str], Path],
    need_newer: Callable[[str], Path],
    edge: Edge,
    surroundings: Mapping[str, str],
    tmp_path: Path,
) -> Iterator[StartBuilder]:
    """Starts empty builders, logged in at the port with TLS, which have no other way out than to the registry."""
    user = edge.server.credentials
    assert user is not None
    with open_builders(need_newer("buildkit"), need("runc"), tmp_path) as start:

        def start_logged_in(node: Path) -> Builder:
            builder = start(node, surroundings)
            builder.log_in(edge.host, user)
            return builder

        yield start_logged_in


def mirrored() -> list[str]:
    return [option for name in ALL for option in ("--mirror", name)]


def test_without_a_mirror_buildkit_wants_to_reach_the_registry_itself(
    start_builder: StartBuilder, node: Path, outside: Outside, tmp_path: Path
) -> None:
    start_builder(node).fail(make_context(tmp_path / "context", "FROM other.example/team/app:v1\nRUN x\n"))
    assert set(outside.asked) == {"other.example:443"}


def test_from_one_word_of_docker_hub_and_from_another_registry_by_its_name(
    start_builder: StartBuilder,
    node: Path,
    edge: Edge,
    outside: Outside,
    layout: Layout,
    layers: list[dict[str, bytes]],
    tmp_path: Path,
) -> None:
    word = f"busybox-{secrets.token_hex(4)}"
    edge.push(HUB, f"library/{word}", layout)
    other = write_image(tmp_path / "other", [{"etc/other": b"from the other one\n"}])
    edge.push(ONE, "team/other", other, "v1")
    dockerfile = f"FROM {word}\nCOPY --from={ONE}/team/other:v1 /etc/other /etc/other\n{READING}"
    said = start_builder(node).build(make_context(tmp_path / "context", dockerfile)).said
    assert layers[-1]["etc/last"].decode() in said
    assert outside.asked == []


def test_an_index_is_pulled_for_each_platform_that_is_built(
    start_builder: StartBuilder, node: Path, edge: Edge, outside: Outside, index_layout: Layout, tmp_path: Path
) -> None:
    digest = edge.push(ONE, f"team/{node.parent.name}", index_layout, "v1")
    context = make_context(
        tmp_path / "context", f"FROM {ONE}/team/{node.parent.name}:v1@{digest}\nCOPY a /a\n", {"a": b""}
    )
    platforms = "--opt=platform=linux/amd64,linux/arm64"
    start_builder(node).build(context, platforms, f"--output=type=oci,dest={tmp_path / 'image.tar'}")
    assert outside.asked == []


def test_from_the_cache_while_the_uplink_is_gone(
    start_builder: StartBuilder,
    tls_node: Path,
    edge: Edge,
    outside: Outside,
    layout: Layout,
    layers: list[dict[str, bytes]],
    tmp_path: Path,
) -> None:
    edge.push(GONE, "team/cached", layout)
    context = make_context(tmp_path / "context", f"FROM {GONE}/team/cached\n{READING}")
    start_builder(tls_node).build(context)
    with edge.offline(GONE, restart=True):
        assert layers[-1]["etc/last"].decode() in start_builder(tls_node).build(context).said
    assert outside.asked == []


@pytest.mark.parametrize("manifest", [True, False], ids=["image", "index of layers"])
def test_a_cache_at_an_upstream_spares_an_empty_builder_every_step(
    start_builder: StartBuilder,
    plain_node: Path,
    edge: Edge,
    outside: Outside,
    plain: RegistryServer,
    busybox: bytes,
    tmp_path: Path,
    manifest: bool,
) -> None:
    steps = 'FROM scratch\nCOPY busybox /bin/busybox\nCOPY said /etc/said\nRUN ["/bin/busybox", "cat", "/etc/said"]\n'
    said = secrets.token_hex(16)
    context = make_context(tmp_path / "context", steps, {"busybox": busybox, "said": said.encode()})
    repository, form = f"team/cache-{secrets.token_hex(4)}", f"image-manifest={str(manifest).lower()}"
    there = f"type=registry,ref={plain.host}/{repository}:v1,mode=max,{form}"
    assert said in start_builder(plain_node).build(context, f"--export-cache={there}").said
    image = f"--output=type=oci,dest={tmp_path / 'image.tar'}"
    front = edge.fronts[ONE]
    front.target = plain.url  # Distribution takes no index of layers
    try:
        here = f"type=registry,ref={ONE}/{repository}:v1"
        assert said not in start_builder(plain_node).build(context, f"--import-cache={here}", image).said
    finally:
        front.target = edge.origins[ONE].url
    assert outside.asked == []


def test_an_image_on_an_upstreams_base_is_pushed_here_whole(
    start_builder: StartBuilder, tls_node: Path, edge: Edge, outside: Outside, layout: Layout, tmp_path: Path
) -> None:
    edge.push(HUB, "library/base", layout)
    context = make_context(tmp_path / "context", "FROM base\nLABEL a=b\n")
    built = start_builder(tls_node).build(context, push(f"{edge.host}/team/built:v1"))
    assert check_whole(edge.server, "team/built", "v1") == built.digest
    assert [layer["digest"] for layer in manifest_of(edge.server, "team/built", "v1")[1]["layers"]] == [*layout.layers]
    assert outside.asked == []


def test_a_missing_image_is_said_to_be_missing_although_buildkit_asks_its_registry_then(
    start_builder: StartBuilder, node: Path, edge: Edge, outside: Outside, tmp_path: Path
) -> None:
    said = start_builder(node).fail(
        make_context(tmp_path / "context", f"FROM {ONE}/team/nothing:v1\nCOPY a /a\n", {"a": b""})
    )
    assert "/v2/team/nothing/manifests/v1" in edge.server.read_log()
    assert f"{ONE}/team/nothing:v1: not found" in said
    assert set(outside.asked) == {f"{ONE}:443"}
