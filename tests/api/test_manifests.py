import asyncio
import json
from typing import Any

import pytest

from tests.api.conftest import Create
from tests.services.app import Running
from tests.services.client import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LAYER,
    MANIFEST,
    Answer,
    Client,
    descriptor,
    digest_of,
    encode,
    make_image,
    make_index,
)

EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
FOREIGN = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
]


async def check(api: Client, repository: str, data: bytes, media_type: str, *references: str) -> None:
    """GET and HEAD give these bytes and this type under each reference."""
    for reference in references:
        target = f"/v2/{repository}/manifests/{reference}"
        got = (await api.get(target)).expect(200)
        assert got.body == data
        seen = (await api.head(target)).expect(200)
        for answer in (got, seen):
            assert answer.header("content-type") == media_type
            assert answer.header("content-length") == str(len(data))
            if reference.startswith("sha"):
                assert answer.header("docker-content-digest") == reference


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("media_type", [MANIFEST, DOCKER_MANIFEST])
async def test_a_manifest_keeps_its_bytes_and_its_type(api: Client, media_type: str, algorithm: str) -> None:
    image = make_image(b"one", b"two", media_type=media_type, extra={"kept": [1, None]})
    for data in image.blobs:
        await api.push_blob("a/b/c", data)
    digest = digest_of(image.data, algorithm)
    answer = (await api.put_manifest("a/b/c", digest, image.data, media_type)).expect(201)
    assert answer.location == f"/v2/a/b/c/manifests/{digest}"
    assert answer.header("docker-content-digest") == digest
    await check(api, "a/b/c", image.data, media_type, digest)
    tagged = (await api.put_manifest("a/b/c", "v1.0", image.data, media_type)).expect(201)
    assert tagged.location == f"/v2/a/b/c/manifests/{image.digest}"
    await check(api, "a/b/c", image.data, media_type, "v1.0", image.digest)


