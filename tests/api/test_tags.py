import asyncio
import json

import pytest

from tests.api.conftest import Create
from tests.services.app import Running
from tests.services.client import MANIFEST, Client, descriptor, digest_of, encode, make_image

TAGS = sorted(["0.1.2", "0.1.20", "0.1", "A", "B", "_x", "a", "a-b", "a.b", "a_b", "b", "latest", "v" * 128])


async def tagged(api: Client, repository: str, tags: list[str]) -> str:
    image = await api.push_image(repository, None, b"x")
    query = "&".join(f"tag={tag}" for tag in tags)
    (await api.put_manifest(repository, f"{image.digest}?{query}", image.data)).expect(201)
    return image.digest


async def pages(api: Client, target: str, field: str) -> list[list[str]]:
    """Every page, by following the Links."""
    found: list[list[str]] = []
    while target:
        answer = (await api.get(target)).expect(200)
        found.append(answer.json()[field])
        link = answer.header("link")
        assert link is None or link.endswith('>; rel="next"')
        target = link[1 : link.index(">")] if link else ""
        assert len(found) < 100
    return found


async def test_tags_come_in_byte_order(api: Client) -> None:
    await tagged(api, "a/b", TAGS)
    answer = (await api.get("/v2/a/b/tags/list")).expect(200)
    assert answer.json() == {"name": "a/b", "tags": TAGS}
    assert answer.header("link") is None


@pytest.mark.parametrize("n", [1, 2, 5, len(TAGS) - 1, len(TAGS), 100])
async def test_pages_give_every_tag_once(api: Client, n: int) -> None:
    """0.1.2 must not hide 0.1.20, as a path-ordered cursor did in Distribution (4891)."""
    await tagged(api, "a", TAGS)
    found = await pages(api, f"/v2/a/tags/list?n={n}", "tags")
    assert [tag for page in found for tag in page] == TAGS
    assert all(len(page) == n for page in found[:-1])
    assert found[-1]


@pytest.mark.parametrize("last", [*TAGS, "0", "zzz", "0.1.10"])
async def test_last_begins_after_any_name(light: Running, last: str) -> None:
    await tagged(light.client, "a", TAGS)
    answer = (await light.client.get(f"/v2/a/tags/list?last={last}")).expect(200)
    assert answer.json()["tags"] == [tag for tag in TAGS if tag > last]


async def test_n_of_zero_is_an_empty_page_without_a_link(api: Client) -> None:
    await tagged(api, "a", TAGS)
    answer = (await api.get("/v2/a/tags/list?n=0")).expect(200)
    assert answer.json()["tags"] == []
    assert answer.header("link") is None


async def test_an_unknown_repository_has_no_list(api: Client) -> None:
    assert (await api.get("/v2/a/tags/list")).expect(404).codes == ["NAME_UNKNOWN"]
    await api.push_image("a/b", "t", b"x")
    (await api.get("/v2/a/tags/list")).expect(404)


async def test_a_repository_without_tags_has_an_empty_list(api: Client) -> None:
    await api.push_image("a", None, b"x")
    assert (await api.get("/v2/a/tags/list")).expect(200).json()["tags"] == []


async def test_a_deleted_tag_is_gone_and_its_manifest_is_not(api: Client) -> None:
    digest = await tagged(api, "a", ["one", "two"])
    (await api.delete("/v2/a/manifests/one")).expect(202)
    (await api.get("/v2/a/manifests/one")).expect(404)
    (await api.head("/v2/a/manifests/one")).expect(404)
    (await api.delete("/v2/a/manifests/one")).expect(404)
    (await api.get("/v2/a/manifests/two")).expect(200)
    (await api.get(f"/v2/a/manifests/{digest}")).expect(200)
    assert (await api.get("/v2/a/tags/list")).json()["tags"] == ["two"]


async def test_pages_skip_dead_tags(api: Client) -> None:
    """A page that is full of tags whose manifest was deleted must not look like the end."""
    dead = await tagged(api, "a", [f"dead{i}" for i in range(7)])
    image = await api.push_image("a", "end", b"other")
    (await api.delete(f"/v2/a/manifests/{dead}")).expect(202)
    found = await pages(api, "/v2/a/tags/list?n=2", "tags")
    assert [tag for page in found for tag in page] == ["end"]
    (await api.get(f"/v2/a/manifests/{image.digest}")).expect(200)


