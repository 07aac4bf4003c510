"""Crane, regctl and curl before the proxy: the upstream in the path or in a header, ranges, stale answers, misses."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.clients.proxied import Edge, Upstream, open_edge
from tests.services.client import digest_of, noise
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.front import Fault
from tests.services.front.server import Outage
from tests.services.images import MANIFEST, Layout, write_image
from tests.services.upstreams import need_distribution

pytestmark = pytest.mark.clients

HUB, ONE = "docker.io", "registry.example:5000"
FOLDER = "registry.example_5000"
"""How ONE is called in an image's name, where a port can only stand behind the first host."""
OLD: Final = "old.example"
THIN: Final = "thin.example"
"""An upstream of which 2 MB a second are taken at most."""
OUTAGES: Final[Mapping[str, Outage]] = {"gone.example": "refused", "hole.example": "blackhole"}
"""Like OLD, upstreams that only one test uses, and what happens to them there."""
SIZE = 3_000_000


@pytest.fixture(scope="module")
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    quick = {"tag_ttl": 0, "connect_timeout": 1, "prefetch": {"enabled": False}}
    upstreams = {name: Upstream(quick) for name in (HUB, ONE, OLD, *OUTAGES)}
    upstreams[THIN] = Upstream(quick | {"bandwidth": 2_000_000})
    with open_edge(need_distribution(request), tmp_path_factory.mktemp("edge"), upstreams) as edge:
        yield edge


@pytest.fixture
def curl(make_client: MakeClient) -> Client:
    return make_client("curl", ["--silent", "--show-error", "--max-time", "60"])


@pytest.fixture
def crane(make_client: MakeClient) -> Client:
    return make_client("crane")


@pytest.fixture
def repository() -> str:
    return f"team/app-{secrets.token_hex(4)}"


@pytest.fixture
def blob(edge: Edge, repository: str) -> bytes:
    """A cold blob of the upstream ONE, in `repository` there."""
    data = noise(SIZE, repository)
    edge.origins[ONE].pusher.blob(repository, data)
    return data


def blob_url(edge: Edge, repository: str, blob: bytes) -> str:
    return f"http://{edge.host}/v2/{ONE}/{repository}/blobs/{digest_of(blob)}"


def test_crane_pulls_by_a_path_that_names_the_upstream(
    crane: Client, edge: Edge, index_layout: Layout, tmp_path: Path, repository: str
) -> None:
    digest = edge.push(HUB, f"library/{repository[5:]}", index_layout, "v1")
    name = f"{edge.host}/docker.io/{repository[5:]}:v1"
    assert crane.run("digest", name) == digest
    crane.run("validate", "--remote", name)
    crane.run("pull", "--format", "oci", name, str(tmp_path / "back"))
    back = Layout(tmp_path / "back", "v1", digest, index_layout.layers)
    assert all(back.blob(named) == index_layout.blob(named) for named in (digest, *index_layout.layers))
    assert crane.run("ls", f"{edge.host}/docker.io/{repository[5:]}") == "v1"


