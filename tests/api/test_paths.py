import pytest

from tests.services.app import Running
from tests.services.client import Client

ODD = [
    "blobs",
    "manifests/x",
    "tags/list",
    "uploads",
    "blobs/uploads",
    "a/referrers",
    "v2/catalog",
    "tags",
    "a/tags/list/b",
]


@pytest.mark.parametrize("name", ODD)
async def test_names_may_hold_the_words_of_the_api(api: Client, name: str) -> None:
    image = await api.push_image(name, "latest", b"layer")
    assert (await api.get(f"/v2/{name}/manifests/latest")).expect(200).body == image.data
    assert (await api.get(f"/v2/{name}/tags/list")).expect(200).json() == {"name": name, "tags": ["latest"]}
    assert (await api.get("/v2/_catalog")).json()["repositories"] == [name]


@pytest.mark.parametrize("name", ["a", "/".join("abcdefghijklmnopqrstuvwxyz"), "a" * 254, "a" * 127 + "/" + "b" * 126])
async def test_names_of_any_depth_and_length(api: Client, name: str) -> None:
    image = await api.push_image(name, "t", b"layer")
    assert (await api.get(f"/v2/{name}/manifests/{image.digest}")).expect(200).body == image.data
    for data in image.blobs:
        await api.push_blob("other", data)
    (await api.delete(f"/v2/{name}/manifests/t")).expect(202)


@pytest.mark.parametrize(
    "tag", ["tags", "list", "uploads", "_catalog", "blobs", "manifests", "A" * 128, "1", "_", "a..b"]
)
async def test_tags_may_be_any_word(light: Running, tag: str) -> None:
    image = await light.client.push_image("a", tag, b"layer")
    assert (await light.client.get(f"/v2/a/manifests/{tag}")).expect(200).body == image.data


@pytest.mark.parametrize(
    "target",
    [
        "/v2/x", "/v2/a/b", "/v2/_catalog/", "/v2/a/tags", "/v2/a/tags/list/", "/v2/a/manifests", "/v2/a/manifests/",
        "/v2/a/blobs", "/v2/a/blobs/", "/v2/a/referrers/", "/v2//", "/v2/manifests/x", "/v2/a/tags/other",
        "/v2/blobs/x",
    ],
)  # fmt: skip
async def test_a_path_that_is_no_part_of_the_api_is_a_json_404(light: Running, target: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        (await light.client.ask(method, target)).expect(404)
    assert light.store.asked == []


async def test_a_percent_encoded_path_is_the_same_path(light: Running) -> None:
    image = await light.client.push_image("a/b", "t", b"layer")
    assert (await light.client.get("/v2/a%2Fb/manifests/%74")).expect(200).body == image.data
    colon = image.digest.replace(":", "%3A")
    assert (await light.client.get(f"/v2/a/b/manifests/{colon}")).expect(200).body == image.data