async def test_the_type_may_stand_in_the_document_alone(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")
    (await api.put_manifest("a", "untyped", image.data, None)).expect(201)
    await check(api, "a", image.data, MANIFEST, "untyped")


async def test_a_content_type_with_parameters(light: Running) -> None:
    image = await light.client.push_image("a", "t", b"x")
    (await light.client.put_manifest("a", "u", image.data, f"{MANIFEST}; charset=utf-8")).expect(201)
    await check(light.client, "a", image.data, MANIFEST, "u")


async def test_the_same_bytes_under_another_type_are_served_as_pushed_last(api: Client) -> None:
    """A document without mediaType may be pushed as two types; each tag keeps its own."""
    blob = descriptor(b"{}", EMPTY["mediaType"])
    await api.push_blob("a", b"{}")
    data = encode({"schemaVersion": 2, "config": blob, "layers": []})
    (await api.put_manifest("a", "oci", data, MANIFEST)).expect(201)
    (await api.put_manifest("a", "docker", data, DOCKER_MANIFEST)).expect(201)
    await check(api, "a", data, MANIFEST, "oci")
    await check(api, "a", data, DOCKER_MANIFEST, "docker")


async def test_if_none_match(light: Running) -> None:
    image = await light.client.push_image("a", "t", b"x")
    for reference in ("t", image.digest):
        answer = await light.client.get(f"/v2/a/manifests/{reference}", if_none_match=f'"{image.digest}"')
        assert answer.expect(304).body == b""
        assert answer.header("docker-content-digest") == image.digest


@pytest.mark.parametrize(("outer", "inner"), [(INDEX, MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)])
async def test_an_index_over_images(api: Client, outer: str, inner: str) -> None:
    images = [await api.push_image("a", None, bytes([i]), media_type=inner) for i in range(3)]
    data = make_index([descriptor(image.data, inner) for image in images], outer)
    (await api.put_manifest("a", "multi", data, outer)).expect(201)
    await check(api, "a", data, outer, "multi", digest_of(data))


async def test_an_index_in_an_index_and_an_empty_one(api: Client) -> None:
    image = await api.push_image("a", None, b"x")
    empty, middle = make_index([]), make_index([descriptor(image.data, MANIFEST)])
    top = make_index([descriptor(empty, INDEX), descriptor(middle, INDEX), descriptor(image.data, MANIFEST)])
    for data in (empty, middle, top):
        (await api.put_manifest("a", digest_of(data), data, INDEX)).expect(201)
    await check(api, "a", top, INDEX, digest_of(top))


async def test_a_buildkit_cache_is_an_index_whose_children_are_blobs(api: Client) -> None:
    config = "application/vnd.buildkit.cacheconfig.v0"
    children = [(b"layer", LAYER), (b'{"layers":[]}', config)]
    for data, _ in children:
        await api.push_blob("cache", data)
    index = make_index([descriptor(data, media_type) for data, media_type in children])
    (await api.put_manifest("cache", "buildcache", index, INDEX)).expect(201)
    await check(api, "cache", index, INDEX, "buildcache")
    for data, _ in children:
        assert (await api.delete(f"/v2/cache/blobs/{digest_of(data)}")).expect(405).codes == ["DENIED"]


@pytest.mark.parametrize("media_type", [MANIFEST, "application/vnd.oci.artifact.manifest.v1+json"])
async def test_artifacts(api: Client, media_type: str) -> None:
    await api.push_blob("art", b"{}")
    await api.push_blob("art", b"chart")
    fields: dict[str, Any] = {"mediaType": media_type, "artifactType": "application/vnd.example"}
    if media_type == MANIFEST:
        fields |= {"schemaVersion": 2, "config": EMPTY, "layers": [descriptor(b"chart", "application/x-chart")]}
    else:
        fields |= {"blobs": [descriptor(b"chart", "application/x-chart")]}
    data = encode(fields)
    (await api.put_manifest("art", "v1", data, media_type)).expect(201)
    await check(api, "art", data, media_type, "v1")
    (await api.delete(f"/v2/art/blobs/{digest_of(b'chart')}")).expect(405)


@pytest.mark.parametrize("media_type", FOREIGN)
async def test_layers_that_may_not_be_distributed_need_not_be_here(api: Client, media_type: str) -> None:
    await api.push_blob("a", b"{}")
    foreign = {**descriptor(b"elsewhere", media_type), "urls": ["http://127.0.0.1:9/layer"]}
    data = encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [foreign]})
    (await api.put_manifest("a", "t", data)).expect(201)
    await check(api, "a", data, MANIFEST, "t")


async def test_a_data_field_does_not_replace_the_blob(light: Running) -> None:
    data = encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": {**EMPTY, "data": "e30="}, "layers": []})
    (await light.client.put_manifest("a", "t", data)).expect(404)
    await light.client.push_blob("a", b"{}")
    (await light.client.put_manifest("a", "t", data)).expect(201)


async def test_missing_blobs_are_named_each(service: Running) -> None:
    api, image = service.client, make_image(b"one", b"two", b"three")
    await api.push_blob("a", b"two")
    refused = (await api.put_manifest("a", "t", image.data)).expect(404)
    assert set(refused.codes) == {"MANIFEST_BLOB_UNKNOWN"}
    named = {entry["detail"]["digest"] for entry in refused.json()["errors"]}
    assert named == {digest_of(image.blobs[0]), digest_of(b"one"), digest_of(b"three")}
    await nothing(api, "a", "t", image.digest)
    assert await service.store.keys("repositories/a/_manifests/") == []
    assert await service.store.keys("upkeep/") == []


async def test_missing_children_are_named_each(api: Client) -> None:
    image = await api.push_image("a", None, b"x")
    missing = [make_image(bytes([i])).data for i in range(2)]
    index = make_index([descriptor(data, MANIFEST) for data in (*missing, image.data)])
    refused = (await api.put_manifest("a", "t", index, INDEX)).expect(404)
    named = [entry["detail"]["digest"] for entry in refused.json()["errors"]]
    assert sorted(named) == sorted(map(digest_of, missing))
    await nothing(api, "a", "t", digest_of(index))


