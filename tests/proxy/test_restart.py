"""A server that is killed, stopped or doubled while it fetches, and what the upstream is asked for afterwards."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.conftest import fresh
from tests.proxy.processes import Pull, revived, server
from tests.proxy.reading import BLOBS, HALF, SIZE, blob_path, push
from tests.services.front import Fault, Front
from tests.services.registry import RegistryServer, filesystem_store


@pytest.fixture(scope="module")
def _registry(shared_front: Front, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("restart")
    registry = server(folder, filesystem_store(folder / "store"), shared_front)
    yield registry
    registry.kill()


@pytest.fixture
def front(shared_front: Front) -> Front:
    return fresh(shared_front)


@pytest.fixture
def registry(_registry: RegistryServer, front: Front) -> RegistryServer:
    return revived(_registry)


LEASE = 9.5
"""Seconds that somebody who waits for a lease to die needs at least."""


def pull_half(registry: RegistryServer, front: Front, digest: str) -> Pull:
    """A client that has half of a blob, whose transfer stands still there."""
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    return Pull(registry, blob_path(digest)).has(HALF)


def pull(registry: RegistryServer, digest: str, start: int = 0) -> bytes:
    """The blob from `start` on, asked for again as clients do while the server says later."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        done = Pull(registry, blob_path(digest), start).rest()
        if done.whole and done.status in (200, 206):
            return bytes(done.body)
        time.sleep(0.2)
    raise AssertionError(f"no blob in time: {registry.read_log()[-3000:]}")


def test_a_server_that_is_killed_half_way_goes_on_by_range_and_its_client_ends_right(
    registry: RegistryServer, front: Front
) -> None:
    digest, data = push(front, seed="killed")
    client = pull_half(registry, front, digest)
    registry.kill()
    assert not client.rest().whole
    registry.start()
    began = time.monotonic()
    rest = pull(registry, digest, start=len(client.body))
    assert time.monotonic() - began < LEASE, "it waited for the lease of the one that was killed"
    assert client.body + rest == data
    assert front.sent(BLOBS) <= SIZE * 1.15
    assert pull(registry, digest) == data
    deadline = time.monotonic() + 20
    while list((registry.folder / "spool").iterdir()):  # readers have the blob before the store does
        assert time.monotonic() < deadline, "the spool keeps what is stored"
        time.sleep(0.05)


def test_a_server_that_is_killed_and_whose_spool_is_garbled_fetches_again(
    registry: RegistryServer, front: Front
) -> None:
    digest, data = push(front, seed="killed and garbled")
    pull_half(registry, front, digest).close()
    registry.kill()
    path = registry.folder / "spool" / digest.replace(":", "-")
    path.write_bytes(bytes(1000) + path.read_bytes()[1000:])
    registry.start()
    assert pull(registry, digest) == data


def test_a_server_that_is_stopped_leaves_in_time_and_keeps_what_came(registry: RegistryServer, front: Front) -> None:
    digest, data = push(front, seed="stopped server")
    client = pull_half(registry, front, digest)
    began = time.monotonic()
    assert registry.stop() == 0
    assert time.monotonic() - began < 30
    assert not client.rest().whole
    assert "Traceback" not in registry.read_log()
    assert "never retrieved" not in registry.read_log()
    registry.start()
    began = time.monotonic()
    assert pull(registry, digest, start=HALF) == data[HALF:]
    assert time.monotonic() - began < LEASE, "it waited for its own lease"
    assert front.sent(BLOBS) <= SIZE * 1.15


def test_two_servers_with_buckets_of_their_own_share_a_spool_folder(front: Front, tmp_path: Path) -> None:
    digest, data = push(front, seed="one folder")
    spool = tmp_path / "spool"
    first, second = (
        server(tmp_path / name, filesystem_store(tmp_path / f"store-{name}"), front, spool=spool) for name in "ab"
    )
    with first, second:
        client = pull_half(first, front, digest)
        assert pull(second, digest) == data
        first.kill()
        second.stop()
        second.start()  # finds what the killed one left, and finishes it or lets it be
        first.start()
        assert client.rest().body + pull(first, digest, start=HALF) == data
        assert pull(second, digest) == data
    assert front.sent(BLOBS) <= 2 * SIZE * 1.15
