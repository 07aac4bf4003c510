"""Ranges of a blob that is still on its way are those of a blob that is here."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.pulling import pulling, section
from tests.proxy.reading import BLOBS, HALF, SIZE, Reading, begun, blob_path, push, settled
from tests.services.app import Running
from tests.services.front import Front

RANGES = {
    "the first byte": (0, 0),
    "what is here": (1000, HALF - 1),
    "across what is here": (HALF - 10, HALF + 10),
    "what is not here": (HALF + 100_000, HALF + 200_000),
    "the last byte, which is held back": (SIZE - 1, SIZE - 1),
    "the last 100 bytes": (SIZE - 100, SIZE - 1),
    "everything": (0, SIZE - 1),
}


@pytest.fixture
async def service(front: Front, tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[Running]:
    async with pulling(tmp_path, section(front.url)) as service:
        yield service


async def test_every_range_of_a_blob_on_its_way_is_right_and_costs_no_request(service: Running, front: Front) -> None:
    digest, data = push(front, seed="ranges")
    first = await begun(service, front, digest, data)
    readings = {
        name: Reading(service, blob_path(digest), range=f"bytes={start}-{end}") for name, (start, end) in RANGES.items()
    }
    suffix = Reading(service, blob_path(digest), range="bytes=-7")
    beyond = await Reading(service, blob_path(digest), range=f"bytes={SIZE}-").ended()
    assert beyond.status == 416
    assert beyond.headers["content-range"] == f"bytes */{SIZE}"
    await readings["what is here"].right(data[1000:HALF])
    assert front.count(BLOBS, "GET") == 1
    front.cut_all()
    for name, (start, end) in RANGES.items():
        await readings[name].right(data[start : end + 1])
        assert readings[name].headers["content-range"] == f"bytes {start}-{end}/{SIZE}", name
    await suffix.right(data[-7:])
    await first.right(data)
    await settled(service)
    assert [one.headers.get("range") for one in front.records.find(BLOBS, "GET")] == [None, f"bytes={HALF}-"]


async def test_a_range_of_a_cold_blob_brings_all_of_it_once(service: Running, front: Front) -> None:
    digest, data = push(front, seed="cold range")
    await Reading(service, blob_path(digest), range="bytes=2000000-2000009").right(data[2_000_000:2_000_010])
    await settled(service)
    await Reading(service, blob_path(digest), range="bytes=5-").right(data[5:])
    assert front.count(BLOBS, "GET") == 1
    assert front.sent(BLOBS) == SIZE


async def test_a_client_that_continues_with_if_range_gets_the_rest(service: Running, front: Front) -> None:
    digest, data = push(front, seed="if-range")
    first = await begun(service, front, digest, data)
    await first.cancel()
    rest = Reading(service, blob_path(digest), **{"range": f"bytes={HALF}-", "if-range": f'"{digest}"'})
    other = Reading(service, blob_path(digest), **{"range": f"bytes={HALF}-", "if-range": '"another"'})
    front.cut_all()
    await rest.right(data[HALF:])
    assert rest.status == 206
    await other.right(data)
    assert other.status == 200
