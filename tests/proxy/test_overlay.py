"""A plain name behind which both a local repository and an upstream's may stand."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.proxy.pulling import UP, pulling, section, stored
from tests.services.app import InProcess, Running
from tests.services.client import INDEX, Client, descriptor, digest_of, make_image, make_index
from tests.services.clients import Client as Program, find_program
from tests.services.front import Front
from tests.services.images import write_index
from tests.services.registry import RegistryServer, filesystem_store
from tests.services.upstreams import Distribution

READING, WRITING = 32000, 32001
LISTENERS = [{"port": WRITING}, {"port": READING, "read_only": True, "anonymous": "pull"}]


@pytest.fixture
async def service(front: Front, tmp_path: Path) -> AsyncIterator[Running]:
    """A writable listener, which `client` uses, and one for reading only, over one store."""
    given: dict[str, Any] = {"proxy": {"default_upstream": UP}, "listeners": LISTENERS}
    async with pulling(tmp_path, section(front.url), **given) as service:
        yield service


def at(service: Running, port: int) -> Client:
    """A client of one listener."""
    listeners = Settings.model_validate({"listeners": LISTENERS}).listening()
    (listener,) = [one for one in listeners if one.port == port]
    return Client(InProcess(service.app.on(listener)))


async def test_what_is_here_hides_what_is_upstream(service: Running, upstream: Distribution, front: Front) -> None:
    theirs = upstream.pusher.image("both/app", "1", [10])
    other = upstream.pusher.image("both/app", "2", [20])
    mine = await service.client.push_image("both/app", "1", b"mine")
    for client in (service.client, at(service, READING)):
        assert (await client.get("/v2/both/app/manifests/1")).expect(200).body == mine.data
        assert (await client.head("/v2/both/app/manifests/1")).header("docker-content-digest") == mine.digest
        assert (await client.get(f"/v2/both/app/blobs/{digest_of(b'mine')}")).expect(200).body == b"mine"
        assert (await client.get("/v2/both/app/tags/list")).expect(200).json()["tags"] == ["1"]
        assert front.count() == 0
    for client in (service.client, at(service, READING)):
        assert (await client.get("/v2/both/app/manifests/2")).expect(200).body == other.data
        assert (await client.get(f"/v2/both/app/manifests/{theirs.digest}")).expect(200).body == theirs.data


async def test_what_is_not_here_comes_from_the_default_upstream(
    service: Running, upstream: Distribution, front: Front
) -> None:
    image = upstream.pusher.image("far/app", "1", [3000])
    layer = digest_of(image.blobs[1])
    reader = at(service, READING)
    (await service.client.head("/v2/far/app/manifests/1")).expect(200)
    assert (await service.client.get("/v2/far/app/manifests/1")).expect(200).body == image.data
    assert (await reader.head(f"/v2/far/app/blobs/{layer}")).expect(200).header("content-length") == "3000"
    for client in (service.client, reader):
        assert (await client.get(f"/v2/far/app/blobs/{layer}")).expect(200).body == image.blobs[1]
        ranged = (await client.get(f"/v2/far/app/blobs/{layer}", range="bytes=10-19")).expect(206)
        assert ranged.body == image.blobs[1][10:20]
    listed = (await reader.get("/v2/far/app/tags/list")).expect(200).json()
    assert listed == {"name": "far/app", "tags": ["1"]}
    names = {key.partition("/_")[0] for key in await service.store.keys("repositories/")}
    assert names == {f"repositories/{UP}/far/app"}
    assert front.count("*/blobs/*", "GET") == 1


async def test_where_pushes_go_a_blob_that_is_only_upstream_is_not_here(
    service: Running, upstream: Distribution, front: Front
) -> None:
    """A HEAD that said yes would make the client skip the upload, and the manifest could never be pushed."""
    image = upstream.pusher.image("pushed/app", "1", [3000])
    layer = digest_of(image.blobs[1])
    (await service.client.get("/v2/pushed/app/manifests/1")).expect(200)
    (await service.client.get(f"/v2/pushed/app/blobs/{layer}")).expect(200)
    await stored(service, f"{UP}/pushed/app", layer)
    (await service.client.head(f"/v2/pushed/app/blobs/{layer}")).expect(404)
    (await at(service, READING).head(f"/v2/pushed/app/blobs/{layer}")).expect(200)
    pushed = await service.client.push_image("pushed/app", "mine", image.blobs[1])
    front.down()
    assert (await service.client.get("/v2/pushed/app/manifests/mine")).expect(200).body == pushed.data
    (await service.client.head(f"/v2/pushed/app/blobs/{layer}")).expect(200)


async def test_an_index_over_images_that_are_only_upstream_can_be_pushed(
    service: Running, upstream: Distribution, front: Front
) -> None:
    """Clients ask by HEAD whether the images of an index are there before they push them."""
    images = [upstream.pusher.image("many/app", f"{number}", [2000 + number]) for number in range(2)]
    for image in images:
        (await service.client.head(f"/v2/many/app/manifests/{image.digest}")).expect(200)
    index = make_index([descriptor(image.data, image.media_type) for image in images])
    (await service.client.put_manifest("many/app", "mine", index, INDEX)).expect(201)
    front.down()
    for image in images:
        assert (await service.client.get(f"/v2/many/app/manifests/{image.digest}")).expect(200).body == image.data
        for data in image.blobs:
            held = (await service.client.head(f"/v2/many/app/blobs/{digest_of(data)}")).expect(200)
            assert held.header("content-length") == str(len(data))
            assert (await service.client.get(f"/v2/many/app/blobs/{digest_of(data)}")).expect(200).body == data


async def test_what_is_nowhere_is_named_by_the_push_that_needs_it(service: Running, front: Front) -> None:
    image = make_image(b"never pushed", config=b"{}")
    index = make_index([descriptor(image.data, image.media_type)])
    for down in (False, True):
        if down:
            front.down()
        refused = (await service.client.put_manifest("none/app", "1", image.data)).expect(404)
        assert refused.codes == ["MANIFEST_BLOB_UNKNOWN"] * 2
        refused = (await service.client.put_manifest("none/app", "1", index, INDEX)).expect(404)
        assert [one["detail"]["digest"] for one in refused.json()["errors"]] == [image.digest]
    assert await service.store.keys("repositories/") == []


async def test_deleting_a_plain_name_deletes_what_is_here(
    service: Running, upstream: Distribution, front: Front
) -> None:
    theirs = upstream.pusher.image("gone/app", "1", [10])
    mine = await service.client.push_image("gone/app", "1", b"mine")
    (await service.client.delete(f"/v2/gone/app/manifests/{mine.digest}")).expect(202)
    assert (await service.client.get("/v2/gone/app/manifests/1")).expect(200).body == theirs.data
    (await service.client.delete(f"/v2/gone/app/manifests/{theirs.digest}")).expect(404)


async def test_referrers_of_what_is_here_stay_here(service: Running, upstream: Distribution, front: Front) -> None:
    theirs = upstream.pusher.image("signed/app", "1", [10])
    made = upstream.pusher.referrer("signed/app", theirs)
    mine = await service.client.push_image("signed/app", "mine", b"mine")
    local = (await service.client.get(f"/v2/signed/app/referrers/{mine.digest}")).expect(200)
    assert local.json()["manifests"] == []
    assert front.count() == 0
    far = (await service.client.get(f"/v2/signed/app/referrers/{theirs.digest}")).expect(200)
    assert [item["digest"] for item in far.json()["manifests"]] == [made.digest]


async def test_what_is_pushed_at_one_listener_is_pulled_at_the_other(service: Running, front: Front) -> None:
    image = await service.client.push_image("mine/app", "1", b"layer")
    reader = at(service, READING)
    assert (await reader.get("/v2/mine/app/manifests/1")).expect(200).body == image.data
    assert (await reader.get(f"/v2/mine/app/blobs/{digest_of(b'layer')}")).expect(200).body == b"layer"
    for method, target in (("POST", "/v2/mine/app/blobs/uploads/"), ("PUT", "/v2/mine/app/manifests/2")):
        assert (await reader.ask(method, target, body=b"")).expect(405).codes == ["UNSUPPORTED"]
    (await reader.delete(f"/v2/mine/app/manifests/{image.digest}")).expect(405)
    assert front.count() == 0


@pytest.mark.clients
def test_crane_pushes_and_tags_through_an_overlay(
    request: pytest.FixtureRequest, upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    program = find_program("crane")
    if program is None:
        (pytest.fail if request.config.getoption("--require-clients") else pytest.skip)("crane is not installed")
    assert program is not None
    layout = write_index(tmp_path / "layout", {"amd64": [{"etc/a": b"a"}], "arm64": [{"etc/b": b"b"}]})
    upstream.pusher.layout("craned/app", layout, "1")
    settings = {
        "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps([section(front.url)]),
        "EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(tmp_path / "spool"),
        "EDGE_REGISTRY_PROXY__DEFAULT_UPSTREAM": UP,
    }
    crane = Program(program, tmp_path / "home", options=["--insecure"])
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data"), settings=settings) as server:
        name = f"{server.host}/craned/app"
        crane.run("push", str(layout.folder), f"{name}:pushed")
        crane.run("tag", f"{name}:1", "tagged")
        front.down()
        for tag in ("pushed", "tagged"):
            crane.run("pull", "--format", "oci", f"{name}:{tag}", str(tmp_path / tag))
            for layer in layout.layers:
                pulled = tmp_path / tag / "blobs/sha256" / layer.removeprefix("sha256:")
                assert pulled.read_bytes() == layout.blob(layer)
