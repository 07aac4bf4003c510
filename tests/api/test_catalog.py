import pytest

from tests.api.test_tags import pages
from tests.services.app import Running
from tests.services.client import Client

NAMES = sorted(["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "aa", "math", "math-voila", "z/y/x/w"])


async def test_repositories_come_in_byte_order(api: Client) -> None:
    for name in NAMES:
        await api.push_image(name, "t", b"x")
    assert (await api.get("/v2/_catalog")).expect(200).json() == {"repositories": NAMES}


@pytest.mark.parametrize("n", [1, 3, len(NAMES), 1000])
async def test_pages_give_every_repository_once(api: Client, n: int) -> None:
    for name in NAMES:
        await api.push_image(name, "t", b"x")
    found = await pages(api, f"/v2/_catalog?n={n}", "repositories")
    assert [name for page in found for name in page] == NAMES


async def test_an_empty_registry(api: Client) -> None:
    assert (await api.get("/v2/_catalog")).expect(200).json() == {"repositories": []}


async def test_blobs_and_refused_manifests_make_no_repository(api: Client) -> None:
    await api.push_blob("only/blobs", b"x")
    assert (await api.get("/v2/_catalog")).json() == {"repositories": []}


async def test_n_of_zero_is_an_empty_page_without_a_link(light: Running) -> None:
    await light.client.push_image("a", "t", b"x")
    answer = (await light.client.get("/v2/_catalog?n=0")).expect(200)
    assert answer.json() == {"repositories": []}
    assert answer.header("link") is None


async def test_last_begins_after_any_name(light: Running) -> None:
    for name in NAMES:
        await light.client.push_image(name, "t", b"x")
    for last in [*NAMES, "a/a", "b", "zz"]:
        listed = (await light.client.get(f"/v2/_catalog?last={last}")).expect(200).json()["repositories"]
        assert listed == [name for name in NAMES if name > last], last
