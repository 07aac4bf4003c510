"""A store that decays: filled as clients fill it, then broken by hand, on each driver in turn."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.proxy import Proxy
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.registry.publishing import linked
from app.registry.registry import Registry, Repository
from app.registry.settings import RegistrySettings
from app.upkeep.decay.findings import Account, Finding
from app.upkeep.decay.sample import Sample
from app.upkeep.decay.stocktaking import Scope
from app.upkeep.decay.verify import Plan, verify
from storage import Capabilities, Driver
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.services.app import Watched

HERE, THERE = Name("team/app"), Name("other")
WRITES: Final = {"put", "delete", "delete_many", "copy", "create", "discard"}


async def body(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Decaying:
    """A registry on a store, and hands that break it. `proxy` fills some of its repositories."""

    bucket: Bucket
    store: Watched
    proxy: Proxy | None = None
    told: list[Finding] = field(default_factory=list)

    def repository(self, name: Name = HERE) -> Repository:
        return Registry(self.bucket).repository(name)

    async def push(self, data: bytes, name: Name = HERE) -> Digest:
        digest = digest_of(data)
        await self.repository(name).uploads.put(digest, body(data))
        return digest

    async def publish(self, document: dict[str, Any], name: Name = HERE, *tagged: str) -> Digest:
        data = json.dumps(document).encode()
        put = self.repository(name).manifests.put
        tags = [Tag(tag) for tag in tagged]
        return (await put(data, document["mediaType"], digest=None, tagged=tags, by="somebody")).digest

    async def image(self, *layers: bytes, name: Name = HERE, tag: str = "v1", **more: Any) -> Digest:
        return await self.publish(image_of(*[await self.push(layer, name) for layer in layers], **more), name, tag)

    async def index(self, *children: Digest, name: Name = HERE, tag: str = "all") -> Digest:
        listed = [{"mediaType": OCI_MANIFEST, "digest": child, "size": 1} for child in children]
        return await self.publish({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}, name, tag)

    async def read(self, digest: Digest, name: Name = HERE) -> bytes:
        blobs = self.repository(name).blobs
        async with blobs.open(await blobs.stat(digest)) as reader:
            return b"".join([chunk async for chunk in reader])

    async def copy(self, digest: Digest, name: Name = HERE) -> Copy:
        (found,) = await linked(self.bucket, name, digest)
        return found

    async def entry(self, digest: Digest, name: Name = HERE) -> Entry:
        return await self.repository(name).manifests.stat(digest)

    async def flip(self, key: str) -> None:
        """Turns one bit around."""
        data = bytearray((await self.store.driver.get(key)).data)
        data[len(data) // 2] ^= 1
        await self.store.driver.put(key, bytes(data))

    async def verify(self, **fields: Any) -> Account:
        """A run over everything, every byte hashed, unless `fields` of a plan say otherwise."""
        self.told.clear()
        scope = Scope(fields.pop("repository", None))
        plan = Plan(scope, fields.pop("sample", Sample(1.0)), **fields)
        account = await verify(self.bucket, self.proxy, plan, self.told.append, lambda *_: None)
        await self.bucket.close()
        return account

    async def repair(self, **fields: Any) -> Account:
        return await self.verify(repair=True, **fields)

    def kinds(self) -> list[str]:
        """What the last run told, in order of its kinds."""
        return sorted(finding.kind for finding in self.told)

    async def contents(self, prefix: str = "") -> dict[str, bytes]:
        """Everything below a prefix."""
        found = {}
        for entry in [entry async for entry in every(self.store.driver, prefix)]:
            if not entry.key.startswith((keys.SIGNING_KEYS, "upkeep/probe/")):
                found[entry.key] = (await self.store.driver.get(entry.key)).data
        return found

    def writes(self) -> list[tuple[str, str]]:
        """What was written since `store.asked` was cleared."""
        return [asked for asked in self.store.asked if asked[0] in WRITES]


def image_of(*layers: Digest, **more: Any) -> dict[str, Any]:
    listed = [{"mediaType": "application/x", "digest": digest, "size": 1} for digest in layers]
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": listed, **more}


def bucket_on(driver: Driver, **rules: Any) -> Bucket:
    return Bucket(driver, RegistrySettings(**rules), Capabilities(), lambda *_: None)


@asynccontextmanager
async def decaying(driver: Driver, **rules: Any) -> AsyncIterator[Decaying]:
    """A registry on this store."""
    store = Watched(driver)
    await driver.start()
    found = Decaying(bucket_on(store, **rules), store)
    await found.bucket.signing.start()
    yield found
    await found.bucket.close()
    await driver.close()


def driver_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    """An empty store."""
    if kind == "memory":
        return MemoryDriver()
    if kind == "folder":
        return FilesystemDriver(tmp_path / "store")
    minio, bucket = request.getfixturevalue("minio"), request.getfixturevalue("bucket")
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    return S3Driver(S3Settings(endpoint=minio.endpoint, bucket=bucket, **keys))


DRIVERS: Final = ["memory", "folder", pytest.param("minio", marks=pytest.mark.minio)]
