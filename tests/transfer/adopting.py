"""Taking over in tests: a run on a driver, and a layout of Distribution's written file by file."""

import json
from collections.abc import Mapping
from typing import Any

from app.registry.bucket import Bucket
from app.registry.settings import RegistrySettings
from app.transfer.adoption.adoption import Adoption
from app.transfer.adoption.layout import Layout
from app.transfer.adoption.report import Report
from storage import Capabilities, Driver
from storage.memory import MemoryDriver
from tests.services.client import Image, digest_of, make_image

V2 = "docker/registry/v2"


def open_bucket(driver: Driver, *, conditions: bool = True, **settings: Any) -> Bucket:
    """What one process has of the registry."""
    capabilities = Capabilities(conditional_put=conditions)
    return Bucket(driver, RegistrySettings(**settings), capabilities, lambda _event, _fields: None)


async def adopt(
    driver: Driver, root: str = "", names: str = "*", *, bucket: Bucket | None = None, **options: Any
) -> Report:
    """One run in a process of its own. Options: prune, dry."""
    bucket = bucket or open_bucket(driver)
    try:
        return await Adoption(bucket, Layout(driver, root, names), **options).run()
    finally:
        await bucket.close()


async def fingerprints(driver: Driver, prefix: str) -> Mapping[str, tuple[float, str]]:
    """When each file below a prefix was written, and which version it is."""
    found: dict[str, tuple[float, str]] = {}
    after, more = "", True
    while more:
        page = await driver.list(prefix, after=after)
        found |= {entry.key: (entry.modified, entry.version) for entry in page.entries}
        more, after = page.more, page.entries[-1].key if page.entries else ""
    return found


class Old:
    """Distribution's layout in a memory driver, written as Distribution writes it, or wrongly."""

    def __init__(self, driver: MemoryDriver, root: str = "") -> None:
        self.driver = driver
        self._base = f"{root}/{V2}" if root else V2

    async def put(self, path: str, data: bytes) -> None:
        """Any file."""
        await self.driver.put(f"{self._base}/{path}", data)

    async def delete(self, path: str) -> None:
        await self.driver.delete(f"{self._base}/{path}")

    async def data(self, digest: str, data: bytes) -> None:
        """The bytes of a blob, which need not hash to the digest."""
        algorithm, _, hexadecimal = digest.partition(":")
        await self.put(f"blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}/data", data)

    async def blob(self, name: str, data: bytes) -> str:
        """A blob of a repository."""
        digest = digest_of(data)
        await self.data(digest, data)
        await self.put(f"repositories/{name}/_layers/{digest.replace(':', '/')}/link", digest.encode())
        return digest

    async def manifest(self, name: str, data: bytes, *tags: str) -> str:
        """A manifest of a repository, with tags."""
        digest = digest_of(data)
        await self.data(digest, data)
        await self.put(f"{self.revision(name, digest)}/link", digest.encode())
        for tag in tags:
            await self.tag(name, tag, digest)
        return digest

    async def tag(self, name: str, tag: str, digest: str) -> None:
        folder = f"repositories/{name}/_manifests/tags/{tag}"
        await self.put(f"{folder}/current/link", digest.encode())
        await self.put(f"{folder}/index/{digest.replace(':', '/')}/link", digest.encode())

    async def untag(self, name: str, tag: str) -> None:
        folder = f"{self._base}/repositories/{name}/_manifests/tags/{tag}/"
        await self.driver.delete_many([entry.key for entry in (await self.driver.list(folder)).entries])

    async def image(self, name: str, *tags: str, seed: str = "", **fields: Any) -> Image:
        """A small image of a repository."""
        config = json.dumps({"os": "linux", "seed": f"{name} {seed}"}).encode()
        image = make_image(f"layer of {seed}".encode(), config=config, **fields)
        for blob in image.blobs:
            await self.blob(name, blob)
        await self.manifest(name, image.data, *tags)
        return image

    @staticmethod
    def revision(name: str, digest: str) -> str:
        """The folder of a manifest's link."""
        return f"repositories/{name}/_manifests/revisions/{digest.replace(':', '/')}"
