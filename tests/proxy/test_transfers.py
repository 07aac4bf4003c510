"""One transfer for all who want a blob, whatever the upstream does on the way and whoever leaves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.oci.digests import Digest
from app.oci.names import Name
from app.proxy.spool import Origin
from storage import Unavailable
from tests.proxy.pulling import UP, pulling, section, upstream_of
from tests.proxy.reading import BLOBS, HALF, SIZE, Reading, begun, blob_path, closed, holds, push, settled, transfers_of
from tests.proxy.served import serve
from tests.services.app import CutOff, Running
from tests.services.client import LAYER, MANIFEST, digest_of, encode, noise
from tests.services.front import Fault, Front
from tests.services.pushing import Pusher

HELD = 64 << 10


@pytest.fixture
async def service(front: Front, tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[Running]:
    """A registry before the front."""
    async with pulling(tmp_path, section(front.url, stall_timeout=60)) as service:
        yield service


def gets(front: Front) -> int:
    return front.count(BLOBS, "GET")


async def test_eight_clients_and_ranges_of_a_cold_blob_are_one_upstream_get(service: Running, front: Front) -> None:
    digest, data = push(front, seed="eight")
    front.rate = 6_000_000
    whole = [Reading(service, blob_path(digest)) for _ in range(8)]
    ranges = [(0, 9), (100_000, 1_200_000), (SIZE - 70_000, SIZE - 1), (SIZE - 1, SIZE - 1)]
    parts = [Reading(service, blob_path(digest), range=f"bytes={first}-{last}") for first, last in ranges]
    for reading in whole:
        await reading.right(data)
    for reading, (first, last) in zip(parts, ranges, strict=True):
        await reading.right(data[first : last + 1])
        assert reading.status == 206
    await settled(service)
    assert gets(front) == 1
    assert front.sent(BLOBS) == SIZE
    assert await holds(service, digest, data)


async def test_what_has_come_is_given_at_once_and_what_has_not_when_it_comes(service: Running, front: Front) -> None:
    digest, data = push(front, seed="growing")
    first = await begun(service, front, digest, data)
    early = Reading(service, blob_path(digest), range="bytes=500000-599999")
    await early.right(data[500_000:600_000])
    beyond = Reading(service, blob_path(digest), range=f"bytes={HALF + 1000}-{HALF + 200_000}")
    late = Reading(service, blob_path(digest))
    await late.has(HALF)
    assert not beyond.body
    front.cut_all()
    await beyond.right(data[HALF + 1000 : HALF + 200_001])
    await first.right(data)
    await late.right(data)
    assert front.sent(BLOBS) <= SIZE * 1.02


async def test_a_transfer_goes_on_when_all_its_clients_have_left(service: Running, front: Front) -> None:
    digest, data = push(front, seed="left")
    first = await begun(service, front, digest, data)
    second = Reading(service, blob_path(digest))
    await second.has(HALF)
    first.leave()
    await second.cancel()
    await first.ended()
    assert not first.whole
    front.cut_all()
    await settled(service)
    assert await holds(service, digest, data)
    assert front.sent(BLOBS) <= SIZE * 1.02


async def test_a_reader_stays_when_the_one_that_began_the_transfer_leaves(service: Running, front: Front) -> None:
    digest, data = push(front, seed="first")
    first = await begun(service, front, digest, data)
    second = Reading(service, blob_path(digest))
    await second.has(1)
    await first.cancel()
    front.cut_all()
    await second.right(data)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_an_upstream_that_is_cut_again_and_again_is_continued_by_range(
    service: Running, front: Front, reset: bool
) -> None:
    digest, data = push(front, seed="cut")
    front.rate = 8_000_000  # as lines that break are
    front.on(BLOBS, Fault(cut=500_000, reset=reset), method="GET")
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) >= 6
    assert front.sent(BLOBS) <= SIZE * 1.15


async def test_a_stall_is_continued_by_range(front: Front, tmp_path: Path, complaints: list[dict[str, Any]]) -> None:
    digest, data = push(front, seed="stall")
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    async with pulling(tmp_path, section(front.url, stall_timeout=1)) as service:
        await Reading(service, blob_path(digest)).right(data)
    assert [request.headers.get("range") for request in front.records.find(BLOBS, "GET")] == [None, f"bytes={HALF}-"]
    assert front.sent(BLOBS) == SIZE


async def test_an_upstream_that_ignores_ranges_is_read_from_the_start_again(service: Running, front: Front) -> None:
    digest, data = push(front, seed="ignored")
    front.on(BLOBS, Fault(ignore_range=True), method="GET")
    front.on(BLOBS, Fault(cut=HALF), method="GET", times=1)
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 2
    assert front.sent(BLOBS) == SIZE + HALF


@pytest.mark.parametrize("shift", [-1000, 1000])
async def test_an_upstream_that_answers_another_range_is_asked_for_everything(
    service: Running, front: Front, shift: int
) -> None:
    digest, data = push(front, seed=f"shift {shift}")
    front.on(BLOBS, Fault(cut=HALF), method="GET", times=1)
    front.on(BLOBS, Fault(shift=shift), method="GET")
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 3


async def test_wrong_bytes_of_the_right_length_break_the_connection_and_are_not_kept(
    service: Running, front: Front
) -> None:
    digest, data = push(front, seed="corrupt")
    wrong = front.on(BLOBS, Fault(corrupt=1000, stall=HALF, stall_for=0.5), method="GET")
    readings = [Reading(service, blob_path(digest)) for _ in range(2)]
    for reading in readings:
        await reading.ended()
        assert reading.status == 200
        assert not reading.whole
        assert 0 < len(reading.body) <= SIZE - HELD
    assert gets(front) == 1
    assert not await holds(service, digest, data)
    assert not [key for key in await service.store.keys() if key.startswith("data/")]
    front.off(wrong)
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 2


async def test_nothing_of_a_small_wrong_blob_is_given(service: Running, front: Front) -> None:
    digest, data = push(front, 5000, "small and wrong")
    front.on(BLOBS, Fault(corrupt=1), method="GET")
    with pytest.raises(CutOff) as cut:
        await service.client.get(blob_path(digest))
    assert not cut.value.answer.body
    assert not await holds(service, digest, data)


async def test_a_short_answer_that_ends_cleanly_is_no_blob(service: Running, front: Front) -> None:
    digest, data = push(front, seed="short")
    short = front.on(BLOBS, Fault(short=1_000_000), method="GET")
    answer = await service.client.get(blob_path(digest))
    assert answer.expect(503).header("retry-after")
    front.off(short)
    await Reading(service, blob_path(digest)).right(data)
    assert await holds(service, digest, data)


async def test_a_blob_without_a_content_length_is_transferred(service: Running, front: Front) -> None:
    digest, data = push(front, seed="chunked")
    front.on(BLOBS, Fault(chunked=True), method="GET")
    await Reading(service, blob_path(digest)).right(data)


async def test_a_blob_whose_size_nobody_tells_is_answered_once_it_is_here(service: Running, front: Front) -> None:
    digest, data = push(front, seed="untold")
    front.on(BLOBS, Fault(chunked=True, without=("content-length",)))
    assert (await service.client.head(blob_path(digest))).status == 503
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 1


@pytest.mark.parametrize("size", [0, 1, HELD, HELD + 1])
async def test_blobs_of_few_bytes_arrive(service: Running, front: Front, size: int) -> None:
    digest, data = push(front, size, "few")
    await Reading(service, blob_path(digest)).right(data)
    await settled(service)
    assert await holds(service, digest, data)
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 1


async def test_a_manifest_that_names_another_size_gives_no_blob(service: Running, front: Front) -> None:
    digest, _ = push(front, 50_000, "sized", "team/sized")
    config, _ = push(front, 10, "config", "team/sized")
    layer = {"mediaType": LAYER, "digest": digest, "size": 60_000}
    configured = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 10}
    document = encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": configured, "layers": [layer]})
    Pusher(front.target).manifest("team/sized", "1", document, MANIFEST)
    (await service.client.get(f"/v2/{UP}/team/sized/manifests/1")).expect(200)
    answer = await service.client.get(blob_path(digest, "team/sized"))
    assert "50000 bytes" in answer.expect(503).json()["errors"][0]["message"]


class Source:
    """A server of one blob that may send more than it says."""

    def __init__(self, data: bytes) -> None:
        self.data, self.more = data, b""
        self.first: int | None = None
        """Bytes after which the first answer ends, cleanly."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(self.data))})
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if start > len(self.data):
            return web.Response(status=416)
        headers = {"Content-Range": f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"} if start else {}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        first, self.first = self.first, None
        await response.write(self.data[start:first] + self.more)
        return response


async def test_more_bytes_than_announced_break_the_connection_and_spoil_nothing(
    tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    data = noise(SIZE, "more")
    source, path = Source(data), blob_path(digest_of(data))
    source.more = b"and more"
    async with serve(source.answer) as served, pulling(tmp_path, section(served.base)) as service:
        reading = await Reading(service, path).ended()
        assert not reading.whole
        await settled(service)
        assert "more bytes than it announced" in service.log.getvalue()
        source.more = b""
        await Reading(service, path).right(data)
        assert await holds(service, digest_of(data), data)


async def test_an_answer_without_a_length_that_ends_early_is_continued(
    tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    source = Source(noise(SIZE, "chunked and short"))
    source.first = HALF
    async with serve(source.answer) as served, pulling(tmp_path, section(served.base)) as service:
        await Reading(service, blob_path(digest_of(source.data))).right(source.data)
        assert [request.headers.get("Range") for request in served.requests[1:]] == [None, f"bytes={HALF}-"]


async def test_sha512_is_verified_as_such(tmp_path: Path, complaints: list[dict[str, Any]]) -> None:
    data = noise(200_000, "sha512")
    digest, source = digest_of(data, "sha512"), Source(data)
    async with serve(source.answer) as served, pulling(tmp_path, section(served.base)) as service:
        source.data = noise(200_000, "another")
        assert not (await Reading(service, blob_path(digest)).ended()).whole
        source.data = data
        await Reading(service, blob_path(digest)).right(data)
        assert await holds(service, digest, data)


async def test_a_fallback_that_lacks_a_blob_is_no_proof_that_there_is_none(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="fallback")

    async def empty(_: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": "BLOB_UNKNOWN", "message": "no"}]}, status=404)

    async with serve(empty) as other:
        first, second = section(front.url, fallbacks=["other.test"]), section(other.base, "other.test")
        async with pulling(tmp_path, first, second) as service:
            failing = front.on(BLOBS, Fault(status=500), method="GET")
            (await service.client.get(blob_path(digest))).expect(503)
            front.off(failing)
            upstream_of(service).breaker.succeeded()
            await Reading(service, blob_path(digest)).right(data)


async def test_a_break_is_continued_at_the_fallback(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="continued elsewhere")
    with Front(front.target) as spare:
        sections = section(front.url, fallbacks=["spare.test"]), section(spare.url, "spare.test")
        async with pulling(tmp_path, *sections) as service:
            reading = await begun(service, front, digest, data)
            front.down()
            await reading.right(data)
            assert [one.headers.get("range") for one in spare.records.find(BLOBS, "GET")] == [f"bytes={HALF}-"]


async def test_repositories_of_two_upstreams_share_one_transfer_and_its_bytes(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="shared")
    sections = section(front.url, "a.test", stall_timeout=60), section(front.url, "b.test", stall_timeout=60)
    async with pulling(tmp_path, *sections) as service:
        front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
        first = Reading(service, blob_path(digest, upstream="a.test"))
        await first.has(HALF)
        second = Reading(service, blob_path(digest, upstream="b.test"))
        await second.has(HALF)
        origin = Origin(Digest(digest), SIZE, "b.test", Name("b.test/team/app"))
        bringing = asyncio.ensure_future(transfers_of(service).bring(upstream_of(service, "b.test"), origin))
        front.cut_all()
        await first.right(data)
        await second.right(data)
        await bringing
        assert await holds(service, digest, data, upstream="a.test")
        assert await holds(service, digest, data, upstream="b.test")
        assert len([key for key in await service.store.keys() if key.startswith("data/")]) == 1
    assert front.sent(BLOBS) <= SIZE * 1.02


async def test_a_reader_that_comes_as_the_transfer_ends_reads_from_the_store(service: Running, front: Front) -> None:
    digest, data = push(front, seed="ending")
    origin = Origin(Digest(digest), SIZE, UP, Name(f"{UP}/team/app"))
    following = await transfers_of(service).follow(upstream_of(service), origin, 0, None)
    await settled(service)
    assert b"".join([chunk async for chunk in following]) == data
    assert gets(front) == 1


async def test_readers_get_a_verified_blob_though_the_store_fails_and_it_is_stored_later(
    service: Running, front: Front
) -> None:
    digest, data = push(front, seed="store fails")
    failed = asyncio.Event()

    def refuse(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("data/") and not failed.is_set():
            failed.set()
            raise Unavailable("the store is away")

    service.store.refuse = refuse
    await Reading(service, blob_path(digest)).right(data)
    assert failed.is_set()
    await settled(service)
    assert await holds(service, digest, data)
    assert gets(front) == 1


async def test_who_brings_a_blob_hears_that_the_store_fails_and_the_next_one_finds_it_in_the_spool(
    service: Running, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.proxy.fetch._KEEP_AGAIN", (0.01,))
    digest, data = push(front, seed="store stays away")

    def refuse(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("data/"):
            raise Unavailable("the store is away")

    service.store.refuse = refuse
    origin = Origin(Digest(digest), SIZE, UP, Name(f"{UP}/team/app"))
    with pytest.raises(Exception, match="does not answer"):
        await transfers_of(service).bring(upstream_of(service), origin)
    service.store.refuse = lambda _operation, _key: None
    await Reading(service, blob_path(digest)).right(data)
    assert gets(front) == 1


async def test_files_of_the_spool_are_closed_and_gone_after_all_kinds_of_ends(
    service: Running, front: Front, tmp_path: Path
) -> None:
    for number, fault in enumerate((Fault(), Fault(cut=HALF), Fault(corrupt=10), Fault(short=10))):
        digest, _ = push(front, seed=f"files {number}")
        front.on(BLOBS, fault, method="GET", times=1)
        readings = [Reading(service, blob_path(digest)) for _ in range(3)]
        readings[0].leave()
        for reading in readings:
            await reading.ended()
        await settled(service)
    await closed(tmp_path)
    assert not [path for path in (tmp_path / "spool").iterdir() if path.suffix != ".json" and path.stat().st_size > 10]


async def test_a_server_that_stops_keeps_what_came_and_the_next_goes_on_by_range(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="stopped")
    async with pulling(tmp_path, section(front.url, stall_timeout=30)) as service:
        reading = await begun(service, front, digest, data)
        assert not reading.whole
    await reading.ended()
    assert not reading.whole
    await closed(tmp_path)
    async with pulling(tmp_path, section(front.url)) as service:
        await Reading(service, blob_path(digest)).right(data)
        await settled(service)
        assert await holds(service, digest, data)
    assert front.sent(BLOBS) <= SIZE * 1.02
    assert not list((tmp_path / "spool").iterdir())


async def test_a_miss_is_refused_at_once_while_the_uplink_is_down_though_half_of_it_is_here(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="half")
    async with pulling(tmp_path, section(front.url, stall_timeout=30)) as service:
        await begun(service, front, digest, data)
    front.down()
    async with pulling(tmp_path, section(front.url)) as service:
        upstream_of(service).named.put((Name(f"{UP}/team/app"), Digest(digest)), SIZE)
        answer = await asyncio.wait_for(service.client.get(blob_path(digest)), 10)
        answer.expect(503)
        front.up()