async def test_content_of_another_repository_is_missing_here(api: Client) -> None:
    image = await api.push_image("other", "t", b"x")
    (await api.put_manifest("a", "t", image.data)).expect(404)
    (await api.put_manifest("a", "t", make_index([descriptor(image.data, MANIFEST)]), INDEX)).expect(404)


async def test_sparse_manifests_where_the_operator_allows_them(create: Create) -> None:
    api = (await create(registry={"allow_sparse": True})).client
    image = make_image(b"absent")
    index = make_index([descriptor(image.data, MANIFEST)])
    (await api.put_manifest("a", "image", image.data)).expect(201)
    (await api.put_manifest("a", "index", index, INDEX)).expect(201)
    await check(api, "a", image.data, MANIFEST, "image", image.digest)
    await check(api, "a", index, INDEX, "index")
    (await api.head(f"/v2/a/blobs/{digest_of(b'absent')}")).expect(404)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_digest_that_is_not_the_manifests(api: Client, algorithm: str) -> None:
    image = await api.push_image("a", "t", b"x")
    wrong = digest_of(b"other", algorithm)
    assert (await api.put_manifest("a", wrong, image.data)).expect(400).codes == ["DIGEST_INVALID"]
    await nothing(api, "a", wrong)


async def test_schema_1_is_refused_with_a_reason(light: Running) -> None:
    document = {"schemaVersion": 1, "name": "a", "tag": "t", "fsLayers": [], "history": []}
    for media_type in ("prettyjws", "json"):
        answer = await light.client.put_manifest(
            "a", "t", encode(document), f"application/vnd.docker.distribution.manifest.v1+{media_type}"
        )
        assert answer.expect(400).codes == ["MANIFEST_INVALID"]
        assert "schema 1" in answer.json()["errors"][0]["message"]
    (await light.client.put_manifest("a", "t", encode(document), MANIFEST)).expect(400)


async def nothing(api: Client, repository: str, *references: str) -> None:
    for reference in references:
        assert (await api.get(f"/v2/{repository}/manifests/{reference}")).expect(404).codes == ["MANIFEST_UNKNOWN"]
        (await api.head(f"/v2/{repository}/manifests/{reference}")).expect(404)


