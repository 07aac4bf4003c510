"""Manifests through the proxy: asked for once, kept byte for byte, and refused where they are not what was asked for."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from storage.memory import MemoryDriver
from tests.proxy.pulling import UP, pulling, section, upstream_of
from tests.proxy.served import Served, serve
from tests.services.app import Running
from tests.services.client import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Image,
    descriptor,
    digest_of,
    encode,
    make_image,
    make_index,
)
from tests.services.front import Fault, Front, portal, refusal
from tests.services.upstreams import Distribution

TAGGED = f"/v2/{UP}/team/app/manifests/1"


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [100, 200])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def asked(front: Front) -> list[str]:
    """Manifest requests, short: `HEAD 1`, `GET sha256:...`."""
    return [f"{one.method} {one.path.rpartition('/')[2]}" for one in front.records.find("*/manifests/*")]


async def test_a_tag_costs_one_head_and_one_get_and_its_digest_nothing(
    front: Front, image: Image, tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
        pulled = (await service.client.get(TAGGED)).expect(200)
        assert pulled.body == image.data
        assert pulled.header("content-type") == MANIFEST
        assert pulled.header("docker-content-digest") == image.digest
        assert asked(front) == ["HEAD 1", f"GET {image.digest}"]
        (await service.client.get(TAGGED)).expect(200)
        (await service.client.head(TAGGED)).expect(200)
        front.down()
        by_digest = (await service.client.get(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(200)
        assert by_digest.body == image.data
        assert by_digest.header("warning") is None
        assert front.count() == 2


async def test_a_digest_is_asked_for_once_even_over_a_restart(front: Front, image: Image, tmp_path: Path) -> None:
    memory = MemoryDriver()
    for _ in range(2):
        async with pulling(tmp_path, section(front.url), driver=memory.replica()) as service:
            (await service.client.get(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(200)
            (await service.client.head(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(200)
    assert asked(front) == [f"GET {image.digest}"]


async def test_a_tag_older_than_its_ttl_is_checked_by_one_head(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url, tag_ttl=0)) as service:
        (await service.client.get(TAGGED)).expect(200)
        front.forget()
        again = (await service.client.get(TAGGED)).expect(200)
        assert again.header("age") == "0"
        assert asked(front) == ["HEAD 1"]


async def test_a_tag_that_moved_is_got_by_its_new_digest(upstream: Distribution, front: Front, tmp_path: Path) -> None:
    upstream.pusher.image("moving", "latest", [10], seed="old")
    path = f"/v2/{UP}/moving/manifests/latest"
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(path)).expect(200)
        new = upstream.pusher.image("moving", "latest", [10], seed="new")
        front.forget()
        assert (await service.client.get(path)).expect(200).body == new.data
        assert asked(front) == ["HEAD latest", f"GET {new.digest}"]


async def test_an_immutable_tag_is_never_checked_again(upstream: Distribution, front: Front, tmp_path: Path) -> None:
    old = upstream.pusher.image("fixed", "v1.0", [10], seed="old")
    path = f"/v2/{UP}/fixed/manifests/v1.0"
    async with pulling(tmp_path, section(front.url, immutable_tags=["fixed:v*"])) as service:
        (await service.client.get(path)).expect(200)
        upstream.pusher.image("fixed", "v1.0", [10], seed="new")
        front.forget()
        assert (await service.client.get(path)).expect(200).body == old.data
        assert front.count() == 0


async def test_patterns_of_immutable_tags_may_say_the_short_names_of_docker_hub(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    old = upstream.pusher.image("library/alpine", "3.20", [10])
    async with pulling(tmp_path, section(front.url, "docker.io", immutable_tags=["alpine:3.*"])) as service:
        (await service.client.get("/v2/docker.io/alpine/manifests/3.20")).expect(200)
        front.forget()
        assert (await service.client.get("/v2/docker.io/alpine/manifests/3.20")).expect(200).body == old.data
        assert front.count() == 0


async def test_a_tag_that_may_not_move_here_stays_where_it_is(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    old = upstream.pusher.image("held", "1", [10], seed="old")
    path = f"/v2/{UP}/held/manifests/1"
    async with pulling(tmp_path, section(front.url), registry={"immutable_tags": [f"{UP}/held:*"]}) as service:
        (await service.client.get(path)).expect(200)
        upstream.pusher.image("held", "1", [10], seed="new")
        assert (await service.client.get(path)).expect(200).body == old.data


async def test_without_a_digest_in_head_an_unchanged_manifest_is_not_sent_again(
    front: Front, image: Image, tmp_path: Path
) -> None:
    front.on("*/manifests/1", Fault(without=("docker-content-digest",)), method="HEAD")
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED)).expect(200)
        front.forget()
        again = (await service.client.get(TAGGED)).expect(200)
        assert (again.body, again.header("age")) == (image.data, "0")
        assert [(one.method, one.status) for one in front.requests] == [("HEAD", 200), ("GET", 304)]


@pytest.mark.parametrize(
    "fault",
    [
        refusal(405),
        refusal(501),
        Fault(without=("docker-content-digest",)),
        Fault(headers={"Docker-Content-Digest": "x"}),
    ],
    ids=["405", "501", "no digest", "nonsense"],
)
async def test_where_head_says_no_digest_one_get_does(
    upstream: Distribution, front: Front, image: Image, tmp_path: Path, fault: Fault
) -> None:
    front.on("*/manifests/1", fault, method="HEAD")
    async with pulling(tmp_path, section(front.url)) as service:
        assert (await service.client.get(TAGGED)).expect(200).body == image.data
        assert asked(front) == ["HEAD 1", "GET 1"]


async def test_twenty_pulls_of_a_cold_tag_ask_once(front: Front, image: Image, tmp_path: Path) -> None:
    slow = front.on("*/manifests/*", Fault(delay=0.2))
    by_digest = f"/v2/{UP}/team/app/manifests/{image.digest}"
    async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
        answers = await asyncio.gather(
            *(service.client.get(TAGGED) for _ in range(10)),
            *(service.client.head(TAGGED) for _ in range(10)),
        )
        assert {answer.status for answer in answers} == {200}
        assert asked(front) == ["HEAD 1", f"GET {image.digest}"]
        assert slow.taken == 2
    front.forget()
    async with pulling(tmp_path, section(front.url)) as service:
        answers = await asyncio.gather(
            *(service.client.get(TAGGED) for _ in range(10)), *(service.client.get(by_digest) for _ in range(10))
        )
        assert {answer.body for answer in answers} == {image.data}
        assert sorted(asked(front)) == [f"GET {image.digest}", "HEAD 1"]


async def test_a_pull_goes_on_when_the_one_who_began_it_leaves(front: Front, image: Image, tmp_path: Path) -> None:
    front.on("*/manifests/*", Fault(delay=0.3))
    async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
        first = asyncio.create_task(service.client.get(TAGGED))
        await asyncio.to_thread(front.wait_until, lambda: front.count() == 1)
        second = asyncio.create_task(service.client.get(TAGGED))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).expect(200).body == image.data
        assert len(asked(front)) == 2


FOREIGN = "application/vnd.example.thing.v3+json"


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        (INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
        (INDEX, {"schemaVersion": 2, "manifests": []}),
        (DOCKER_LIST, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}),
        (FOREIGN, {"mediaType": FOREIGN, "things": [1, 2, "sha256:"]}),
        (
            MANIFEST,
            {"schemaVersion": 2, "artifactType": "application/x.y", "config": descriptor(b"{}", "a/b"), "layers": []},
        ),
    ],
    ids=["index", "index without type", "docker list", "unknown", "artifact"],
)
async def test_every_byte_and_the_type_of_a_manifest_are_kept(
    tmp_path: Path, media_type: str, document: dict[str, Any]
) -> None:
    data = b" \n" + json.dumps(document, indent=5, ensure_ascii=False).encode() + b"\r\n\t"
    async with written(tmp_path, data, media_type) as (service, _):
        pulled = (await service.client.get(TAGGED)).expect(200)
        assert pulled.body == data
        assert pulled.header("content-type") == media_type
        assert pulled.header("docker-content-digest") == digest_of(data)


async def test_a_docker_image_stays_one(upstream: Distribution, front: Front, tmp_path: Path) -> None:
    image = upstream.pusher.image("docker", "1", [10], media_type=DOCKER_MANIFEST)
    async with pulling(tmp_path, section(front.url)) as service:
        pulled = (await service.client.get(f"/v2/{UP}/docker/manifests/1")).expect(200)
        assert pulled.body == image.data
        assert pulled.header("content-type") == DOCKER_MANIFEST


async def test_a_digest_of_another_algorithm_can_be_pulled(tmp_path: Path) -> None:
    image = make_image(b"layer")
    digest = digest_of(image.data, "sha512")
    async with written(tmp_path, image.data, MANIFEST, reference=digest) as (service, _):
        pulled = (await service.client.get(f"/v2/{UP}/team/app/manifests/{digest}")).expect(200)
        assert pulled.body == image.data
        assert pulled.header("docker-content-digest") == digest


@pytest.mark.parametrize(
    "said", ["application/json", "text/plain; charset=utf-8", "application/octet-stream", "nonsense"]
)
async def test_a_senseless_content_type_yields_to_what_the_manifest_says(tmp_path: Path, said: str) -> None:
    data = make_index([])
    async with written(tmp_path, data, said) as (service, _):
        pulled = (await service.client.get(TAGGED)).expect(200)
        assert pulled.body == data
        assert pulled.header("content-type") == INDEX


SCHEMA_1 = encode({"schemaVersion": 1, "name": "team/app", "tag": "1", "fsLayers": [], "history": []})
CONFUSED = encode({"schemaVersion": 2, "manifests": [], "layers": [], "config": descriptor(b"{}", "a/b")})


@pytest.mark.parametrize(
    ("data", "media_type", "reason"),
    [
        (SCHEMA_1, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (CONFUSED, MANIFEST, "both layers and manifests"),
        (b"<html>Welcome</html>", "text/html", "web page"),
        (b"<html>Welcome</html>", "application/octet-stream", "not a JSON"),
        (b'{"welcome": 1}', "application/json", "not this manifest"),
        (b"", MANIFEST, "not a JSON"),
        (encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "x": "y" * (4 << 20)}), INDEX, "bytes"),
    ],
    ids=["schema 1", "confused", "html", "html as bytes", "json", "empty", "large"],
)
async def test_what_is_no_manifest_is_refused_and_not_kept(
    tmp_path: Path, data: bytes, media_type: str, reason: str
) -> None:
    async with written(tmp_path, data, media_type, digest="") as (service, _):
        refused = (await service.client.get(TAGGED)).expect(503)
        assert reason in refused.json()["errors"][0]["message"]
        assert refused.header("retry-after") is not None
        assert await service.store.keys("repositories/") == []


async def test_another_manifest_than_was_asked_for_is_refused_and_not_kept(tmp_path: Path) -> None:
    wanted, given = make_image(b"wanted"), make_image(b"given")
    async with written(tmp_path, given.data, MANIFEST, reference=wanted.digest) as (service, _):
        refused = (await service.client.get(f"/v2/{UP}/team/app/manifests/{wanted.digest}")).expect(503)
        assert "not this manifest" in refused.json()["errors"][0]["message"]
        assert await service.store.keys("repositories/") == []


async def test_a_body_that_differs_from_the_digest_beside_it_is_refused(tmp_path: Path) -> None:
    """The upstream answers no HEAD, and something on the way garbles the manifest without breaking it."""
    wanted, given = make_image(b"wanted"), make_image(b"given")
    async with written(tmp_path, given.data, MANIFEST, digest=wanted.digest, head=False) as (service, _):
        (await service.client.get(TAGGED)).expect(503)
        assert await service.store.keys("repositories/") == []


async def test_a_portal_before_a_manifest_is_refused(front: Front, image: Image, tmp_path: Path) -> None:
    front.on("*", portal())
    async with pulling(tmp_path, section(front.url)) as service:
        refused = (await service.client.get(TAGGED)).expect(503)
        assert "web page" in refused.json()["errors"][0]["message"]
        assert await service.store.keys("repositories/") == []


async def test_deleting_forgets_what_is_cached(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
        (await service.client.get(TAGGED)).expect(200)
        (await service.client.delete(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(202)
        front.down()
        (await service.client.get(TAGGED)).expect(503)
        front.up()
        upstream_of(service).breaker.succeeded()
        front.forget()
        assert (await service.client.get(TAGGED)).expect(200).body == image.data
        assert asked(front) == ["HEAD 1", f"GET {image.digest}"]
        (await service.client.delete(TAGGED)).expect(202)
        front.forget()
        (await service.client.get(TAGGED)).expect(200)
        assert asked(front) == ["HEAD 1"]


@asynccontextmanager
async def written(
    folder: Path,
    data: bytes,
    media_type: str,
    *,
    reference: str | None = None,
    digest: str | None = None,
    head: bool = True,
) -> AsyncIterator[tuple[Running, Served]]:
    """A service whose upstream answers every manifest, or that of `reference`, with these bytes and headers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if reference is not None and not request.path.endswith(reference):
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}, status=404)
        if request.method == "HEAD" and not head:
            return web.Response(status=405)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data) if digest is None else digest}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        return web.Response(body=data, headers=headers)

    async with serve(answer) as served, pulling(folder, section(served.base)) as service:
        yield service, served
