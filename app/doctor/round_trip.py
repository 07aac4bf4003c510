"""The round trip: a tiny image is pushed, pulled, compared and deleted, in a repository of its own."""

import asyncio
import secrets
import time
from collections.abc import Awaitable
from typing import Final, Protocol

from app.doctor.below import clear
from app.doctor.image import Image, tiny_image
from app.doctor.report import Check, failed, ok, warning
from app.oci.digests import Digest
from app.oci.names import Name, parse_name
from app.registry import keys
from app.registry.keys import Copy
from storage import Driver, StorageError

TAG: Final = "doctor"
_ROOM: Final = "doctor/"
_TIDYING: Final = 4.0


class Refused(Exception):
    """The registry did not do what it was asked; `found` and `fix` are for the report."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.fix = fix


class Door(Protocol):
    """A way into one repository. Everything may raise Refused."""

    place: str
    """Which registry it leads to, for the report."""

    async def push_blob(self, name: Name, digest: Digest, data: bytes) -> None:
        """Pushes a blob."""
        ...

    async def push_manifest(self, name: Name, tag: str, data: bytes) -> None:
        """Pushes an image manifest under a tag."""
        ...

    async def pull_manifest(self, name: Name, tag: str) -> bytes:
        """The manifest of a tag."""
        ...

    async def pull_blob(self, name: Name, digest: Digest) -> bytes:
        """The bytes of a blob."""
        ...

    async def delete_manifest(self, name: Name, digest: Digest) -> bool:
        """Deletes a manifest; False where there is none, or this registry deletes nothing."""
        ...

    async def delete_blob(self, name: Name, digest: Digest) -> bool:
        """Deletes a blob; False where there is none, or this registry deletes nothing."""
        ...


async def examine_round_trip(door: Door, store: Driver | None) -> list[Check]:
    """Goes there and back. `store`, where it is at hand, is cleared of what a registry itself only collects later."""
    name = parse_name(f"{_ROOM}{secrets.token_hex(6)}" if store else f"{_ROOM}round-trip")
    image = tiny_image()
    traces = Traces(store, name)
    checks: list[Check] = []
    try:
        checks.append(await _timed("push", door.place, _push(door, name, image, traces)))
        await traces.note(image)
        checks.append(await _timed("pull", door.place, _pull(door, name, image)))
    except Refused as exc:
        checks.append(failed("pull" if checks else "push", f"{door.place}: {exc.found}", exc.fix))
    except asyncio.CancelledError:  # out of time: what was pushed shall go all the same
        await asyncio.wait({asyncio.ensure_future(_tidy(door, name, image, traces))}, timeout=_TIDYING)
        raise
    return [*checks, await _tidy(door, name, image, traces)] if traces.begun else checks


class Traces:
    """What the round trip leaves in a store that we can reach: noted before it is deleted, removed behind it."""

    def __init__(self, store: Driver | None, name: Name) -> None:
        self._store = store
        self._name = name
        self._copies: dict[Copy, Digest] = {}
        self.begun = False

    @property
    def reachable(self) -> bool:
        """Whether the registry keeps its content in the store that we know."""
        return bool(self._copies)

    async def note(self, image: Image) -> None:
        """Finds the copies of the image's blobs. A store that fails now has failed its own check."""
        try:
            for digest in image.blobs if self._store else ():
                for entry in (await self._store.list(keys.links(self._name, digest))).entries if self._store else ():
                    self._copies[keys.copy_of(entry.key)] = digest
        except StorageError:
            return

    async def remove(self) -> None:
        """Removes them. Nobody else can have linked these copies: their content is random. Raises StorageError."""
        if self._store is None or not self._copies:
            return
        for copy, digest in self._copies.items():
            await self._store.delete(keys.holder(digest, copy, self._name))
            await self._store.delete(keys.data(copy.uuid))
            await clear(self._store, keys.tombstones(copy))
        await clear(self._store, f"repositories/{self._name}/")
        await self._store.delete(keys.catalog(self._name))


async def _push(door: Door, name: Name, image: Image, traces: Traces) -> str:
    for digest, data in image.blobs.items():
        await door.push_blob(name, digest, data)
        traces.begun = True
    await door.push_manifest(name, TAG, image.manifest)
    return f"{image.size} bytes"


async def _pull(door: Door, name: Name, image: Image) -> str:
    same = await door.pull_manifest(name, TAG) == image.manifest
    for digest, data in image.blobs.items():
        same = await door.pull_blob(name, digest) == data and same
    if not same:
        raise Refused(
            "other bytes came back than were pushed", "edge-registry doctor --only store, and no more pushes until then"
        )
    return "the same bytes"


async def _timed(name: str, place: str, work: Awaitable[str]) -> Check:
    start = time.monotonic()
    what = await work
    return ok(name, f"{place}: {what} in {1000 * (time.monotonic() - start):.0f} ms")


async def _tidy(door: Door, name: Name, image: Image, traces: Traces) -> Check:
    """Deletes as clients do, then what is left in the store."""
    try:
        gone = [await door.delete_manifest(name, image.digest)]
        gone += [await door.delete_blob(name, digest) for digest in image.blobs]
        if not traces.reachable:
            await traces.note(image)
        await traces.remove()
    except Refused as exc:
        return failed("delete", f"{door.place}: {exc.found}", exc.fix)
    except StorageError as exc:
        return failed("delete", f"traces stay in the store: {exc}", "edge-registry doctor --only store")
    if traces.reachable:
        return ok("delete", f"{name} is gone without a trace")
    if all(gone):
        return ok("delete", f"{name} is empty; its name, and {image.size} bytes until they are collected, stay")
    return warning(
        "delete", f"the registry deletes nothing: {name} stays with {image.size} bytes", "set registry.delete: true"
    )
