"""DELETE of a blob: the collector's protocol on one repository's links (design, section 5, rule 2)."""

import json
import time
from collections.abc import Collection

from app.oci.digests import Digest
from app.oci.errors import ManifestInvalid, Unavailable
from app.oci.manifests import digests_named
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.registry.publishing import unbind
from app.registry.stored import read_manifest
from storage import NotFound


async def delete_links(bucket: Bucket, name: Name, digest: Digest, copies: Collection[Copy]) -> bool:
    """Deletes `name`'s links to these copies unless they are needed; says whether it did. (Model: collector(repo=name).)

    Raises Unavailable when it cannot be told whether they are needed.
    """
    fence = bucket.driver.fence()
    if await _needed(bucket, name, digest, copies):
        return False
    scope = keys.escape(name)
    await side_by_side(lambda copy: bucket.driver.put(keys.tombstone(copy, scope), b"", fence=fence), copies)
    if await _needed(bucket, name, digest, copies):
        return False
    for copy in copies:
        await unbind(bucket, name, digest, copy, fence)
    return True


async def _needed(bucket: Bucket, name: Name, digest: Digest, copies: Collection[Copy]) -> bool:
    """Intents first, then manifests: the other order misses a publication that ends in between. (Model: looks.)"""
    return await _intended(bucket, copies) or await _named(bucket, name, digest)


async def _intended(bucket: Bucket, copies: Collection[Copy]) -> bool:
    wanted = {copy.uuid for copy in copies}

    oldest = time.time() - bucket.lifetimes.intent - bucket.lifetimes.fence

    async def names_one(key: str) -> bool:
        try:
            found = await bucket.driver.get(key)
        except NotFound:
            return False  # released since it was listed: what it published is a manifest or a link now
        if found.modified < oldest:
            return False  # expired, whatever the clocks: its publication can no longer happen (model: expire_intents)
        return not wanted.isdisjoint(json.loads(found.data)["copies"])

    intents = [entry.key async for entry in every(bucket.driver, keys.INTENTS)]
    return any(await side_by_side(names_one, intents))


async def _named(bucket: Bucket, name: Name, digest: Digest) -> bool:
    async def names_it(key: str) -> bool:
        entry = keys.entry_of(key, 0)
        return digest in await _digests(bucket, name, entry)

    found = [entry.key async for entry in every(bucket.driver, keys.manifests(name))]
    return any(await side_by_side(names_it, found))


async def _digests(bucket: Bucket, name: Name, entry: Entry) -> set[str]:
    try:
        data = await read_manifest(bucket, name, entry)
    except NotFound:
        return set()
    try:
        return digests_named(data)
    except ManifestInvalid as exc:
        raise Unavailable("a stored manifest cannot be read: nothing is deleted") from exc
