import asyncio
import base64
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from app.registry import sessions
from tests.api.conftest import Create
from tests.services.app import ClientAbort, Running
from tests.services.client import Client, digest_of, noise

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
UNKNOWN = ["BLOB_UPLOAD_UNKNOWN"]


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def held(api: Client, repository: str, data: bytes, algorithm: str = "sha256") -> bool:
    answer = await api.get(f"/v2/{repository}/blobs/{digest_of(data, algorithm)}")
    return answer.status == 200 and answer.body == data


@ALGORITHMS
@pytest.mark.parametrize("size", [0, 100, 300_000])
async def test_post_and_put(api: Client, algorithm: str, size: int) -> None:
    data, digest = noise(size), digest_of(noise(size), algorithm)
    location = await api.begin("a/b", f"?digest-algorithm={algorithm}")
    answer = (await api.finish(location, digest, data)).expect(201)
    assert answer.location == f"/v2/a/b/blobs/{digest}"
    assert answer.header("docker-content-digest") == digest
    assert await held(api, "a/b", data, algorithm)


@ALGORITHMS
@pytest.mark.parametrize("size", [0, 100, 300_000])
async def test_a_single_post(api: Client, algorithm: str, size: int) -> None:
    data, digest = noise(size), digest_of(noise(size), algorithm)
    answer = await api.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", body=data)
    assert answer.expect(201).location == f"/v2/a/blobs/{digest}"
    assert await held(api, "a", data, algorithm)


@ALGORITHMS
@pytest.mark.parametrize("size", [0, 100, 300_000])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
async def test_a_streamed_patch(api: Client, algorithm: str, size: int, told: bool) -> None:
    """Docker's way: one PATCH without a length, then a PUT without a body; clients may not tell the algorithm."""
    data = noise(size)
    location = await api.begin("a", f"?digest-algorithm={algorithm}" if told else "")
    answer = (await api.patch(location, pieces(data, 7000))).expect(202)
    assert answer.header("range") == f"0-{max(0, size - 1)}"
    (await api.finish(answer.location, digest_of(data, algorithm))).expect(201)
    assert await held(api, "a", data, algorithm)


@ALGORITHMS
@pytest.mark.parametrize("last", [True, False], ids=["last chunk in the PUT", "empty PUT"])
async def test_chunks(api: Client, algorithm: str, last: bool) -> None:
    data = noise(10_000)
    location, at = await api.begin("a", f"?digest-algorithm={algorithm}"), 0
    cuts = [0, 1, 4000, 4001, 9000]
    for begin, end in pairwise(cuts):
        answer = (await api.patch(location, data[begin:end], begin)).expect(202)
        assert answer.header("range") == f"0-{end - 1}"
        location, at = answer.location, end
    if not last:
        location, at = (await api.patch(location, data[at:], at)).expect(202).location, len(data)
        (await api.finish(location, digest_of(data, algorithm))).expect(201)
    else:
        (await api.finish(location, digest_of(data, algorithm), data[at:], at)).expect(201)
    assert await held(api, "a", data, algorithm)


async def test_chunks_without_content_range(api: Client) -> None:
    """A stream that is continued: several PATCHes, each of which begins where the upload stands."""
    data, location = noise(30_000), await api.begin("a")
    for at in range(0, 30_000, 10_000):
        location = (await api.patch(location, data[at : at + 10_000])).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    assert await held(api, "a", data)


async def test_a_stream_and_then_a_body_in_the_put(api: Client) -> None:
    data, location = noise(20_000), await api.begin("a")
    location = (await api.patch(location, data[:15_000])).expect(202).location
    (await api.finish(location, digest_of(data), data[15_000:])).expect(201)
    assert await held(api, "a", data)


async def test_a_stream_of_bytes_that_are_held_already_may_go_on(api: Client) -> None:
    """The first PATCH turns out to be a blob of another repository; what follows makes it another blob."""
    data = noise(20_000)
    await api.push_blob("other", data[:15_000])
    location = (await api.patch(await api.begin("a"), data[:15_000])).expect(202).location
    location = (await api.patch(location, data[15_000:], 15_000)).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    assert await held(api, "a", data)


