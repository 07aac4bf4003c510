"""Three replicas on one MinIO bucket: one transfer for the clients of all, whoever dies."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.conftest import fresh
from tests.proxy.processes import Pull, revived, server
from tests.proxy.reading import BLOBS, HALF, SIZE, blob_path, push
from tests.services.front import Fault, Front
from tests.services.minio import MinioServer
from tests.services.registry import RegistryServer, s3_store

pytestmark = pytest.mark.minio


@pytest.fixture(scope="module")
def _replicas(
    minio: MinioServer, shared_front: Front, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RegistryServer]]:
    folder = tmp_path_factory.mktemp("replicas")
    store = s3_store(minio.endpoint, f"replicas-{secrets.token_hex(4)}", minio.access_key, minio.secret_key)
    found = [server(folder / name, store, shared_front) for name in ("one", "two", "three")]
    yield found
    for replica in found:
        replica.kill()


@pytest.fixture
def front(shared_front: Front) -> Front:
    return fresh(shared_front)


@pytest.fixture
def replicas(_replicas: list[RegistryServer], front: Front) -> list[RegistryServer]:
    """Three servers with spools of their own, all running."""
    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(revived, _replicas))


def together(*works: Callable[[], Pull]) -> list[Pull]:
    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result() for future in [threads.submit(work) for work in works]]


def test_clients_of_three_replicas_share_one_upstream_get(replicas: list[RegistryServer], front: Front) -> None:
    digest, data = push(front, seed="replicas")
    front.rate = 3_000_000
    begun = threading.Barrier(9)

    def pull(replica: RegistryServer) -> Pull:
        client = Pull(replica, blob_path(digest))
        begun.wait(30)
        return client.rest()

    clients = together(*[lambda replica=replica: pull(replica) for replica in replicas for _ in range(3)])
    for client in clients:
        assert client.whole
        assert client.body == data
    assert front.count(BLOBS, "GET") == 1
    assert front.sent(BLOBS) == SIZE


def test_a_follower_gets_bytes_while_the_owner_gets_them(replicas: list[RegistryServer], front: Front) -> None:
    digest, data = push(front, seed="follower")
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    owner = Pull(replicas[0], blob_path(digest)).has(HALF)
    follower = Pull(replicas[1], blob_path(digest)).has(HALF)
    middle = Pull(replicas[2], blob_path(digest), start=HALF - 1000).has(1000)
    front.cut_all()
    for client, start in ((owner, 0), (follower, 0), (middle, HALF - 1000)):
        assert client.rest().whole
        assert client.body == data[start:]
    assert front.sent(BLOBS) <= SIZE * 1.02


def test_a_follower_takes_over_when_the_owner_is_killed_half_way(replicas: list[RegistryServer], front: Front) -> None:
    digest, data = push(front, seed="taken over")
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    owner = Pull(replicas[0], blob_path(digest)).has(HALF)
    followers = [Pull(replica, blob_path(digest)).has(HALF) for replica in replicas[1:]]
    replicas[0].kill()
    assert not owner.rest().whole
    began = time.monotonic()
    for client in together(*[client.rest for client in followers]):
        assert client.whole
        assert client.body == data
    assert time.monotonic() - began < 60
    assert front.count(BLOBS, "GET") == 2
    assert front.sent(BLOBS) <= SIZE + HALF + (64 << 10)


def test_a_replica_that_stops_hands_its_transfer_over_at_once(replicas: list[RegistryServer], front: Front) -> None:
    digest, data = push(front, seed="handed over")
    front.on(BLOBS, Fault(stall=HALF), method="GET", times=1)
    Pull(replicas[0], blob_path(digest)).has(HALF).close()
    follower = Pull(replicas[1], blob_path(digest)).has(HALF)
    began = time.monotonic()
    assert replicas[0].stop() == 0
    assert follower.rest().whole
    assert follower.body == data
    assert time.monotonic() - began < 9.5, "it waited for the lease of one that had ended"
    assert "Traceback" not in replicas[0].read_log()


def test_wrong_bytes_reach_no_client_of_any_replica_whole(replicas: list[RegistryServer], front: Front) -> None:
    digest, data = push(front, seed="wrong everywhere")
    rule = front.on(BLOBS, Fault(corrupt=1000, stall=HALF, stall_for=6), method="GET", times=1)
    clients = [Pull(replica, blob_path(digest)).has(HALF) for replica in replicas]
    for client in together(*[client.rest for client in clients]):
        assert not client.whole
        assert len(client.body) <= SIZE - (64 << 10)
    assert rule.taken == 1
    again = Pull(replicas[2], blob_path(digest)).rest()
    assert again.whole
    assert again.body == data
