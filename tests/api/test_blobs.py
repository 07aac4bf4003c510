import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.registry.uploads import SHARED_FROM
from storage import Corrupt, Reader
from tests.api.conftest import Create
from tests.services.app import CutOff, Running
from tests.services.client import OCTETS, Answer, Client, digest_of, make_image, noise

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


class BrokenReader:
    """Gives the first chunk and then fails, as a store that goes away."""

    def __init__(self, reader: Reader) -> None:
        self.size, self._reader = reader.size, reader

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._reader:
            yield chunk
            raise Corrupt("fewer bytes than announced")


def described(answer: Answer) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in answer.headers if name != "x-request-id")


@ALGORITHMS
@pytest.mark.parametrize("size", [0, 1, 70_000])
async def test_a_pushed_blob_comes_back_byte_for_byte(api: Client, algorithm: str, size: int) -> None:
    data = noise(size)
    digest = await api.push_blob("a/b", data, algorithm)
    got = (await api.get(f"/v2/a/b/blobs/{digest}")).expect(200)
    assert got.body == data
    assert got.header("content-type") == OCTETS
    assert got.header("content-length") == str(size)
    assert got.header("docker-content-digest") == digest
    assert got.header("etag") == f'"{digest}"'
    seen = (await api.head(f"/v2/a/b/blobs/{digest}")).expect(200)
    assert described(seen) == described(got)


async def test_a_blob_is_only_where_it_was_pushed(api: Client) -> None:
    digest = await api.push_blob("mine", b"secret")
    for target in (f"/v2/other/blobs/{digest}", f"/v2/mine/x/blobs/{digest}", f"/v2/min/blobs/{digest}"):
        assert (await api.get(target)).expect(404).codes == ["BLOB_UNKNOWN"]
        (await api.head(target)).expect(404)
        (await api.delete(target)).expect(404)


async def test_if_none_match_saves_the_bytes(light: Running) -> None:
    digest = await light.client.push_blob("a", b"x")
    answer = await light.client.get(f"/v2/a/blobs/{digest}", if_none_match=f'"{digest}"')
    assert answer.expect(304).body == b""
    (await light.client.get(f"/v2/a/blobs/{digest}", if_none_match='"other"')).expect(200)


@ALGORITHMS
async def test_a_deleted_blob_is_gone_at_once(api: Client, algorithm: str) -> None:
    digest = await api.push_blob("a", b"x", algorithm)
    (await api.delete(f"/v2/a/blobs/{digest}")).expect(202)
    (await api.head(f"/v2/a/blobs/{digest}")).expect(404)
    assert (await api.get(f"/v2/a/blobs/{digest}")).expect(404).codes == ["BLOB_UNKNOWN"]
    assert (await api.delete(f"/v2/a/blobs/{digest}")).expect(404).codes == ["BLOB_UNKNOWN"]


async def test_a_blob_that_was_deleted_can_be_pushed_again_and_named(api: Client) -> None:
    image = await api.push_image("a", "t", b"layer")
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    for data in image.blobs:
        (await api.delete(f"/v2/a/blobs/{digest_of(data)}")).expect(202)
    assert await api.push_image("a", "t", b"layer") == image
    for data in image.blobs:
        assert (await api.get(f"/v2/a/blobs/{digest_of(data)}")).body == data


async def test_deleting_a_blob_here_leaves_it_elsewhere(api: Client) -> None:
    """CVE-2026-35172 of Distribution: a shared cache brought deleted blobs back."""
    digest = await api.push_blob("a", b"shared")
    await api.push_blob("b", b"shared")
    (await api.delete(f"/v2/a/blobs/{digest}")).expect(202)
    assert (await api.get(f"/v2/b/blobs/{digest}")).expect(200).body == b"shared"
    (await api.head(f"/v2/a/blobs/{digest}")).expect(404)
    (await api.get(f"/v2/a/blobs/{digest}")).expect(404)


async def test_a_blob_that_a_manifest_names_cannot_be_deleted(api: Client) -> None:
    image = await api.push_image("a", "t", b"layer")
    for data in image.blobs:
        assert (await api.delete(f"/v2/a/blobs/{digest_of(data)}")).expect(405).codes == ["DENIED"]
        (await api.head(f"/v2/a/blobs/{digest_of(data)}")).expect(200)
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    (await api.delete(f"/v2/a/blobs/{digest_of(image.blobs[0])}")).expect(202)


async def test_a_blob_that_a_running_push_names_cannot_be_deleted(service: Running) -> None:
    """The publication is held just before it becomes visible: only its intent speaks for the blob."""
    api, image = service.client, make_image(b"layer")
    for data in image.blobs:
        await api.push_blob("a", data)
    held, go_on = asyncio.Event(), asyncio.Event()
    original = service.store.driver.put

    async def put(key: str, *args: object, **kwargs: object) -> None:
        if "/_manifests/" in key:
            held.set()
            await go_on.wait()
        await original(key, *args, **kwargs)  # type: ignore[arg-type]

    service.store.driver.put = put  # type: ignore[method-assign]
    push = asyncio.create_task(api.put_manifest("a", "t", image.data))
    await asyncio.wait_for(held.wait(), 10)
    digest = digest_of(b"layer")
    assert (await api.delete(f"/v2/a/blobs/{digest}")).expect(405).codes == ["DENIED"]
    go_on.set()
    (await push).expect(201)
    assert (await api.get(f"/v2/a/blobs/{digest}")).expect(200).body == b"layer"