@ALGORITHMS
@pytest.mark.parametrize("at", [1, 20, 1000])
async def test_a_first_chunk_out_of_order(api: Client, algorithm: str, at: int) -> None:
    location = await api.begin("a", f"?digest-algorithm={algorithm}")
    refused = (await api.patch(location, b"x" * 10, at)).expect(416)
    assert refused.codes == ["RANGE_INVALID"]
    answer = (await api.patch(refused.location, b"y" * 10, 0)).expect(202)
    (await api.finish(answer.location, digest_of(b"y" * 10, algorithm))).expect(201)


@ALGORITHMS
@pytest.mark.parametrize("at", [0, 50, 99, 101, 5000])
async def test_a_chunk_out_of_order(api: Client, algorithm: str, at: int) -> None:
    """416 says where to go on, and going on from there works."""
    data = noise(200)
    location = await api.begin("a", f"?digest-algorithm={algorithm}")
    location = (await api.patch(location, data[:100], 0)).expect(202).location
    refused = (await api.patch(location, data[100:], at)).expect(416)
    assert refused.codes == ["RANGE_INVALID"]
    assert refused.header("range") == "0-99"
    location = (await api.patch(refused.location, data[100:], 100)).expect(202).location
    (await api.finish(location, digest_of(data, algorithm))).expect(201)
    assert await held(api, "a", data, algorithm)


@ALGORITHMS
@pytest.mark.parametrize("at", [0, 99, 101])
async def test_a_last_chunk_out_of_order(api: Client, algorithm: str, at: int) -> None:
    data = noise(200)
    location = await api.begin("a", f"?digest-algorithm={algorithm}")
    location = (await api.patch(location, data[:100], 0)).expect(202).location
    refused = (await api.finish(location, digest_of(data, algorithm), data[100:], at)).expect(416)
    assert refused.header("range") == "0-99"
    (await api.finish(refused.location, digest_of(data, algorithm), data[100:], 100)).expect(201)
    assert await held(api, "a", data, algorithm)


async def test_an_old_location_is_told_where_the_upload_stands(api: Client) -> None:
    """A client whose answer was lost asks with the Location that it has."""
    data, first = noise(300), await api.begin("a")
    second = (await api.patch(first, data[:100], 0)).expect(202).location
    (await api.patch(second, data[100:200], 100)).expect(202)
    status = (await api.get(second)).expect(204)
    assert status.header("range") == "0-199"
    assert (await api.patch(second, data[100:200], 100)).expect(416).header("range") == "0-199"
    location = (await api.patch(status.location, data[200:], 200)).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    assert await held(api, "a", data)


async def test_the_first_location_still_leads_to_the_upload(api: Client) -> None:
    """The answer of the first chunk was lost: the client sends it again with the Location of the POST."""
    data, first = noise(200), await api.begin("a")
    (await api.patch(first, data[:100], 0)).expect(202)
    refused = (await api.patch(first, data[:100], 0)).expect(416)
    assert refused.header("range") == "0-99"
    location = (await api.patch(refused.location, data[100:], 100)).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    assert await held(api, "a", data)


async def test_status_of_a_new_upload(api: Client) -> None:
    answer = (await api.get(await api.begin("a"))).expect(204)
    assert answer.header("range") == "0-0"
    assert answer.header("docker-upload-uuid") in answer.location


async def test_status_of_a_streamed_upload(api: Client) -> None:
    location = (await api.patch(await api.begin("a"), noise(500))).expect(202).location
    assert (await api.get(location)).expect(204).header("range") == "0-499"