async def test_tags_are_case_sensitive(api: Client) -> None:
    one = await api.push_image("a", "Tag", b"one")
    two = await api.push_image("a", "tag", b"two")
    assert (await api.get("/v2/a/manifests/Tag")).body == one.data
    assert (await api.get("/v2/a/manifests/tag")).body == two.data


async def test_an_immutable_tag_never_moves(create: Create) -> None:
    api = (await create(registry={"immutable_tags": ["a:v*"]})).client
    first = await api.push_image("a", "v1", b"one")
    (await api.put_manifest("a", "v1", first.data)).expect(201)
    second = make_image(b"two")
    await api.push_blob("a", b"two")
    assert (await api.put_manifest("a", "v1", second.data)).expect(403).codes == ["DENIED"]
    assert (await api.get("/v2/a/manifests/v1")).body == first.data
    (await api.put_manifest("a", "latest", first.data)).expect(201)
    (await api.put_manifest("a", "latest", second.data)).expect(201)
    (await api.put_manifest("a", f"{second.digest}?tag=v1", second.data)).expect(403)
    assert (await api.get("/v2/a/manifests/v1")).body == first.data


async def test_what_an_immutable_tag_refuses_is_not_there_by_digest_either(create: Create) -> None:
    api = (await create(registry={"immutable_tags": ["a:v*"]})).client
    first = await api.push_image("a", "v1", b"one")
    subject = descriptor(first.data, MANIFEST)
    refused = encode({**json.loads(make_image(b"two").data), "subject": subject})
    await api.push_blob("a", b"two")
    for target in ("v1", f"{digest_of(refused)}?tag=free&tag=v1"):
        (await api.put_manifest("a", target, refused)).expect(403)
    (await api.get(f"/v2/a/manifests/{digest_of(refused)}")).expect(404)
    assert (await api.get(f"/v2/a/referrers/{first.digest}")).expect(200).json()["manifests"] == []
    assert (await api.get("/v2/a/tags/list")).expect(200).json()["tags"] == ["v1"]


async def test_an_immutable_tag_under_racing_pushes_has_one_winner(create: Create) -> None:
    api = (await create(registry={"immutable_tags": ["*:*"]})).client
    images = [make_image(bytes([i])) for i in range(16)]
    for image in images:
        for data in image.blobs:
            await api.push_blob("a", data)
    answers = await asyncio.gather(*[api.put_manifest("a", "t", image.data) for image in images])
    assert sorted(answer.status for answer in answers) == [201] + [403] * 15
    won = next(image for image, answer in zip(images, answers, strict=True) if answer.status == 201)
    assert (await api.get("/v2/a/manifests/t")).body == won.data


async def test_an_immutable_tag_whose_manifest_is_deleted_is_free_again(create: Create) -> None:
    api = (await create(registry={"immutable_tags": ["*:*"]})).client
    first = await api.push_image("a", "t", b"one")
    (await api.delete(f"/v2/a/manifests/{first.digest}")).expect(202)
    second = await api.push_image("a", "t", b"two")
    assert (await api.get("/v2/a/manifests/t")).body == second.data


async def test_a_tag_that_minio_would_take_for_a_folder_is_a_tag(api: Client) -> None:
    names = ["b", "b__XLDIR__", "b__XLDIR__-x"]
    await tagged(api, "a", names)
    assert (await api.get("/v2/a/tags/list")).expect(200).json()["tags"] == names
    assert (await api.get("/v2/a/tags/list?last=b__XLDIR__")).expect(200).json()["tags"] == names[2:]
    (await api.head("/v2/a/manifests/b__XLDIR__")).expect(200)
    (await api.delete("/v2/a/manifests/b__XLDIR__")).expect(202)
    assert (await api.get("/v2/a/tags/list")).expect(200).json()["tags"] == ["b", "b__XLDIR__-x"]
