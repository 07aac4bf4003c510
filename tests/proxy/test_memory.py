"""Blobs go through the server without staying in its memory."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.proxy.processes import Pull, server
from tests.proxy.reading import BLOBS, blob_path, push
from tests.services.front import Front
from tests.services.registry import RegistryServer, filesystem_store

LARGE = 80 << 20
GROWTH = 40 << 20


def most_resident(registry: RegistryServer) -> int:
    """Bytes that the process had in memory at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{registry.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_large_blob_for_two_clients_does_not_grow_the_server(front: Front, tmp_path: Path) -> None:
    digest, data = push(front, LARGE, "large")
    with server(tmp_path, filesystem_store(tmp_path / "store"), front) as registry, ThreadPoolExecutor(2) as threads:
        before = most_resident(registry)
        clients = list(threads.map(lambda _: Pull(registry, blob_path(digest)).rest(), range(2)))
        assert all(client.body == data for client in clients)
        assert most_resident(registry) - before < GROWTH
    assert front.sent(BLOBS) == LARGE