@pytest.mark.parametrize("sent", ["nothing", "stream", "chunk"])
async def test_a_cancelled_upload_is_unknown(api: Client, sent: str) -> None:
    location = await api.begin("a")
    if sent != "nothing":
        location = (await api.patch(location, b"x", 0 if sent == "chunk" else None)).expect(202).location
    (await api.delete(location)).expect(204)
    assert (await api.get(location)).expect(404).codes == UNKNOWN
    assert (await api.patch(location, b"y", 1)).expect(404).codes == UNKNOWN
    assert (await api.finish(location, digest_of(b"x"))).expect(404).codes == UNKNOWN
    (await api.delete(location)).expect(404)


async def test_a_cancelled_chunked_upload_leaves_nothing(service: Running) -> None:
    location = (await service.client.patch(await service.client.begin("a"), noise(100), 0)).expect(202).location
    assert await service.store.keys("uploads/")
    (await service.client.delete(location)).expect(204)
    assert await service.store.keys() == []


async def test_post_writes_nothing(service: Running) -> None:
    await service.client.begin("a")
    assert service.store.asked == []


@ALGORITHMS
@pytest.mark.parametrize("shape", ["put", "post", "stream", "chunk"])
async def test_a_wrong_digest_is_refused_and_never_visible(service: Running, algorithm: str, shape: str) -> None:
    api, data, wrong = service.client, noise(1000), digest_of(b"other", algorithm)
    if shape == "post":
        answer = await api.ask("POST", f"/v2/a/blobs/uploads/?digest={wrong}", body=data)
    else:
        location = await api.begin("a", f"?digest-algorithm={algorithm}")
        if shape != "put":
            location = (await api.patch(location, data, 0 if shape == "chunk" else None)).expect(202).location
        answer = await api.finish(location, wrong, data if shape == "put" else None)
        if shape == "chunk":
            assert (await api.get(location)).expect(404).codes == UNKNOWN
    assert answer.expect(400).codes == ["DIGEST_INVALID"]
    for digest in (wrong, digest_of(data, algorithm)):
        (await api.head(f"/v2/a/blobs/{digest}")).expect(404)
    visible = await service.store.keys("repositories/") + await service.store.keys("blobs/")
    assert visible == []
    if shape in ("put", "post"):
        assert await service.store.keys() == []