@ALGORITHMS
async def test_a_mount_takes_a_blob_from_the_named_repository(api: Client, algorithm: str) -> None:
    digest = await api.push_blob("from/here", b"data", algorithm)
    answer = await api.ask("POST", f"/v2/to/blobs/uploads/?mount={digest}&from=from/here")
    assert answer.expect(201).location == f"/v2/to/blobs/{digest}"
    assert answer.header("docker-content-digest") == digest
    assert (await api.get(answer.location)).body == b"data"


@ALGORITHMS
async def test_a_mount_without_from_finds_the_blob_anywhere(api: Client, algorithm: str) -> None:
    digest = await api.push_blob("from/here", b"data", algorithm)
    answer = await api.ask("POST", f"/v2/to/blobs/uploads/?mount={digest}")
    assert (await api.get(answer.expect(201).location)).body == b"data"


@pytest.mark.parametrize("origin", ["", "&from=nowhere", "&from=from", "&from=..%2fUPPER", "&from=%00", "&from="])
async def test_a_mount_of_what_is_missing_becomes_an_upload(api: Client, origin: str) -> None:
    digest = digest_of(b"missing")
    answer = await api.ask("POST", f"/v2/to/blobs/uploads/?mount={digest}{origin}")
    (await api.finish(answer.expect(202).location, digest, b"missing")).expect(201)
    assert (await api.get(f"/v2/to/blobs/{digest}")).body == b"missing"


async def test_a_mount_does_not_look_beyond_from(api: Client) -> None:
    digest = await api.push_blob("elsewhere", b"data")
    (await api.ask("POST", f"/v2/to/blobs/uploads/?mount={digest}&from=empty")).expect(202)


async def test_a_mount_onto_itself_is_the_blob_itself(api: Client) -> None:
    digest = await api.push_blob("a", b"data")
    (await api.ask("POST", f"/v2/a/blobs/uploads/?mount={digest}&from=a")).expect(201)
    assert (await api.get(f"/v2/a/blobs/{digest}")).body == b"data"


async def test_the_same_bytes_are_kept_once(service: Running) -> None:
    for name in ("a", "b", "c/d"):
        await service.client.push_blob(name, noise(SHARED_FROM))
    assert len(await service.store.keys("data/")) == 1


async def test_few_bytes_are_not_worth_the_look_for_another_copy(light: Running) -> None:
    await light.client.push_blob("a", noise(SHARED_FROM - 1))
    light.store.asked.clear()
    await light.client.push_blob("b", noise(SHARED_FROM - 1))
    assert not [key for action, key in light.store.asked if action == "list" and key.startswith("blobs/")]
    assert len(await light.store.keys("data/")) == 2


async def test_a_link_whose_bytes_are_gone_is_404_and_a_push_heals_it(service: Running) -> None:
    api, digest = service.client, await service.client.push_blob("a", b"lost")
    for key in await service.store.keys("data/"):
        await service.store.driver.delete(key)
    assert (await api.get(f"/v2/a/blobs/{digest}")).expect(404).codes == ["BLOB_UNKNOWN"]
    (await api.head(f"/v2/a/blobs/{digest}")).expect(404)
    assert await api.push_blob("a", b"lost") == digest
    assert (await api.get(f"/v2/a/blobs/{digest}")).body == b"lost"
    assert any(event["event"] == "bytes of a blob are gone" for event in service.events())


async def test_a_push_elsewhere_heals_bytes_that_are_gone(service: Running) -> None:
    """The second repository must not be given a link to bytes that are not there."""
    api, digest = service.client, await service.client.push_blob("a", b"lost")
    for key in await service.store.keys("data/"):
        await service.store.driver.delete(key)
    (await api.get(f"/v2/a/blobs/{digest}")).expect(404)
    await api.push_blob("b", b"lost")
    assert (await api.get(f"/v2/b/blobs/{digest}")).expect(200).body == b"lost"


async def test_bytes_of_another_length_are_never_sent_as_the_blob(service: Running) -> None:
    digest = await service.client.push_blob("a", noise(1000))
    (key,) = await service.store.keys("data/")
    await service.store.driver.put(key, noise(999))
    (await service.client.get(f"/v2/a/blobs/{digest}")).expect(404)


async def test_a_store_that_breaks_off_cuts_the_answer(light: Running) -> None:
    digest = await light.client.push_blob("a", noise(600_000))
    original = light.store.driver.open

    @asynccontextmanager
    async def broken(key: str, start: int = 0, end: int | None = None) -> AsyncIterator[BrokenReader]:
        async with original(key, start, end) as reader:
            yield BrokenReader(reader)

    light.store.driver.open = broken  # type: ignore[method-assign]
    with pytest.raises(CutOff) as cut:
        await light.client.get(f"/v2/a/blobs/{digest}")
    assert cut.value.answer.status == 200
    assert 0 < len(cut.value.answer.body) < 600_000


@pytest.mark.parametrize("racers", [8])
async def test_many_pushes_of_one_blob_all_succeed(api: Client, racers: int) -> None:
    data = noise(100_000)
    digests = await asyncio.gather(*[api.push_blob(f"r{i % 3}", data) for i in range(racers)])
    assert len(set(digests)) == 1
    for i in range(3):
        assert (await api.get(f"/v2/r{i}/blobs/{digests[0]}")).body == data


async def test_the_store_is_asked_whether_a_blob_exists_every_time(create: Create) -> None:
    service = await create()
    digest = await service.client.push_blob("a", b"x")
    service.store.asked.clear()
    for _ in range(3):
        (await service.client.head(f"/v2/a/blobs/{digest}")).expect(200)
    assert len(service.store.asked) == 3
    assert all(digest.partition(":")[2] in key for _, key in service.store.asked)
