"""Which repository a request means: every way of naming an upstream, and nothing that is not configured is dialled."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.proxy.pulling import pulling, section, stored
from tests.services.app import Running
from tests.services.client import digest_of
from tests.services.front import Front
from tests.services.upstreams import Distribution, need_distribution

HUB, QUAY, PORTED = "docker.io", "quay.example", "registry.example:5000"


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        for repository in ("library/alpine", "team/app", "deep/er/and/deeper"):
            server.pusher.image(repository, "1", [100])
        yield server


@pytest.fixture
async def service(front: Front, tmp_path: Path) -> AsyncIterator[Running]:
    """Three names for one upstream, and an own name."""
    upstreams = [
        section(front.url, HUB),
        section(front.url, QUAY, aliases=["mirror.quay.example", "q"]),
        section(front.url, PORTED),
    ]
    async with pulling(tmp_path, *upstreams, http={"public_url": "https://edge.example:5045"}) as service:
        yield service


NAMES: list[tuple[str, dict[str, str], str, str]] = [
    (f"{QUAY}/team/app", {}, "team/app", f"{QUAY}/team/app"),
    ("q/team/app", {}, "team/app", f"{QUAY}/team/app"),
    (f"{QUAY}/deep/er/and/deeper", {}, "deep/er/and/deeper", f"{QUAY}/deep/er/and/deeper"),
    ("QUAY.Example/team/app", {}, "team/app", f"{QUAY}/team/app"),
    (f"team/app?ns={QUAY}", {}, "team/app", f"{QUAY}/team/app"),
    ("team/app?ns=mirror.quay.example", {}, "team/app", f"{QUAY}/team/app"),
    (f"{QUAY}/team/app?ns={QUAY}", {}, "team/app", f"{QUAY}/team/app"),
    (f"q/team/app?ns={QUAY}", {}, "team/app", f"{QUAY}/team/app"),
    ("team/app", {"X_Registry": QUAY}, "team/app", f"{QUAY}/team/app"),
    ("team/app", {"x_registry": "QUAY.EXAMPLE"}, "team/app", f"{QUAY}/team/app"),
    (f"{QUAY}/team/app", {"X_REGISTRY": QUAY}, "team/app", f"{QUAY}/team/app"),
    (f"team/app?ns={HUB}", {"X_Registry": QUAY}, "team/app", f"{QUAY}/team/app"),
    (f"{HUB}/alpine", {}, "library/alpine", f"{HUB}/library/alpine"),
    (f"{HUB}/library/alpine", {}, "library/alpine", f"{HUB}/library/alpine"),
    ("index.docker.io/alpine", {}, "library/alpine", f"{HUB}/library/alpine"),
    ("registry-1.docker.io/team/app", {}, "team/app", f"{HUB}/team/app"),
    (f"alpine?ns={HUB}", {}, "library/alpine", f"{HUB}/library/alpine"),
    ("alpine?ns=registry-1.docker.io", {}, "library/alpine", f"{HUB}/library/alpine"),
    ("alpine", {"X_Registry": "Index.Docker.io"}, "library/alpine", f"{HUB}/library/alpine"),
    (f"{HUB}/alpine?ns={HUB}", {}, "library/alpine", f"{HUB}/library/alpine"),
    (f"{PORTED}/team/app", {}, "team/app", "registry.example_5000/team/app"),
    ("registry.example_5000/team/app", {}, "team/app", "registry.example_5000/team/app"),
    (f"team/app?ns={PORTED}", {}, "team/app", "registry.example_5000/team/app"),
    (f"team/app?ns={PORTED.replace(':', '%3A')}", {}, "team/app", "registry.example_5000/team/app"),
    ("team/app", {"X_Registry": PORTED}, "team/app", "registry.example_5000/team/app"),
]
"""A path with its query, headers, the repository upstream, the repository here."""


async def test_every_name_of_an_upstream_leads_to_its_one_repository(service: Running, front: Front) -> None:
    for path, headers, remote, cached in NAMES:
        name, _, query = path.partition("?")
        front.forget()
        service.store.asked.clear()
        pulled = await service.client.get(f"/v2/{name}/manifests/1?{query}", **headers)
        assert pulled.status == 200, (path, headers)
        assert {one.path.partition("/manifests/")[0] for one in front.requests} == {f"/v2/{remote}"}, (path, headers)
        written = {key.partition("/_")[0] for action, key in service.store.asked if action == "put" and "/_" in key}
        assert written == {f"repositories/{cached}"}, (path, headers)


async def test_ns_is_echoed_where_it_chose_the_upstream(service: Running) -> None:
    for path, status in (("team/app/manifests/1", 200), ("team/app/manifests/none", 404), ("team/app/tags/list", 200)):
        answer = (await service.client.get(f"/v2/{path}?ns=q")).expect(status)
        assert answer.header("oci-namespace") == "q"
    answer = (await service.client.head(f"/v2/team/app/manifests/1?ns={QUAY}")).expect(200)
    assert answer.header("oci-namespace") == QUAY
    plain = (await service.client.get(f"/v2/{QUAY}/team/app/manifests/1")).expect(200)
    assert plain.header("oci-namespace") is None


async def test_our_own_name_as_ns_means_what_is_here(service: Running, front: Front) -> None:
    image = await service.client.push_image("mine/app", "1", b"layer")
    for own in ("edge.example:5045", "edge.example", "EDGE.example:5045"):
        answer = (await service.client.get(f"/v2/mine/app/manifests/1?ns={own}")).expect(200)
        assert answer.body == image.data
        (await service.client.get(f"/v2/team/app/manifests/1?ns={own}")).expect(404)
    assert front.count() == 0


class Listener:
    """A port that counts those who come."""

    def __init__(self) -> None:
        self.came = 0
        self.port = 0

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.accept, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    yield listener
    server.close()
    await server.wait_closed()


async def test_what_is_not_configured_is_404_and_never_dialled(
    front: Front, listener: Listener, tmp_path: Path
) -> None:
    strange = f"127.0.0.1:{listener.port}"
    digest = digest_of(b"x")
    async with pulling(tmp_path, section(front.url, HUB), proxy={"default_upstream": HUB}) as service:
        for host in (strange, f"localhost:{listener.port}", f"http://{strange}", f"user@{strange}", f"{strange}/x"):
            for what in ("manifests/1", f"manifests/{digest}", f"blobs/{digest}", "tags/list", f"referrers/{digest}"):
                by_ns = (await service.client.get(f"/v2/team/app/{what}?ns={host}")).expect(404)
                by_header = (await service.client.get(f"/v2/team/app/{what}", x_registry=host)).expect(404)
                by_path = await service.client.get(f"/v2/{host.removeprefix('http://')}/app/{what}")
                assert by_path.status in (400, 404)
                assert by_ns.codes == by_header.codes == ["NAME_UNKNOWN"]
        for path in (f"{strange}/team/app", f"localhost:{listener.port}/app"):
            assert (await service.client.get(f"/v2/{path}/manifests/1")).expect(404).codes == ["NAME_UNKNOWN"]
        await asyncio.sleep(0)
        assert listener.came == 0
        assert front.count() == 0


@pytest.mark.parametrize("name", ["ghcr.io/team/app", "localhost/team/app", "other.example/alpine"])
async def test_a_plain_name_that_looks_like_a_host_never_goes_to_the_default_upstream(
    upstream: Distribution, front: Front, tmp_path: Path, name: str
) -> None:
    upstream.pusher.image(name, "1", [10])
    async with pulling(tmp_path, section(front.url, QUAY), proxy={"default_upstream": QUAY}) as service:
        (await service.client.get(f"/v2/{name}/manifests/1")).expect(404)
        (await service.client.get(f"/v2/{name}/tags/list")).expect(404)
        assert front.count() == 0


async def test_a_dot_in_a_name_without_a_folder_makes_it_no_host(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    image = upstream.pusher.image("node.js", "1", [10])
    async with pulling(tmp_path, section(front.url, QUAY), proxy={"default_upstream": QUAY}) as service:
        assert (await service.client.get("/v2/node.js/manifests/1")).expect(200).body == image.data


async def test_a_path_prefix_of_the_upstream_stands_before_every_name(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    image = upstream.pusher.image("project/repo/team/app", "1", [10])
    async with pulling(tmp_path, section(f"{front.url}/project/repo", QUAY)) as service:
        assert (await service.client.get(f"/v2/{QUAY}/team/app/manifests/1")).expect(200).body == image.data
        listed = (await service.client.get(f"/v2/{QUAY}/team/app/tags/list")).expect(200)
        assert listed.json() == {"name": f"{QUAY}/team/app", "tags": ["1"]}


PUSHES = [
    ("POST", "blobs/uploads/"),
    ("POST", "blobs/uploads/?digest=DIGEST"),
    ("POST", "blobs/uploads/?mount=DIGEST"),
    ("POST", "blobs/uploads/?mount=DIGEST&from=mine/app"),
    ("PATCH", "blobs/uploads/some-upload"),
    ("PUT", "blobs/uploads/some-upload?digest=DIGEST"),
    ("GET", "blobs/uploads/some-upload"),
    ("DELETE", "blobs/uploads/some-upload"),
    ("PUT", "manifests/2"),
    ("PUT", "manifests/DIGEST"),
]


async def test_nothing_is_pushed_into_the_name_space_of_an_upstream(service: Running, front: Front) -> None:
    mine = await service.client.push_image("mine/app", "1", b"layer")
    before = await service.store.keys()
    for method, what in PUSHES:
        what = what.replace("DIGEST", digest_of(b"layer") if "blobs" in what else mine.digest)
        namings: list[tuple[str, dict[str, str]]] = [
            (f"/v2/{QUAY}/team/app/{what}", {}),
            (f"/v2/{HUB}/alpine/{what}", {}),
            (f"/v2/team/app/{what}{'&' if '?' in what else '?'}ns={QUAY}", {}),
            (f"/v2/team/app/{what}", {"x-registry": QUAY}),
        ]
        for target, headers in namings:
            refused = await service.client.ask(method, target, headers, None if method == "GET" else mine.data)
            assert refused.status == 405, (method, target, headers)
            assert refused.codes == ["UNSUPPORTED"]
    assert await service.store.keys() == before
    assert front.count() == 0


async def test_a_blob_is_mounted_from_a_cached_repository_into_a_hosted_one(
    service: Running, upstream: Distribution, front: Front
) -> None:
    image = upstream.pusher.image("to/mount", "1", [5000])
    layer = digest_of(image.blobs[1])
    (await service.client.get(f"/v2/{QUAY}/to/mount/manifests/1")).expect(200)
    (await service.client.get(f"/v2/{QUAY}/to/mount/blobs/{layer}")).expect(200)
    await stored(service, f"{QUAY}/to/mount", layer)
    front.forget()
    mounted = await service.client.ask("POST", f"/v2/mine/app/blobs/uploads/?mount={layer}&from={QUAY}/to/mount")
    assert mounted.expect(201).location == f"/v2/mine/app/blobs/{layer}"
    assert (await service.client.get(f"/v2/mine/app/blobs/{layer}")).expect(200).body == image.blobs[1]
    assert front.count() == 0


async def test_a_repository_reads_no_blob_of_another_one_of_its_upstream(
    service: Running, upstream: Distribution, front: Front
) -> None:
    """Promise 7: the digest alone opens nothing, whether or not the bytes are here."""
    secret = upstream.pusher.image("secret/app", "1", [3000])
    layer = digest_of(secret.blobs[1])
    (await service.client.get(f"/v2/{QUAY}/secret/app/manifests/1")).expect(200)
    (await service.client.get(f"/v2/{QUAY}/secret/app/blobs/{layer}")).expect(200)
    await stored(service, f"{QUAY}/secret/app", layer)
    for name in (f"{QUAY}/team/app", f"{HUB}/secret/other", "mine/app"):
        (await service.client.get(f"/v2/{name}/blobs/{layer}")).expect(404)
        (await service.client.head(f"/v2/{name}/blobs/{layer}")).expect(404)
        (await service.client.get(f"/v2/{name}/manifests/{secret.digest}")).expect(404)


async def test_a_repository_reads_what_its_own_manifest_names_without_a_second_transfer(
    service: Running, upstream: Distribution, front: Front
) -> None:
    first = upstream.pusher.image("base/one", "1", [3000])
    upstream.pusher.blob("base/two", first.blobs[0])
    upstream.pusher.blob("base/two", first.blobs[1])
    upstream.pusher.manifest("base/two", "1", first.data, first.media_type)
    layer = digest_of(first.blobs[1])
    (await service.client.get(f"/v2/{QUAY}/base/one/manifests/1")).expect(200)
    (await service.client.get(f"/v2/{QUAY}/base/one/blobs/{layer}")).expect(200)
    await stored(service, f"{QUAY}/base/one", layer)
    (await service.client.get(f"/v2/{QUAY}/base/two/manifests/1")).expect(200)
    assert (await service.client.get(f"/v2/{QUAY}/base/two/blobs/{layer}")).expect(200).body == first.blobs[1]
    assert front.count("*/blobs/*", "GET") == 1
    assert front.count("/v2/base/two/blobs/*") == 0