@pytest.mark.parametrize("digest", ["", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:ABC", "sha256", "x", "%00"])
async def test_a_put_with_a_malformed_digest(light: Running, digest: str) -> None:
    location = await light.client.begin("a")
    assert (await light.client.finish(location, digest, b"x")).expect(400).codes == ["DIGEST_INVALID"]
    assert (await light.client.ask("PUT", location, body=b"x")).expect(400).codes == ["DIGEST_INVALID"]
    assert light.store.asked == []


@pytest.mark.parametrize("shape", ["put", "stream", "chunk"])
async def test_a_repeated_finish_gets_its_201_again(api: Client, shape: str) -> None:
    """A balancer or a client repeats the last PUT when its answer was lost."""
    data, location = noise(1000), await api.begin("a")
    body = data if shape == "put" else None
    if shape != "put":
        location = (await api.patch(location, data, 0 if shape == "chunk" else None)).expect(202).location
    for _ in range(3):
        answer = (await api.finish(location, digest_of(data), body)).expect(201)
        assert answer.header("docker-content-digest") == digest_of(data)
    assert await held(api, "a", data)


async def test_concurrent_finishes_of_one_upload_both_succeed(api: Client) -> None:
    data = noise(1000)
    location = (await api.patch(await api.begin("a"), data)).expect(202).location
    answers = await asyncio.gather(*[api.finish(location, digest_of(data)) for _ in range(4)])
    assert [answer.status for answer in answers] == [201] * 4
    assert await held(api, "a", data)


async def test_a_finished_chunked_upload_cannot_be_repeated_as_another_blob(api: Client) -> None:
    location = (await api.patch(await api.begin("a"), b"abc", 0)).expect(202).location
    (await api.finish(location, digest_of(b"abc"))).expect(201)
    assert (await api.finish(location, digest_of(b"x"))).expect(400).codes == ["DIGEST_INVALID"]
    assert (await api.patch(location, b"d", 3)).expect(404).codes == UNKNOWN


@pytest.mark.parametrize("sent", ["nothing", "stream", "chunk"])
async def test_an_upload_belongs_to_its_repository(api: Client, sent: str) -> None:
    """CVE-2026-32589 of Quay."""
    location = await api.begin("a")
    if sent != "nothing":
        location = (await api.patch(location, b"x", 0 if sent == "chunk" else None)).expect(202).location
    stolen = location.replace("/v2/a/", "/v2/b/")
    for answer in (
        await api.get(stolen),
        await api.patch(stolen, b"y", 1),
        await api.finish(stolen, digest_of(b"x")),
        await api.delete(stolen),
    ):
        assert answer.expect(404).codes == UNKNOWN
    (await api.get(location)).expect(204)


async def test_tampered_and_forged_states_are_unknown(light: Running) -> None:
    api, location = light.client, await light.client.begin("a")
    path, _, state = location.partition("?_state=")
    name, payload, code = state.split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=="))
    bent = base64.urlsafe_b64encode(json.dumps({**fields, "uuid": "../../x"}).encode()).decode().rstrip("=")
    forged = [
        "", ".", "..", "...", "x", "a.b.c", f"{name}.{bent}.{code}", f"{name}.{payload}.{code[:-2]}AA",
        f".{payload}.{code}",
        f"{name}.{payload}.", f"{name}.{payload}", f"{name}..{code}", "%00.%00.%00", "%C3%BC.%C3%BC.%C3%BC", "a" * 5000,
        f"{name}.{payload}.{code}.", f"00000000.{payload}.{code}", f"{name}.%ff%ff.{code}",
    ]  # fmt: skip
    for token in forged:
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            query = f"?_state={token}" + (f"&digest={digest_of(b'')}" if method == "PUT" else "")
            assert (await api.ask(method, path + query)).expect(404).codes == UNKNOWN, token
    assert (await api.get(path)).expect(404).codes == UNKNOWN
    assert (await api.get(f"{path}x?_state={state}")).expect(404).codes == UNKNOWN
    (await api.get(location)).expect(204)


async def test_an_upload_grows_too_old(light: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    location = await light.client.begin("a")
    now = sessions.time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now + 20 * 3600 + 2)
    assert (await light.client.finish(location, digest_of(b""))).expect(404).codes == UNKNOWN
    monkeypatch.setattr(sessions.time, "time", lambda: now + 20 * 3600 - 60)
    (await light.client.finish(location, digest_of(b""))).expect(201)


async def test_the_order_of_the_query_does_not_matter(light: Running) -> None:
    path, _, query = (await light.client.begin("a")).partition("?")
    answer = await light.client.ask("PUT", f"{path}?digest={digest_of(b'x')}&{query}", body=b"x")
    answer.expect(201)


async def test_a_location_is_short_whatever_the_name(light: Running) -> None:
    name = "/".join(["a" * 49] * 5)
    location = (await light.client.patch(await light.client.begin(name), b"x")).expect(202).location
    assert len(location) < 1024


@pytest.mark.parametrize("shape", ["put", "stream", "chunk"])
async def test_a_client_that_goes_away_leaves_nothing(service: Running, shape: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield noise(100_000)
        yield noise(9_000_000)
        raise ClientAbort

    api, before = service.client, await service.store.keys()
    location = await api.begin("a")
    headers = {"content-range": "0-99999999"} if shape == "chunk" else {}
    method, target = ("PUT", f"{location}&digest={digest_of(b'')}") if shape == "put" else ("PATCH", location)
    with pytest.raises(ClientAbort):
        await api.ask(method, target, headers, body())
    left = [key for key in await service.store.keys() if not key.endswith("/state")]
    assert left == before
    (await api.finish((await api.get(location)).expect(204).location, digest_of(b"abc"), b"abc")).expect(201)
    assert await held(api, "a", b"abc")


async def test_a_broken_chunk_keeps_what_was_acknowledged(service: Running) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield noise(100)
        raise ClientAbort

    api, data = service.client, noise(3000)
    location = (await api.patch(await api.begin("a"), data[:1000], 0)).expect(202).location
    with pytest.raises(ClientAbort):
        await api.ask("PATCH", location, {"content-range": "1000-2999"}, body())
    status = (await api.get(location)).expect(204)
    assert status.header("range") == "0-999"
    location = (await api.patch(status.location, data[1000:], 1000)).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    assert await held(api, "a", data)


@pytest.mark.parametrize("told", ["5-4", "x", "0-", "-5", "bytes 0-2/3, 4-5", "0-99999999999999999999", ""])
async def test_a_malformed_content_range(light: Running, told: str) -> None:
    location = await light.client.begin("a")
    answer = await light.client.ask("PATCH", location, {"content-range": told}, b"abc")
    assert answer.expect(400).codes == ["BLOB_UPLOAD_INVALID"]
    assert light.store.asked == []


@pytest.mark.parametrize("told", ["0-1", "0-3", "0-100"])
async def test_content_range_and_length_that_differ(service: Running, told: str) -> None:
    location = await service.client.begin("a")
    answer = await service.client.ask("PATCH", location, {"content-range": told}, b"abc")
    assert answer.expect(400).codes == ["SIZE_INVALID"]
    streamed = await service.client.ask("PATCH", location, {"content-range": told}, pieces(b"abc", 2))
    assert streamed.expect(400).codes == ["SIZE_INVALID"]
    assert [key for key in await service.store.keys() if not key.endswith("/state")] == []


@pytest.mark.parametrize("shape", ["put", "post", "stream", "chunk"])
async def test_encoded_bodies_are_refused(light: Running, shape: str) -> None:
    location, digest = await light.client.begin("a"), digest_of(b"x")
    headers = {"content-encoding": "gzip"} | ({"content-range": "0-0"} if shape == "chunk" else {})
    method, target = {
        "put": ("PUT", f"{location}&digest={digest}"),
        "post": ("POST", f"/v2/a/blobs/uploads/?digest={digest}"),
    }.get(shape, ("PATCH", location))
    assert (await light.client.ask(method, target, headers, b"x")).expect(415).codes == ["UNSUPPORTED"]
    assert [key for key in await light.store.keys() if not key.endswith("/state")] == []


async def test_unknown_digest_algorithms_are_refused(light: Running) -> None:
    for algorithm in ("md5", "sha1", "SHA256", "sha384", "%00"):
        answer = await light.client.ask("POST", f"/v2/a/blobs/uploads/?digest-algorithm={algorithm}")
        assert answer.expect(400).codes == ["DIGEST_INVALID"]


async def test_a_racing_chunk_at_the_same_offset_cannot_mix_bytes(api: Client) -> None:
    first, second = noise(5000, "one"), noise(5000, "two")
    location = (await api.patch(await api.begin("a"), b"head", 0)).expect(202).location
    answers = await asyncio.gather(api.patch(location, first, 4), api.patch(location, second, 4))
    won = [data for data, answer in zip((first, second), answers, strict=True) if answer.status == 202]
    assert sorted(answer.status for answer in answers) == [202, 416]
    location = next(answer.location for answer in answers if answer.status == 202)
    (await api.finish(location, digest_of(b"head" + won[0]))).expect(201)
    assert await held(api, "a", b"head" + won[0])


async def test_large_streams_and_chunks_become_parts(create: Create) -> None:
    service = await create()
    api, data = service.client, noise(20_000_000)
    location = (await api.patch(await api.begin("a"), pieces(data, 65_536))).expect(202).location
    (await api.finish(location, digest_of(data))).expect(201)
    location = await api.begin("b")
    for at in range(0, len(data), 9_000_001):
        location = (await api.patch(location, data[at : at + 9_000_001], at)).expect(202).location
    other = data + b"!"
    (await api.finish(location, digest_of(other), b"!")).expect(201)
    assert await held(api, "a", data)
    assert await held(api, "b", other)
