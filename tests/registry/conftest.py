"""A registry over the memory driver: its requests are recorded, its clock moved by the test."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.registry.bucket import Bucket
from app.registry.registry import Registry, Repository
from app.registry.settings import RegistrySettings
from storage import Capabilities
from storage.memory import MemoryDriver
from tests.registry.recorded import Clock, Recorded

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

HERE, THERE = Name("here/app"), Name("there")


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    """A request's body."""
    for chunk in chunks:
        yield chunk


def manifest_of(*digests: Digest, **more: Any) -> bytes:
    """An image manifest whose layers are these blobs."""
    layers = [{"mediaType": "application/x", "digest": digest, "size": 1} for digest in digests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers, **more}).encode()


class Replica:
    """One process of the registry: shares nothing with others but the store."""

    def __init__(self, driver: Recorded, rules: RegistrySettings, alarms: list[str]) -> None:
        self.driver = driver
        self.bucket = Bucket(
            driver,
            rules,
            Capabilities(),
            lambda event, _fields: alarms.append(event),
        )
        self.registry = Registry(self.bucket)

    def repository(self, name: Name = HERE) -> Repository:
        return self.registry.repository(name)

    async def push(self, data: bytes, name: Name = HERE) -> Digest:
        """Pushes a blob in one request."""
        digest = digest_of(data)
        await self.repository(name).uploads.put(digest, stream(data))
        return digest

    async def publish(self, *digests: Digest, name: Name = HERE, **more: Any) -> Digest:
        """Pushes a manifest of these blobs."""
        data = manifest_of(*digests, **more)
        put = self.repository(name).manifests.put
        return (await put(data, OCI_MANIFEST, digest=None, tagged=(), by=None)).digest

    async def read(self, digest: Digest, name: Name = HERE) -> bytes:
        """Pulls a blob."""
        blobs = self.repository(name).blobs
        async with blobs.open(await blobs.stat(digest)) as reader:
            return b"".join([chunk async for chunk in reader])

    async def keys(self, prefix: str) -> list[str]:
        """What the store holds below a prefix; not recorded."""
        driver = self.driver._driver
        return [entry.key for entry in (await driver.list(prefix)).entries]

    async def settle(self) -> None:
        """Waits for what runs in the background."""
        await self.bucket.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alarms() -> list[str]:
    return []


@pytest.fixture
def shelf(clock: Clock) -> MemoryDriver:
    return MemoryDriver(clock)


@pytest.fixture
async def start(shelf: MemoryDriver, alarms: list[str]) -> AsyncIterator[Callable[..., Replica]]:
    """Starts a replica; settings as keywords."""
    started: list[Replica] = []

    def start(**settings: Any) -> Replica:
        replica = Replica(Recorded(shelf.replica()), RegistrySettings(**settings), alarms)
        started.append(replica)
        return replica

    yield start
    for replica in started:
        await replica.settle()


@pytest.fixture
async def replica(start: Callable[..., Replica]) -> Replica:
    replica = start()
    await replica.bucket.signing.start()
    return replica


@pytest.fixture
async def other(start: Callable[..., Replica], replica: Replica) -> Replica:
    """A second replica on the same store."""
    other = start()
    await other.bucket.signing.start()
    return other