async def test_deleting_a_manifest_kills_its_tags(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")
    other = await api.push_image("a", "other", b"y")
    for tag in ("u", "v"):
        (await api.put_manifest("a", tag, image.data)).expect(201)
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    await nothing(api, "a", image.digest, "t", "u", "v")
    assert (await api.get("/v2/a/tags/list")).json()["tags"] == ["other"]
    await check(api, "a", other.data, MANIFEST, "other")
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(404)


async def test_pushing_a_deleted_manifest_again_heals_it_but_not_its_old_tags(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    (await api.put_manifest("a", "new", image.data)).expect(201)
    await check(api, "a", image.data, MANIFEST, "new", image.digest)
    await nothing(api, "a", "t")
    assert (await api.get("/v2/a/tags/list")).json()["tags"] == ["new"]


async def test_a_manifest_is_only_in_its_repository(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")
    await nothing(api, "b", image.digest, "t")
    await api.push_image("b", "t", b"x")
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    await check(api, "b", image.data, MANIFEST, "t", image.digest)
    await nothing(api, "a", image.digest)


async def test_deleting_what_is_not_there(api: Client) -> None:
    for reference in ("t", digest_of(b"")):
        assert (await api.delete(f"/v2/a/manifests/{reference}")).expect(404).codes == ["MANIFEST_UNKNOWN"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_tag_parameters_tag_a_digest_push(api: Client, algorithm: str) -> None:
    image = make_image(b"x")
    for data in image.blobs:
        await api.push_blob("a", data)
    digest = digest_of(image.data, algorithm)
    answer = (await api.put_manifest("a", f"{digest}?tag=one&tag=two&tag=one", image.data)).expect(201)
    assert sorted(answer.every("oci-tag")) == ["one", "two"]
    for tag in ("one", "two"):
        got = (await api.get(f"/v2/a/manifests/{tag}")).expect(200)
        assert got.body == image.data
        assert got.header("docker-content-digest") == digest


async def test_an_invalid_tag_parameter_publishes_nothing(light: Running) -> None:
    image = make_image(b"x")
    for data in image.blobs:
        await light.client.push_blob("a", data)
    answer = await light.client.put_manifest("a", f"{image.digest}?tag=ok&tag=..%2f..", image.data)
    assert answer.expect(400).codes == ["TAG_INVALID"]
    await nothing(light.client, "a", image.digest, "ok")


async def test_clients_that_push_to_one_tag_leave_it_on_one_of_theirs(api: Client) -> None:
    images = [make_image(bytes([i])) for i in range(8)]
    for image in images:
        for data in image.blobs:
            await api.push_blob("a", data)
    answers = await asyncio.gather(*[api.put_manifest("a", "t", image.data) for image in images])
    assert [answer.status for answer in answers] == [201] * 8
    got = (await api.get("/v2/a/manifests/t")).expect(200)
    assert got.body in [image.data for image in images]
    assert got.header("docker-content-digest") == digest_of(got.body)
    for image in images:
        await check(api, "a", image.data, MANIFEST, image.digest)


async def test_the_last_acknowledged_push_to_a_tag_wins(api: Client) -> None:
    for i in range(5):
        image = await api.push_image("a", "t", bytes([i]))
        await check(api, "a", image.data, MANIFEST, "t")


async def test_a_manifest_whose_bytes_decayed_is_never_served(service: Running) -> None:
    image = await service.client.push_image("a", "t", b"x")
    (key,) = await service.store.keys("repositories/a/_manifests/")
    settings_cache = service.app
    del settings_cache
    await service.store.driver.put(key, image.data.replace(b"linux", b"LINUX")[:-1] + b" ")
    fresh = await service.client.get("/v2/a/manifests/t")
    assert fresh.body == image.data or fresh.status == 503  # from memory, or refused; never other bytes


async def test_pushing_while_deleting_leaves_no_broken_tag(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")

    async def push() -> Answer:
        return await api.put_manifest("a", "t", image.data)

    async def delete() -> Answer:
        return await api.delete(f"/v2/a/manifests/{image.digest}")

    for _ in range(10):
        pushed, deleted = await asyncio.gather(push(), delete())
        assert pushed.status == 201
        assert deleted.status in (202, 404)
        seen = await api.get("/v2/a/manifests/t")
        by_digest = await api.get(f"/v2/a/manifests/{image.digest}")
        tags = (await api.get("/v2/a/tags/list")).json()["tags"]
        assert seen.status in (200, 404)
        assert (seen.status == 200) == ("t" in tags)
        if seen.status == 200:
            assert by_digest.status == 200
            assert seen.body == image.data
        (await push()).expect(201)


async def test_json_is_not_made_prettier(light: Running) -> None:
    await light.client.push_blob("a", b"{}")
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": []}
    for data in (json.dumps(document).encode(), encode(document), b"\n " + encode(document) + b"\r\n\t"):
        (await light.client.put_manifest("a", "t", data)).expect(201)
        await check(light.client, "a", data, MANIFEST, "t", digest_of(data))


async def test_the_largest_manifest(api: Client) -> None:
    image = make_image(b"x", annotations={"fill": ""})
    padded = make_image(b"x", annotations={"fill": "x" * ((4 << 20) - len(image.data))})
    assert len(padded.data) == 4 << 20
    for data in padded.blobs:
        await api.push_blob("a", data)
    (await api.put_manifest("a", "t", padded.data)).expect(201)
    await check(api, "a", padded.data, MANIFEST, "t", padded.digest)
    assert CONFIG in padded.data.decode()
