"""DELETE of a blob: the collector's protocol on one repository's links (design, section 5, rule 2).

An upload links its own copy without an intent, which keeps a push cheap, and again whenever its last request is repeated. So
where uploads come, a link that was deleted may return at any moment of an upload's life, and what was derived from it stays:
a link without its derived key would be one that no collector finds. It is swept by its age, once no upload can return.
"""

from collections.abc import Collection, Mapping

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.intents import Intents
from app.registry.keys import Copy
from app.registry.needs import Needs, StoredNeeds

Links = Mapping[Digest, Collection[Copy]]
"""Links of one repository: a blob's digest, and the copies of it that are linked."""


async def delete_links(bucket: Bucket, name: Name, digest: Digest, copies: Collection[Copy]) -> bool:
    """Deletes `name`'s links to these copies unless they are needed; says whether it did. (Model: Deleter(name).)

    Raises Unavailable when it cannot be told whether they are needed.
    """
    links, looks = {digest: copies}, (Intents(bucket), StoredNeeds(bucket))
    return digest in await delete_unneeded(bucket, name, links, *looks, takes_uploads=True)


async def delete_unneeded(
    bucket: Bucket, name: Name, links: Links, intents: Intents, needs: Needs, *, takes_uploads: bool = False
) -> set[Digest]:
    """As `delete_links` for many blobs, whose manifests are listed twice for all of them; returns what went.

    Raises Unavailable, StorageError; FenceExpired where it took too long, and what was done until then stays done.
    With `takes_uploads` what was derived from the links stays.
    """
    driver, scope = bucket.driver, keys.escape(name)
    fence = driver.fence()
    links = await _unneeded(name, links, intents, needs)
    await side_by_side(lambda copy: driver.put(keys.tombstone(copy, scope), b"", fence=fence), _copies(links))
    links = await _unneeded(name, links, intents, needs)
    pairs = [(digest, copy) for digest, copies in links.items() for copy in copies]
    await driver.delete_many([keys.link(name, digest, copy) for digest, copy in pairs], fence=fence)
    if not takes_uploads:
        await driver.delete_many([keys.holder(digest, copy, name) for digest, copy in pairs], fence=fence)
    return set(links)


async def _unneeded(name: Name, links: Links, intents: Intents, needs: Needs) -> Links:
    """Intents first, then manifests: the other order misses a publication that ends in between. (Model: looks.)"""
    if not links:
        return {}
    intended = await intents.naming(_copies(links))
    free = {digest: copies for digest, copies in links.items() if intended.isdisjoint(copies)}
    named = await needs.named(name, free) if free else set()
    return {digest: copies for digest, copies in free.items() if digest not in named}


def _copies(links: Links) -> list[Copy]:
    return [copy for copies in links.values() for copy in copies]
