"""Manifests of megabytes: others are served while one is looked at."""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from typing import TypeVar

import pytest

from app.oci.manifests import MAX_BYTES, parse_manifest
from tests.api.conftest import Create
from tests.services.client import INDEX, MANIFEST, digest_of

T = TypeVar("T")

MANY = 20_000
TIMES = 3


def index(seed: int) -> bytes:
    """An index of almost 4 MiB, another one for each seed."""
    children = [
        {"mediaType": MANIFEST, "digest": f"sha256:{seed * MANY + number:064x}", "size": 500} for number in range(MANY)
    ]
    rest = {"schemaVersion": 2, "mediaType": INDEX, "annotations": {"rest": ""}}
    size = len(json.dumps({**rest, "manifests": children}).encode())
    return json.dumps({**rest, "annotations": {"rest": "x" * (MAX_BYTES - size)}, "manifests": children}).encode()


@pytest.fixture(scope="module")
def indexes() -> list[bytes]:
    return [index(seed) for seed in range(TIMES)]


@pytest.fixture
def parsing(indexes: list[bytes]) -> float:
    """Seconds of the processor that parsing such an index takes."""

    def once(data: bytes) -> float:
        before = time.thread_time()
        parse_manifest(data, INDEX)
        return time.thread_time() - before

    return min(once(data) for data in indexes)


@pytest.fixture(autouse=True)
def _no_rubbish_of_others() -> Iterator[None]:
    """What other tests left in memory is not looked through meanwhile, which takes as long as all that is measured here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def longest_hold(work: Awaitable[T]) -> tuple[float, T]:
    """The longest time for which `work` kept the event loop from everybody else, and what came of it.

    In seconds of the processor, of the loop's thread alone: other programs of this machine may stop us for longer.
    """
    holds = []

    async def tick() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            holds.append(now - before)
            before = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    result = await work
    await asyncio.sleep(0)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return max(holds), result


async def test_others_are_served_while_an_index_of_4_mib_is_pushed_and_deleted(
    create_light: Create, indexes: list[bytes], parsing: float
) -> None:
    api = (await create_light(registry={"allow_sparse": True})).client
    pushing, deleting = [], []
    for data in indexes:
        held, answer = await longest_hold(api.put_manifest("a", "v1", data, INDEX))
        answer.expect(201)
        pushing.append(held)
        assert (await api.get("/v2/a/manifests/v1")).expect(200).body == data
        held, answer = await longest_hold(api.delete(f"/v2/a/manifests/{digest_of(data)}"))
        answer.expect(202)
        deleting.append(held)
    assert min(pushing) < parsing / 2
    assert min(deleting) < parsing / 2


async def test_others_are_served_while_20000_children_are_looked_for(
    create_light: Create, indexes: list[bytes], parsing: float
) -> None:
    api = (await create_light()).client
    waits = []
    for data in indexes:
        held, answer = await longest_hold(api.put_manifest("a", "v1", data, INDEX))
        assert set(answer.expect(404).codes) == {"MANIFEST_BLOB_UNKNOWN"}
        assert 0 < len(answer.codes) <= 1000
        waits.append(held)
    assert min(waits) < 0.8 * parsing


async def test_a_large_manifest_that_is_wrong_is_refused_as_a_small_one_is(
    create_light: Create, indexes: list[bytes]
) -> None:
    api = (await create_light(registry={"allow_sparse": True})).client
    data = indexes[0]
    refused = await api.put_manifest("a", "v1", data[:-1], INDEX)
    assert refused.expect(400).codes == ["MANIFEST_INVALID"]
    other = await api.put_manifest("a", digest_of(b"other"), data, INDEX)
    assert other.expect(400).codes == ["DIGEST_INVALID"]
    digest = digest_of(data, "sha512")
    stored = (await api.put_manifest("a", digest, data, INDEX)).expect(201)
    assert stored.header("docker-content-digest") == digest
