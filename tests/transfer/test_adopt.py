"""Taking over what a real CNCF Distribution has written, in a folder and in MinIO."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry import keys
from tests.services.app import Running, Watched, running
from tests.services.client import DOCKER_MANIFEST, INDEX, MANIFEST, noise
from tests.services.pushing import Index, Pusher
from tests.services.upstreams import Distribution, need_distribution
from tests.transfer.adopting import adopt, fingerprints
from tests.transfer.conftest import Place

ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST))
LAYER = 300_000
"""Large enough to be worth sharing."""


@pytest.fixture
def old(place: Place, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path / "old", storage=place.distribution) as server:
        yield server


def layout(place: Place) -> str:
    return f"{place.root}/docker/" if place.root else "docker/"


async def pull(client: Running, name: str, reference: str) -> tuple[str, bytes]:
    """A manifest and all that it names, as far as it is there; the digest and the bytes of the manifest."""
    answer = (await client.client.get(f"/v2/{name}/manifests/{reference}", accept=ACCEPT)).expect(200)
    document = json.loads(answer.body)
    for child in document.get("manifests", []):
        await pull(client, name, child["digest"])
    for blob in [document["config"], *document["layers"]] if "layers" in document else []:
        got = (await client.client.get(f"/v2/{name}/blobs/{blob['digest']}")).expect(200)
        assert len(got.body) == blob["size"]
    digest = answer.header("docker-content-digest")
    assert digest is not None
    return digest, answer.body


def old_pull(old: Pusher, name: str, reference: str) -> tuple[str, bytes]:
    answer = old.request("GET", f"/v2/{name}/manifests/{reference}", headers={"Accept": ACCEPT})
    assert answer.status == 200
    return answer.headers["docker-content-digest"], answer.body


async def test_everything_pulls_as_before_and_not_a_byte_of_the_old_layout_changed(
    place: Place, old: Distribution
) -> None:
    pusher = old.pusher
    pusher.image("app", "v1", [LAYER, 10])
    pusher.image("app/nested/deep", "v1", [LAYER, 10], seed="nested", media_type=DOCKER_MANIFEST)
    index = pusher.index("team/multi", "latest", {"linux/amd64": [500], "linux/arm64": [600]})
    signature = pusher.referrer("team/multi", index)
    gone = pusher.image("app", "gone", [77], seed="gone")
    pusher.delete("app", gone.digest)
    before = await fingerprints(place.driver, layout(place))

    report = await adopt(place.driver, place.root)

    assert report.whole, report.document()
    assert await fingerprints(place.driver, layout(place)) == before
    assert (report.repositories, report.done["blob_bytes_copied"]) == (3, 0)
    assert report.found["tags"] == report.done["tags_written"] == 4  # one of them is the fallback for referrers
    async with running(place.settings) as here:
        for name, reference in (("app", "v1"), ("app/nested/deep", "v1"), ("team/multi", "latest")):
            assert await pull(here, name, reference) == old_pull(pusher, name, reference)
        fallback = index.digest.replace(":", "-")
        assert await pull(here, "team/multi", fallback) == old_pull(pusher, "team/multi", fallback)
        found = (await here.client.get(f"/v2/team/multi/referrers/{index.digest}")).expect(200).json()
        assert [one["digest"] for one in found["manifests"]] == [signature.digest]
        (await here.client.get("/v2/app/manifests/gone", accept=ACCEPT)).expect(404)
        (await here.client.get(f"/v2/app/manifests/{gone.digest}", accept=ACCEPT)).expect(404)
        assert (await here.client.get("/v2/_catalog")).json() == {
            "repositories": ["app", "app/nested/deep", "team/multi"]
        }
        assert (await here.client.get("/v2/app/tags/list")).json()["tags"] == ["v1"]
        assert await here.store.keys(keys.DATA) == []


async def test_the_old_registry_goes_on_and_the_next_run_brings_what_it_took(place: Place, old: Distribution) -> None:
    pusher = old.pusher
    first = pusher.image("app", "latest", [LAYER], seed="1")
    await adopt(place.driver, place.root)
    second = pusher.image("app", "latest", [LAYER], seed="2")
    other = pusher.image("other", "new", [LAYER], seed="3")
    pusher.request("DELETE", "/v2/app/manifests/latest")

    async with running(place.settings) as here:
        await here.client.push_image("app", "mine", noise(1000))
        assert (await pull(here, "app", "latest"))[0] == first.digest
        pusher.manifest("app", "latest", second.data, second.media_type)
        report = await adopt(place.driver, place.root)
        assert report.whole, report.document()
        assert (report.done["tags_moved"], report.done["tags_written"]) == (1, 1)
        assert (report.done["manifests_written"], report.done["blob_bytes_copied"]) == (2, 0)
        assert (await pull(here, "app", "latest"))[0] == second.digest
        assert (await pull(here, "app", first.digest))[0] == first.digest
        assert (await pull(here, "other", "new"))[0] == other.digest
    assert old_pull(pusher, "app", "latest")[0] == second.digest
    status = pusher.request("GET", "/v2/app/manifests/mine", headers={"Accept": ACCEPT}).status
    assert status == 404  # what is pushed here is not seen there


async def test_nothing_new_costs_no_write_and_a_request_for_each_thousand_files(
    place: Place, old: Distribution
) -> None:
    index: Index = old.pusher.index("team/multi", "latest", {"linux/amd64": [500], "linux/arm64": [600]})
    old.pusher.referrer("team/multi", index)
    await adopt(place.driver, place.root)
    watched = Watched(place.driver)
    report = await adopt(watched, place.root)
    assert not any(report.done.values()), report.document()
    assert {operation for operation, _ in watched.asked} == {"list"}
    assert len(watched.asked) == 4  # what is quarantined, the old layout, what was taken over, the blobs held here


async def test_an_adopted_blob_is_served_shared_and_let_go_like_any_other(place: Place, old: Distribution) -> None:
    layer = noise(LAYER)
    digest = old.pusher.blob("app", layer)
    lonely = old.pusher.blob("app", noise(200))
    old.pusher.image("app", "v1", [10])
    await adopt(place.driver, place.root)
    before = await fingerprints(place.driver, layout(place))
    async with running(place.settings) as here:
        client = here.client
        assert (await client.head(f"/v2/app/blobs/{digest}")).header("content-length") == str(LAYER)
        part = (await client.get(f"/v2/app/blobs/{digest}", range="bytes=100-199")).expect(206)
        assert part.body == layer[100:200]
        mounted = await client.ask("POST", f"/v2/mounted/blobs/uploads/?mount={digest}&from=app")
        mounted.expect(201)
        await client.push_blob("pushed", layer)
        for name in ("mounted", "pushed"):
            assert (await client.get(f"/v2/{name}/blobs/{digest}")).expect(200).body == layer
        (await client.delete(f"/v2/app/blobs/{digest}")).expect(202)
        (await client.head(f"/v2/app/blobs/{digest}")).expect(404)
        assert (await client.get(f"/v2/pushed/blobs/{digest}")).expect(200).body == layer
        assert await here.store.keys(keys.DATA) == []  # the push has linked the bytes that lie there
        (await client.head(f"/v2/app/blobs/{lonely}")).expect(200)
    assert await fingerprints(place.driver, layout(place)) == before


async def test_an_adopted_blob_is_redirected_to(
    bucket_place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    storage = {"driver": "s3", "s3": {**bucket_place.storage["s3"], "redirect": True}}
    place = Place(bucket_place.distribution, storage, bucket_place.driver, bucket_place.root)
    with Distribution(need_distribution(request), tmp_path / "old", storage=place.distribution) as old:
        digest = old.pusher.blob("app", b"layer")
    await adopt(place.driver, place.root)
    async with running(place.settings) as here:
        answer = (await here.client.get(f"/v2/app/blobs/{digest}")).expect(307)
    location = answer.header("location") or ""
    assert f"/{place.root}/docker/registry/v2/blobs/" in location
    assert Pusher(location).request("GET", location).body == b"layer"
