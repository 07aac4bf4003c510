"""Referrers through the proxy: by the API where the upstream has it, by the tag where not, and what is here offline."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from tests.proxy.pulling import UP, pulling, section
from tests.proxy.served import serve
from tests.services.app import Running
from tests.services.client import INDEX, Client, digest_of, make_index
from tests.services.front import Front, refusal
from tests.services.pushing import SIGNATURE, Pusher
from tests.services.registry import RegistryServer, filesystem_store
from tests.services.upstreams import Distribution, need_distribution

SBOM = "application/spdx+json"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """An upstream with the referrers API."""
    folder = tmp_path_factory.mktemp("edge")
    with RegistryServer(folder, filesystem_store(folder / "data")) as server:
        yield server


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """An upstream without it."""
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        yield server


async def listed(client: Client, target: str) -> tuple[list[str], str | None, dict[str, Any]]:
    """The digests of one page, its Link, and its first descriptor."""
    answer = (await client.get(target)).expect(200)
    assert answer.header("content-type") == INDEX
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, INDEX)
    items = document["manifests"]
    link = answer.header("link")
    return [item["digest"] for item in items], link and link[1 : link.index(">")], items[0] if items else {}


async def warned(service: Running, target: str) -> bool:
    return (await service.client.get(target)).expect(200).header("warning") is not None


async def test_referrers_come_from_the_api_and_are_filtered(edge: RegistryServer, tmp_path: Path) -> None:
    pusher = Pusher(edge.url)
    image = pusher.image("signed", "1", [10])
    signature = pusher.referrer("signed", image)
    sbom = pusher.referrer("signed", image, artifact_type=SBOM, content=b"sbom")
    with Front(edge.url) as front:
        async with pulling(tmp_path, section(front.url)) as service:
            target = f"/v2/{UP}/signed/referrers/{image.digest}"
            digests, link, first = await listed(service.client, target)
            assert (digests, link) == (sorted([signature.digest, sbom.digest]), None)
            assert first["artifactType"] in (SIGNATURE, SBOM)
            filtered = (await service.client.get(f"{target}?artifactType={quote(SBOM)}")).expect(200)
            assert filtered.header("oci-filters-applied") == "artifactType"
            assert [item["digest"] for item in filtered.json()["manifests"]] == [sbom.digest]
            none = await listed(service.client, f"/v2/{UP}/signed/referrers/{digest_of(b'nobody')}")
            assert none[0] == []
            pulled = (await service.client.get(f"/v2/{UP}/signed/manifests/{sbom.digest}")).expect(200)
            assert pulled.body == sbom.data
            front.down()
            for _ in range(3):
                assert (await listed(service.client, target))[0] == [sbom.digest]  # it was pulled, so it is here
                assert await warned(service, target)
            by_name = f"/v2/signed/referrers/{image.digest}?ns={UP}"
            assert (await listed(service.client, by_name))[0] == [sbom.digest]


async def test_referrers_come_from_the_tag_where_there_is_no_api(plain: Distribution, tmp_path: Path) -> None:
    image = plain.pusher.image("signed", "1", [10])
    made = [plain.pusher.referrer("signed", image, content=content) for content in (b"one", b"two")]
    other = plain.pusher.image("signed", "2", [20])
    with Front(plain.url) as front:
        async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
            target = f"/v2/{UP}/signed/referrers/{image.digest}"
            for _ in range(3):
                digests, _, first = await listed(service.client, target)
                assert digests == sorted(one.digest for one in made)
                assert first["artifactType"] == SIGNATURE
            assert front.count("*/referrers/*") == 1
            assert front.count("*/manifests/*") == 2
            assert (await listed(service.client, f"{target}?artifactType={quote(SBOM)}"))[0] == []
            unsigned = f"/v2/{UP}/signed/referrers/{other.digest}"
            assert (await listed(service.client, unsigned))[0] == []
            front.forget()
            assert (await listed(service.client, unsigned))[0] == []
            assert front.count() == 0
            front.down()
            assert (await listed(service.client, target))[0] == sorted(one.digest for one in made)


async def test_the_tag_that_stands_for_the_api_can_be_pulled_too(plain: Distribution, tmp_path: Path) -> None:
    """As clients do that try the API, get nothing, and turn to the tag."""
    image = plain.pusher.image("tagged", "1", [10])
    made = plain.pusher.referrer("tagged", image)
    with Front(plain.url) as front:
        async with pulling(tmp_path, section(front.url)) as service:
            tag = image.digest.replace(":", "-")
            found = (await service.client.get(f"/v2/{UP}/tagged/manifests/{tag}")).expect(200)
            assert [item["digest"] for item in json.loads(found.body)["manifests"]] == [made.digest]


async def test_many_referrers_of_an_upstream_with_small_pages_come_in_our_pages(tmp_path: Path) -> None:
    subject = digest_of(b"subject")
    items: list[dict[str, Any]] = [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest_of(b"%d" % number), "size": 9}
        for number in range(250)
    ]

    async def paged(request: web.Request) -> web.StreamResponse:
        number = int(request.query.get("page", "0"))
        link = {"Link": f'</v2/x?page={number + 1}>; rel="next"'} if number < 4 else {}
        body = make_index(items[number * 50 : number * 50 + 50])
        return web.Response(body=body, headers={"Content-Type": INDEX, **link})

    async with serve(paged) as served, pulling(tmp_path, section(served.base)) as service:
        found: list[str] = []
        target: str | None = f"/v2/{UP}/many/referrers/{subject}"
        sizes = []
        while target:
            digests, target, _ = await listed(service.client, target)
            found += digests
            sizes.append(len(digests))
            assert len(sizes) < 10
        assert found == sorted(item["digest"] for item in items)
        assert sizes == [100, 100, 50]


async def test_large_descriptors_come_in_pages_that_clients_accept(tmp_path: Path) -> None:
    note = {"note": "x" * (1 << 20)}
    items = [
        {"mediaType": "a/b", "digest": digest_of(b"%d" % number), "size": 9, "annotations": note} for number in range(6)
    ]

    async def large(_: web.Request) -> web.StreamResponse:
        return web.Response(body=make_index(items), headers={"Content-Type": INDEX})

    async with serve(large) as served, pulling(tmp_path, section(served.base)) as service:
        found: list[str] = []
        target: str | None = f"/v2/{UP}/many/referrers/{digest_of(b'subject')}"
        while target:
            assert len((await service.client.get(target)).body) <= 4 << 20
            digests, target, _ = await listed(service.client, target)
            found += digests
        assert found == sorted(str(item["digest"]) for item in items)


async def test_referrers_that_are_denied_are_not_served_from_here(plain: Distribution, tmp_path: Path) -> None:
    image = plain.pusher.image("denied", "1", [10])
    with Front(plain.url) as front:
        async with pulling(tmp_path, section(front.url)) as service:
            target = f"/v2/{UP}/denied/referrers/{image.digest}"
            denial = front.on("*", refusal(403))
            (await service.client.get(target)).expect(403)
            front.off(denial)
            front.on("*/manifests/*", refusal(403))
            (await service.client.get(target)).expect(403)
