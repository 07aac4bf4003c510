"""The publisher's side of online garbage collection: intents, and the look for tombstones (design, section 5, rule 1).

A publication makes content needed: a manifest, a mount, a link to an older copy. In this order: take a fence, resolve the
copies, PUT an intent that names them, drop the copies that have a tombstone, publish under the fence, delete the intent.
"""

import json
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

from app.oci.digests import Digest
from app.oci.errors import RegistryError
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Copy
from app.registry.listing import every
from storage import ConditionFailed, Fence, FenceExpired, NotFound, StorageError

_DEFINITE: Final = (RegistryError, FenceExpired, ConditionFailed)


@asynccontextmanager
async def intent(bucket: Bucket, copies: Collection[Copy]) -> AsyncIterator[None]:
    """While this is entered no collector deletes these copies. (Model: put_intent, release.)

    Left by a definite outcome, the intent is deleted; after a timeout, a cancellation or a failure of the store the
    publication may still happen, so the intent stays until it expires.
    """
    if not copies:
        yield
        return
    key = f"{keys.INTENTS}{keys.fresh()}"
    body = json.dumps({"copies": sorted(copy.uuid for copy in copies)}).encode()
    await bucket.driver.put(key, body)
    try:
        yield
    except _DEFINITE:
        bucket.spawn(_release(bucket, key))
        raise
    bucket.spawn(_release(bucket, key))


async def tombstoned(bucket: Bucket, copies: Collection[Copy], scopes: Iterable[Name]) -> set[Copy]:
    """Those of the copies that are being deleted, everywhere or in one of these repositories. (Model: drop_tombstoned.)"""
    if not copies:
        return set()
    wanted = {keys.EVERYWHERE, *(keys.escape(name) for name in scopes)}
    page = await bucket.driver.list(keys.TOMBSTONES)
    found = {keys.buried(entry.key) for entry in page.entries}
    if page.more:  # too many to see at once: ask copy by copy
        pages = await side_by_side(lambda copy: _tombstones(bucket, copy), copies)
        found = {tombstone for page in pages for tombstone in page}
    return {copy for copy in copies if any((copy.uuid, scope) in found for scope in wanted)}


async def _tombstones(bucket: Bucket, copy: Copy) -> set[tuple[str, str]]:
    return {keys.buried(entry.key) async for entry in every(bucket.driver, keys.tombstones(copy))}


async def bind(bucket: Bucket, name: Name, digest: Digest, copy: Copy, fence: Fence) -> None:
    """Makes `name` hold the blob: the derived key, then the link. Again, it makes both young. (Model: put_holder, put_link.)"""
    await bucket.driver.put(keys.holder(digest, copy, name), b"")
    await bucket.driver.put(keys.link(name, digest, copy), b"", fence=fence)
    bucket.places.put((name, digest), copy)


async def unbind(bucket: Bucket, name: Name, digest: Digest, copy: Copy, fence: Fence | None = None) -> None:
    """Takes a link away, then what was derived from it: with a fence both, because a later mount may write both anew."""
    await bucket.driver.delete(keys.link(name, digest, copy), fence=fence)
    await bucket.driver.delete(keys.holder(digest, copy, name), fence=fence)


async def adopt(bucket: Bucket, name: Name, digest: Digest, sources: Iterable[Name]) -> Copy | None:
    """Links a copy that one of `sources` holds into `name`, as a publisher. None where there is none that may be used.

    What `name` holds already is linked again: a manifest may follow as long after it as after an upload.
    """
    for source in sources:
        fence = bucket.driver.fence()
        copies = await linked(bucket, source, digest)
        if not copies:
            continue
        async with intent(bucket, copies):
            dead = await tombstoned(bucket, copies, {source, name})
            alive = [copy for copy in copies if copy not in dead]
            if alive:
                await bind(bucket, name, digest, alive[0], fence)
                return alive[0]
    return None


async def usable(bucket: Bucket, name: Name, digest: Digest, sources: Iterable[Name]) -> Copy | None:
    """What `adopt` would link now: a prediction, for which nothing is written."""
    for source in sources:
        copies = await linked(bucket, source, digest)
        dead = await tombstoned(bucket, copies, {source, name})
        alive = [copy for copy in copies if copy not in dead]
        if alive:
            return alive[0]
    return None


async def linked(bucket: Bucket, name: Name, digest: Digest) -> list[Copy]:
    """Every copy that `name` has a link to. (Model: resolve.)"""
    page = await bucket.driver.list(keys.links(name, digest))
    return [keys.copy_of(entry.key) for entry in page.entries]


async def first_linked(bucket: Bucket, name: Name, digest: Digest) -> Copy | None:
    """One copy, for one store request: existence, size and place. Where it was last is asked first, being cheaper."""
    known = bucket.places.get((name, digest))
    if known is not None:
        try:
            await bucket.driver.stat(keys.link(name, digest, known))
        except NotFound:
            bucket.places.drop((name, digest))
        else:
            return known
    page = await bucket.driver.list(keys.links(name, digest), limit=1)
    if not page.entries:
        return None
    copy = keys.copy_of(page.entries[0].key)
    bucket.places.put((name, digest), copy)
    return copy


async def holding(bucket: Bucket, digest: Digest) -> list[Name]:
    """Repositories that may hold a digest: derived, so only a link of theirs is proof."""
    page = await bucket.driver.list(keys.holders(digest))
    return list(dict.fromkeys(keys.holding(entry.key)[1] for entry in page.entries))


async def _release(bucket: Bucket, key: str) -> None:
    with suppress(StorageError):
        await bucket.driver.delete(key)
