"""What tests of backups share: whether a store is whole, and stores in which something happens between two requests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from app.oci.digests import algorithm_of, digest_of
from app.oci.manifests import parse_manifest
from app.registry import keys, tags
from app.registry.listing import every
from storage import Driver

_ASKED = ("get", "stat", "list", "put")


async def broken(driver: Driver) -> list[str]:
    """Everything that something in the store needs and that is not there, or is not what its key says."""
    known = {entry.key: entry.size async for entry in every(driver, "")}
    found: list[str] = []
    for key in known:
        kind = keys.placed(key)[1] if key.startswith(keys.REPOSITORIES) else ""
        if kind == "blobs":
            found += [f"{key}: {what}" async for what in _missing_of_link(driver, key, known)]
        elif kind == "manifests":
            found += [f"{key}: {what}" async for what in _missing_of_manifest(driver, key, known)]
        elif kind == "tags":
            written = tags.parsed((await driver.get(key)).data)
            if written and keys.manifest(keys.placed(key)[0], written[0]) not in known:
                found.append(f"{key}: its manifest")
    return found


async def _missing_of_link(driver: Driver, key: str, known: Mapping[str, int]) -> AsyncIterator[str]:
    copy, digest = keys.copy_of(key), keys.digest_below(key)
    data = b""
    if keys.data(copy.uuid) in known:
        async with driver.open(keys.data(copy.uuid)) as reader:
            data = b"".join([chunk async for chunk in reader])
    if digest_of(data, algorithm_of(digest)) != digest or len(data) != copy.size:
        yield "its bytes"
    if keys.holder(digest, copy, keys.placed(key)[0]) not in known:
        yield "its holder"


async def _missing_of_manifest(driver: Driver, key: str, known: Mapping[str, int]) -> AsyncIterator[str]:
    name, entry = keys.placed(key)[0], keys.entry_of(key, known[key])
    manifest = parse_manifest((await driver.get(key)).data, entry.media_type)
    wanted = {keys.links(name, blob.digest) for blob in manifest.blobs}
    wanted |= {keys.manifests(name, child.digest) for child in manifest.children}
    for prefix in wanted:
        if not any(other.startswith(prefix) for other in known):
            yield prefix
    subject = manifest.subject
    if subject and keys.referrer(name, subject.digest, entry.digest, entry.nonce) not in known:
        yield "its descriptor"
    if keys.catalog(name) not in known:
        yield "its catalog"


class Interrupted:
    """A driver that awaits `action` once, before its request number `at`; `asked` counts them."""

    def __init__(self, driver: Driver, at: int = -1, action: Callable[[], Awaitable[None]] | None = None) -> None:
        self._driver = driver
        self._at, self._action = at, action
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if name not in _ASKED:
            return found

        async def asked(*args: Any, **kwargs: Any) -> Any:
            await self._turn()
            return await found(*args, **kwargs)

        return asked

    @asynccontextmanager
    async def open(self, *args: Any) -> AsyncIterator[Any]:
        await self._turn()
        async with self._driver.open(*args) as reader:
            yield reader

    async def _turn(self) -> None:
        self.asked += 1
        if self.asked == self._at and self._action is not None:
            await self._action()
