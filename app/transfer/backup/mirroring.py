"""A registry's store copied into another store while it is used, whole at every moment of the copy.

Whoever reads, reads what needs something before what it needs: a manifest that was seen has had all its blobs and children
since before. Whoever writes, writes in the other order: bytes, link, children, manifest, tag. So all that a copied manifest
needs is in the copy before it, whatever is pushed, deleted and collected meanwhile, and also when the run is killed. What was
deleted between two of these steps is simply not copied.

Names are used once, so what is there already is never looked at again; only tags are compared.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import Manifest, parse_manifest
from app.oci.names import Name
from app.proxy.flights import Flights
from app.registry import keys, tags
from app.registry.hashing import StreamHash
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.transfer.backup.merged import merged
from storage import Driver, NotFound, StorageError

_AT_ONCE: Final = 16
_PLAIN: Final = (keys.CATALOG, keys.PINS, keys.ADOPTIONS)
"""Small objects that need nothing."""


class Decayed(StorageError):
    """Bytes that are not what their key says: they are not copied."""


@dataclass(slots=True)
class Mirrored:
    """What a run did; `here` are links that were in the copy already. `gone` went away while it was copied."""

    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    here: int = 0
    gone: int = 0
    pruned: int = 0
    failed: int = 0


Told = Callable[[str, str], None]
"""Told a key and what is wrong with it."""


class Mirror:
    """One run from `source` to `target`. `moves_tags`: a tag that the target has is made the source's."""

    def __init__(self, source: Driver, target: Driver, told: Told, *, moves_tags: bool = True) -> None:
        self.done = Mirrored()
        self.watch: Callable[[int], None] = lambda _keys: None
        """Told now and then how many keys were looked at."""
        self._keys = 0
        self._source = source
        self._target = target
        self._told = told
        self._moves_tags = moves_tags
        self._flights: Flights[str, bool] = Flights()

    async def run(self) -> None:
        """Copies everything. Raises StorageError where a store cannot be listed; what else goes wrong is told."""
        try:
            async with self._side_by_side() as begin:
                async for entry, has in merged(self._source, self._target, keys.REPOSITORIES):
                    await self._copy(entry.key, entry.size, has, begin)
            for prefix in _PLAIN:
                async with self._side_by_side() as begin:
                    async for entry, has in merged(self._source, self._target, prefix):
                        if not has:
                            await begin(entry.key, partial(self._plain, entry.key))
        finally:
            await self._flights.close()

    async def prune(self) -> None:
        """Takes out of the target the tags, manifests and referrers that the source has no more; `gc` there frees bytes.

        Raises StorageError; does nothing where the source has nothing at all.
        """
        if not (await self._source.list(keys.REPOSITORIES, limit=1)).entries:
            self._told(keys.REPOSITORIES, "the source is empty: nothing is pruned")
            return
        for wanted in ("tags", "manifests", "referrers"):
            async for entry, has in merged(self._target, self._source, keys.REPOSITORIES):
                if not has and _kind(entry.key) == wanted and not await self._is_at_source(entry.key):
                    await self._target.delete(entry.key)
                    self.done.pruned += 1

    async def _is_at_source(self, key: str) -> bool:
        """Tags change their size: the merge tells those from the ones that are gone no better than this."""
        try:
            await self._source.stat(key)
        except NotFound:
            return False
        return True

    async def _copy(self, key: str, size: int, has: bool, begin: "_Begin") -> None:
        self._keys += 1
        self.watch(self._keys)
        kind = _kind(key)
        if kind == "tags":
            await begin(key, partial(self._tag, key))
        elif has:
            self.done.here += kind == "blobs"
        elif kind == "blobs":
            name, digest, copy = keys.placed(key)[0], keys.digest_below(key), keys.copy_of(key)
            await begin(key, partial(self._linked, name, digest, copy))
        elif kind == "manifests":
            name, entry = keys.placed(key)[0], keys.entry_of(key, size)
            await begin(key, partial(self._published, name, entry))
        elif kind in ("referrers", "deletions"):
            await begin(key, partial(self._plain, key))

    @asynccontextmanager
    async def _side_by_side(self) -> AsyncIterator["_Begin"]:
        """Work, some at once; what fails is told."""
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:

            async def one(key: str, work: "_Work") -> None:
                try:
                    self.done.gone += not await work()
                except StorageError as exc:
                    self.done.failed += 1
                    self._told(key, str(exc) or type(exc).__name__)
                finally:
                    places.release()

            async def begin(key: str, work: "_Work") -> None:
                await places.acquire()
                group.create_task(one(key, work))

            yield begin

    async def _linked(self, name: Name, digest: Digest, copy: Copy) -> bool:
        """The bytes, what is derived from the link, the link. False where they went away."""

        async def work() -> bool:
            if not await self._flights.join(keys.data(copy.uuid), lambda: self._bytes(digest, copy)):
                return False
            await self._target.put(keys.holder(digest, copy, name), b"")
            await self._target.put(keys.link(name, digest, copy), b"")
            return True

        return await self._flights.join(keys.link(name, digest, copy), work)

    async def _bytes(self, digest: Digest, copy: Copy) -> bool:
        key = keys.data(copy.uuid)
        if await self._has(key, copy.size):
            return True
        writer = self._target.create(key, keys.upload(keys.fresh()))
        running = StreamHash(algorithm_of(digest))
        try:
            async with self._source.open(key) as reader:
                async for chunk in reader:
                    await running.update(chunk)
                    await writer.write(chunk)
            if await running.digest() != digest:
                raise Decayed(f"the bytes are not those of {digest}")
            await writer.commit()
        except NotFound:
            await writer.abort()
            return False
        except BaseException:
            await asyncio.shield(writer.abort())
            raise
        self.done.blobs += 1
        self.done.bytes += copy.size
        return True

    async def _published(self, name: Name, entry: Entry) -> bool:
        """All that a manifest needs, then itself. False where it went away."""

        async def work() -> bool:
            key = keys.manifest(name, entry)
            if await self._has(key, entry.size):
                return True
            try:
                data = (await self._source.get(key)).data
            except NotFound:
                return False
            if digest_of(data, algorithm_of(entry.digest)) != entry.digest:
                raise Decayed(f"the bytes are not those of {entry.digest}")
            if not await self._needs(name, entry, data):
                return False
            await self._target.put(keys.catalog(name), b"")
            await self._target.put(key, data)
            self.done.manifests += 1
            return True

        return await self._flights.join(keys.manifest(name, entry), work)

    async def _needs(self, name: Name, entry: Entry, data: bytes) -> bool:
        """Brings what a manifest needs. False where some of it is not there because the manifest is not there any more.

        What is missing while the manifest is there was never there: caches, and images for chosen platforms, are sparse.
        """
        try:
            manifest = parse_manifest(data, entry.media_type)
        except ManifestInvalid as exc:
            raise Decayed(f"it cannot be read: {exc.message}") from exc
        whole = True
        for blob in manifest.blobs:
            whole = await self._any_link(name, blob.digest) and whole
        for child in manifest.children:
            found = await self._any_manifest(name, child.digest) or await self._any_link(name, child.digest)
            whole = found and whole
        whole = await self._refers(name, entry, manifest) and whole
        return whole or await self._is_at_source(keys.manifest(name, entry))

    async def _any_link(self, name: Name, digest: Digest) -> bool:
        """Brings one copy of a blob, or all where some are decayed. False where the source has none."""
        if (await self._target.list(keys.links(name, digest), limit=1)).entries:
            return True
        failure: StorageError | None = None
        async for entry in every(self._source, keys.links(name, digest)):
            try:
                if await self._linked(name, digest, keys.copy_of(entry.key)):
                    return True
            except Decayed as exc:
                failure = exc
        if failure is not None:
            raise failure
        return False

    async def _any_manifest(self, name: Name, digest: Digest) -> bool:
        if (await self._target.list(keys.manifests(name, digest), limit=1)).entries:
            return True
        async for entry in every(self._source, keys.manifests(name, digest)):
            if await self._published(name, keys.entry_of(entry.key, entry.size)):
                return True
        return False

    async def _refers(self, name: Name, entry: Entry, manifest: Manifest) -> bool:
        if manifest.subject is None:
            return True
        return await self._plain(keys.referrer(name, manifest.subject.digest, entry.digest, entry.nonce))

    async def _tag(self, key: str) -> bool:
        """A tag as it is now, once what it names is there. False where either went away."""
        try:
            body = (await self._source.get(key)).data
        except NotFound:
            return False
        try:
            there: bytes | None = (await self._target.get(key)).data
        except NotFound:
            there = None
        if there == body or (there is not None and not self._moves_tags):
            return True
        written = tags.parsed(body)
        if body and written is None:
            return False  # it decayed: the copy keeps what it has
        if written is not None and not await self._published(keys.placed(key)[0], written[0]):
            return False
        await self._target.put(key, body)
        self.done.tags += 1
        return True

    async def _plain(self, key: str) -> bool:
        try:
            data = (await self._source.get(key)).data
        except NotFound:
            return False
        await self._target.put(key, data)
        return True

    async def _has(self, key: str, size: int) -> bool:
        try:
            return (await self._target.stat(key)).size == size
        except NotFound:
            return False


_Work = Callable[[], Awaitable[bool]]
_Begin = Callable[[str, _Work], Awaitable[None]]


def _kind(key: str) -> str | None:
    """`blobs`, `manifests`, `tags`, ...; None for what is not the registry's."""
    try:
        return keys.placed(key)[1]
    except ValueError:
        return None
