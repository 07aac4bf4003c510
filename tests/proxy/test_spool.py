"""The spool: bounded, shared by processes, and right in the end whatever is found on its disk."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.errors import StartError
from app.oci.digests import Digest
from app.oci.names import Name
from app.proxy.spool import Origin, Spool, SpoolError
from tests.proxy.pulling import UP, pulling, section, upstream_of
from tests.proxy.reading import BLOBS, HALF, SIZE, Reading, begun, blob_path, holds, push, settled
from tests.services.client import digest_of, noise
from tests.services.front import Fault, Front

MIB = 1 << 20
DATA = noise(300_000, "spool")

Open = Callable[..., Any]


def origin_of(data: bytes, size: int | None = -1, upstream: str = UP) -> Origin:
    return Origin(Digest(digest_of(data)), len(data) if size == -1 else size, upstream, Name(f"{UP}/team/app"))


@pytest.fixture
async def spool(tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[Open]:
    """Opens a spool of `max_bytes` in one folder, as often as there are processes."""
    async with AsyncExitStack() as stack:

        async def build(max_bytes: int = 64 * MIB) -> Spool:
            spool = Spool(tmp_path / "spool", max_bytes)
            stack.callback(spool.close)
            await spool.start({UP})
            return spool

        yield build


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "spool"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_part_goes_on_with_the_bytes_of_an_earlier_process(spool: Open) -> None:
    origin = origin_of(DATA)
    part = await (first := await spool()).open(origin)
    await part.append(DATA[:200_000])
    part.leave()
    first.close()
    again = await spool()
    part = await again.open(origin)
    assert part.written == 200_000
    await part.append(DATA[200_000:])
    assert part.digest() == origin.digest
    assert await part.read(0, 10) == DATA[:10]
    part.leave()


async def test_leftovers_are_named_at_the_start_and_rubbish_goes(spool: Open, tmp_path: Path) -> None:
    folder, kept = tmp_path / "spool", origin_of(DATA)
    first = await spool()
    for origin in (kept, origin_of(b"gone", upstream="removed.test"), origin_of(b"torn")):
        part = await first.open(origin)
        await part.append(b"some")
        part.leave()
    first.close()
    name = origin_of(b"torn").digest.replace(":", "-")
    (folder / f"{name}.json").write_text('{"digest": "sha')
    (folder / "sha256-without-a-journal").write_bytes(bytes(1000))
    (folder / "sha256-without-a-part.json").write_text("{}")
    (folder / f"{kept.digest.replace(':', '-')}.copy").write_bytes(b"what a killed process had beside another")
    (folder / ".old").write_bytes(b"a journal that was never finished")
    os.utime(folder / ".old", (1, 1))
    second = Spool(folder, 64 * MIB)
    try:
        assert await second.start({UP}) == [kept]
    finally:
        second.close()
    stem = kept.digest.replace(":", "-")
    assert sorted(path.name for path in folder.iterdir()) == [stem, f"{stem}.json"]


@pytest.mark.parametrize("size", [100_000, None])
async def test_bytes_that_cannot_be_right_are_not_taken_over(spool: Open, size: int | None) -> None:
    part = await (first := await spool()).open(origin_of(DATA))
    await part.append(DATA[:200_000])
    part.leave()
    first.close()
    part = await (await spool()).open(origin_of(DATA, size))
    assert part.written == 0
    part.leave()


async def test_two_processes_that_share_the_folder_do_not_write_into_one_file(spool: Open, tmp_path: Path) -> None:
    ours, theirs = await spool(), await spool()
    origin = origin_of(DATA)
    first, second = await ours.open(origin), await theirs.open(origin)
    await first.append(DATA[:1000])
    await second.append(DATA[:10])
    assert first.path != second.path
    assert (first.written, second.written) == (1000, 10)
    assert await first.read(0, 2000) == DATA[:1000]
    other = Spool(tmp_path / "spool", MIB)
    assert await other.start(set()) == []  # what is locked is nobody's leftover
    other.close()
    assert first.path.exists()
    assert second.path.exists()
    for part in (first, second):
        await part.drop()
        part.leave()
    assert not list((tmp_path / "spool").iterdir())


async def queued(spool: Spool, count: int) -> None:
    """Waits until so many wait for room."""
    async with asyncio.timeout(20):
        while len(spool._budget._waiting) < count:
            await asyncio.sleep(0.01)


async def test_parts_that_fill_the_spool_wait_for_each_other(spool: Open) -> None:
    full = await spool(MIB)
    first = await full.open(origin_of(noise(700_000, "1")))
    waiting = asyncio.ensure_future(full.open(origin_of(noise(700_000, "2"))))
    await queued(full, 1)
    small = asyncio.ensure_future(full.open(origin_of(noise(100, "3"))))
    await queued(full, 2)  # though it would fit: nobody is overtaken for ever
    assert full.used == 700_000
    await first.drop()
    first.leave()
    parts = await asyncio.wait_for(asyncio.gather(waiting, small), 10)
    assert full.used == 700_100
    for part in parts:
        part.leave()
    assert full.used == 0


async def test_who_gives_up_waiting_for_room_takes_none(spool: Open) -> None:
    full = await spool(MIB)
    first = await full.open(origin_of(noise(700_000, "1")))
    waiting = asyncio.ensure_future(full.open(origin_of(noise(700_000, "2"))))
    await queued(full, 1)
    waiting.cancel()
    await asyncio.wait({waiting})
    first.leave()
    part = await asyncio.wait_for(full.open(origin_of(noise(MIB, "3"))), 10)
    part.leave()
    assert full.used == 0


async def test_a_blob_of_unknown_size_takes_room_as_it_grows(spool: Open) -> None:
    full = await spool(MIB)
    part = await full.open(origin_of(DATA, None))
    for _ in range(3):
        await part.append(DATA)
    with pytest.raises(SpoolError, match="the spool is full"):
        await part.append(DATA)
    part.leave()
    assert full.used == 0


async def test_the_oldest_leftovers_go_when_room_is_needed(spool: Open, tmp_path: Path) -> None:
    first = await spool(MIB)
    for number in range(3):
        part = await first.open(origin_of(str(number).encode(), 400_000))
        await part.append(bytes(300_000))
        part.leave()
        os.utime(part.path, (number + 1, number + 1))
    part = await first.open(origin_of(b"new", 400_000))
    names = {path.name for path in (tmp_path / "spool").iterdir() if path.suffix != ".json"}
    gone = origin_of(b"0").digest.replace(":", "-")
    assert len(names) == 3
    assert gone not in names
    assert not (tmp_path / "spool" / f"{gone}.json").exists()
    part.leave()


async def test_a_reader_keeps_the_file_open_until_it_is_done(spool: Open) -> None:
    shared = await spool()
    part = await shared.open(origin_of(DATA))
    await part.append(DATA)
    assert part.use()
    part.leave()
    await part.drop()
    assert await part.read(0, len(DATA)) == DATA
    part.leave()
    assert not part.use()


async def test_a_folder_that_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file", MIB)
    with pytest.raises(StartError, match=r"proxy\.spool\.folder"):
        await spool.start({UP})
    spool.close()


async def test_blobs_that_together_exceed_the_spool_are_pulled_one_after_the_other(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    chosen = {"spool": {"folder": tmp_path / "spool", "max_bytes": 4_000_000}}
    blobs = [push(front, seed=f"bound {number}") for number in range(3)]
    async with pulling(tmp_path, section(front.url), proxy=chosen) as service:
        readings = [Reading(service, blob_path(digest)) for digest, _ in blobs]
        for reading, (_, data) in zip(readings, blobs, strict=True):
            await reading.right(data)
        await settled(service)
    assert front.count(BLOBS, "GET") == 3


async def test_a_blob_larger_than_the_spool_is_refused_with_the_reason(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    chosen = {"spool": {"folder": tmp_path / "spool", "max_bytes": 2_000_000}}
    digest, _ = push(front, seed="too large")
    async with pulling(tmp_path, section(front.url), proxy=chosen) as service:
        answer = await service.client.get(blob_path(digest))
        assert "larger than proxy.spool.max_bytes" in answer.expect(503).json()["errors"][0]["message"]
        await settled(service)
        assert upstream_of(service).breaker.state == "closed"
    assert front.count(BLOBS, "GET") == 0
    assert not list((tmp_path / "spool").iterdir())


async def test_a_full_disk_ends_the_transfer_and_is_said(
    front: Front, tmp_path: Path, small_disk: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="full disk")
    small, few = push(front, 1_000_000, "fits")
    async with pulling(tmp_path, section(front.url)) as service:
        reading = await Reading(service, blob_path(digest)).ended()
        assert reading.status == 200
        assert not reading.whole
        assert reading.body == data[: len(reading.body)]
        assert not await holds(service, digest, data)
        said = [event for event in service.events() if event["event"] == "transfer"]
        assert "No space left on device" in said[0]["error"]
        refused = await service.client.get(blob_path(small))
        refused.expect(503)
        for path in small_disk.iterdir():
            path.unlink()
        await Reading(service, blob_path(small)).right(few)
        await settled(service)


@pytest.mark.parametrize("place", [10, HALF - 10])
async def test_a_spool_that_was_garbled_gives_no_wrong_blob_and_is_fetched_again(
    front: Front, tmp_path: Path, place: int, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed=f"garbled {place}")
    async with pulling(tmp_path, section(front.url)) as service:
        await begun(service, front, digest, data)
    path = tmp_path / "spool" / digest.replace(":", "-")
    wrong = bytearray(path.read_bytes())
    wrong[place] ^= 1
    path.write_bytes(bytes(wrong))
    async with pulling(tmp_path, section(front.url)) as service:
        reading = await Reading(service, blob_path(digest)).ended()
        assert not reading.whole
        assert len(reading.body) <= SIZE - (64 << 10)
        await settled(service)
        assert upstream_of(service).breaker._failures == 0  # it was not the upstream's fault
        await Reading(service, blob_path(digest)).right(data)
        assert await holds(service, digest, data)


async def test_a_spool_that_is_emptied_under_a_transfer_does_not_disturb_it(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="emptied")
    async with pulling(tmp_path, section(front.url)) as service:
        reading = await begun(service, front, digest, data)
        shutil.rmtree(tmp_path / "spool")
        front.cut_all()
        await reading.right(data)
        assert await holds(service, digest, data)
        digest, data = push(front, seed="after it was emptied")
        await Reading(service, blob_path(digest)).right(data)
    assert front.sent(BLOBS) <= 2 * SIZE * 1.02


async def test_leftovers_of_an_upstream_are_finished_without_a_client(
    front: Front, tmp_path: Path, complaints: list[dict[str, Any]]
) -> None:
    digest, data = push(front, seed="finished alone")
    async with pulling(tmp_path, section(front.url)) as service:
        await begun(service, front, digest, data)
    journal = json.loads((tmp_path / "spool" / f"{digest.replace(':', '-')}.json").read_text())
    assert journal["size"] == SIZE
    rule = front.on(BLOBS, Fault(rate=20_000_000), method="GET")
    async with pulling(tmp_path, section(front.url)) as service:
        await asyncio.to_thread(front.wait_until, lambda: rule.taken == 1)
        assert await holds(service, digest, data)
    assert front.sent(BLOBS) <= SIZE * 1.02