def test_crane_copies_from_an_upstream_into_the_registrys_own_name_space(
    crane: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    digest = edge.push(HUB, repository, layout, "v1")
    target = f"{edge.host}/mine/{repository}:v1"
    crane.run("copy", f"{edge.host}/docker.io/{repository}:v1", target)
    assert crane.run("digest", target) == digest
    crane.run("validate", "--remote", target)


def test_crane_may_not_push_into_the_name_space_of_an_upstream(
    crane: Client, edge: Edge, layout: Layout, repository: str
) -> None:
    said = crane.fail("push", str(layout.folder), f"{edge.host}/docker.io/{repository}:v1")
    assert "UNSUPPORTED" in said, said


def test_clients_that_pull_one_cold_image_at_once_cost_one_transfer(
    curl: Client, crane: Client, make_client: MakeClient, edge: Edge, tmp_path: Path, repository: str
) -> None:
    layout = write_image(tmp_path / "large", [{"noise": noise(SIZE, repository)}])
    edge.push(ONE, repository, layout)
    front, layer = edge.fronts[ONE], layout.layers[0]
    skopeo, regctl = make_client("skopeo"), make_client("regctl", ["--host", f"reg={edge.host},tls=disabled"])
    url, name = f"http://{edge.host}/v2/{ONE}/{repository}/blobs/{layer}", f"{edge.host}/{FOLDER}/{repository}:latest"
    pulls: list[Callable[[], str]] = [
        lambda: crane.run("pull", "--format", "oci", name, str(tmp_path / "crane")),
        lambda: regctl.run("image", "copy", name, f"ocidir://{tmp_path}/regctl:latest"),
        lambda: skopeo.run(
            *("--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"),
            *(f"docker://{name}", f"oci:{tmp_path}/skopeo:latest"),
        ),
        *(partial(curl.run, "--output", str(tmp_path / f"curl{one}"), url) for one in range(5)),
    ]
    front.rate = 1_500_000  # so slow that all of them meet
    try:
        with ThreadPoolExecutor(len(pulls)) as pool:
            list(pool.map(lambda pull: pull(), pulls))
    finally:
        front.rate = None
    for client in ("crane", "regctl", "skopeo"):
        back = Layout(tmp_path / client, "latest", layout.digest, layout.layers)
        assert all(back.blob(named) == layout.blob(named) for named in (layout.digest, layer))
    assert all((tmp_path / f"curl{one}").read_bytes() == layout.blob(layer) for one in range(5))
    for path in (f"blobs/{layer}", f"manifests/{layout.digest}"):
        assert front.count(f"/v2/{repository}/{path}", "GET") == 1


@pytest.mark.parametrize("way", ["header", "ns"])
def test_curl_names_the_upstream_beside_the_path(
    curl: Client, edge: Edge, layout: Layout, repository: str, way: str
) -> None:
    edge.push(HUB, repository, layout)
    url = f"http://{edge.host}/v2/{repository}/manifests/latest"
    named = {"header": ["--header", "X-Registry: index.docker.io", url], "ns": [f"{url}?ns=docker.io"]}
    said = curl.run("--include", "--header", f"Accept: {MANIFEST}", *named[way])
    assert layout.digest in said
    assert said.endswith(layout.blob(layout.digest).decode())
    assert ("oci-namespace: docker.io" in said.lower()) is (way == "ns")
    assert "NAME_UNKNOWN" in curl.run("--header", "X-Registry: other.example", url)


def test_curl_reads_ranges_of_a_cold_blob_in_one_transfer(
    curl: Client, edge: Edge, tmp_path: Path, blob: bytes, repository: str
) -> None:
    url = blob_url(edge, repository, blob)
    ranges = ["2999000-", "0-9", "-5", "1000000-1999999"]
    each = [["--output", str(tmp_path / wanted.strip()), "--range", wanted, url] for wanted in ranges]
    parallel = [word for one in each for word in ("--next", "--silent", "--fail", *one)][1:]
    curl.run("--parallel", "--parallel-immediate", *parallel)
    found = [(tmp_path / wanted).read_bytes() for wanted in ranges]
    assert found == [blob[2_999_000:], blob[:10], blob[-5:], blob[1_000_000:2_000_000]]
    assert curl.run("--output", "/dev/null", "--write-out", "%{http_code}", "--range", f"{SIZE}-", url) == "416"
    assert edge.fronts[ONE].count(f"/v2/{repository}/blobs/*", "GET") == 1


def test_curl_continues_a_download_where_it_was_broken_off(
    curl: Client, edge: Edge, tmp_path: Path, blob: bytes, repository: str
) -> None:
    url, target = blob_url(edge, repository, blob), tmp_path / "blob"
    target.write_bytes(blob[:1_234_567])
    assert curl.run("--continue-at", "-", "--output", str(target), "--write-out", "%{http_code}", url) == "206"
    assert target.read_bytes() == blob
    assert edge.fronts[ONE].sent(f"/v2/{repository}/blobs/*") <= SIZE


def test_no_byte_is_asked_for_twice_over_a_thin_uplink_that_breaks_off_again_and_again(
    curl: Client, edge: Edge, tmp_path: Path, repository: str
) -> None:
    data = noise(SIZE, repository)
    edge.origins[THIN].pusher.blob(repository, data)
    front, path = edge.fronts[THIN], f"/v2/{repository}/blobs/{digest_of(data)}"
    rule = front.on(path, Fault(cut=800_000), method="GET")
    curl.run("--fail", "--output", str(tmp_path / "blob"), f"http://{edge.host}/v2/{THIN}{path[3:]}")
    assert (tmp_path / "blob").read_bytes() == data
    assert rule.taken == 4
    assert front.sent(path) == SIZE, "what had come when it broke is as good as the rest"


def test_a_stale_tag_comes_with_a_warning_that_regctl_shows(
    curl: Client, make_client: MakeClient, edge: Edge, layout: Layout, repository: str
) -> None:
    edge.push(OLD, repository, layout)
    url = f"http://{edge.host}/v2/{OLD}/{repository}/manifests/latest"
    assert "warning:" not in curl.run("--include", url).lower()
    regctl = make_client("regctl", ["--host", f"reg={edge.host},tls=disabled"])
    with edge.offline(OLD, restart=True):
        said = curl.run("--include", url)
        assert f'warning: 299 - "{OLD}' in said.lower()
        assert "\nage: " in said.lower()
        heard = regctl.hear("manifest", "head", f"{edge.host}/{OLD}/{repository}:latest")
        assert f"{OLD} has been unreachable" in heard or f"{OLD} cannot be reached" in heard, heard


@pytest.mark.parametrize("upstream", OUTAGES)
def test_a_miss_is_answered_at_once_while_the_uplink_is_gone(curl: Client, edge: Edge, upstream: str) -> None:
    with edge.offline(upstream, how=OUTAGES[upstream]):
        url = f"http://{edge.host}/v2/{upstream}/team/missing/manifests/latest"
        for _ in range(2):  # the breaker opens
            curl.run(url)
        answers = [curl.run("--include", "--write-out", "\n%{time_total}", url) for _ in range(10)]
    head, _, body = answers[-1].rpartition("\n")[0].partition("\n\n")
    assert head.startswith("HTTP/1.1 503")
    assert "retry-after:" in head.lower()
    assert upstream in json.loads(body)["errors"][0]["message"]
    assert min(float(answer.rpartition("\n")[2]) for answer in answers) < 0.05
