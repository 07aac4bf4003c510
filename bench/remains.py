"""What lies in a bucket, and which of it nothing visible needs."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from app.oci.digests import Digest
from app.oci.manifests import digests_named
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy
from app.registry.listing import every
from storage import Driver


async def remains(driver: Driver, minio: Path) -> Counter[str]:
    """Bytes and keys that a collector should have taken, by kind; `minio` is the folder of its data.

    `data bytes` are those of copies that no link of a repository whose manifests name their digest leads to.
    """
    named: set[tuple[Name, str]] = set()
    links: list[tuple[Name, Digest, str]] = []
    found: Counter[str] = Counter()
    async for entry in every(driver, keys.REPOSITORIES):
        name, kind = keys.placed(entry.key)
        if kind == "manifests":
            named |= {(name, digest) for digest in digests_named((await driver.get(entry.key)).data)}
        elif kind == "blobs":
            links.append((name, keys.digest_below(entry.key), keys.copy_of(entry.key).uuid))
    needed = {uuid for name, digest, uuid in links if (name, digest) in named}
    linked = {uuid for _, _, uuid in links}
    async for entry in every(driver, keys.DATA):
        uuid = entry.key.removeprefix(keys.DATA)
        if uuid not in needed:
            found["data bytes"] += entry.size
            found["copies that are linked" if uuid in linked else "copies without a link"] += 1
    for title, prefix in (("uploads", keys.UPLOADS), ("intents", keys.INTENTS), ("tombstones", keys.TOMBSTONES)):
        found[title] = len([entry async for entry in every(driver, prefix)])
    held = {(copy.uuid, name) async for copy, name in _held(driver)}
    found["holders without a link"] = len(held - {(uuid, name) for name, _, uuid in links})
    found["unfinished multipart uploads"] = len(list((minio / ".minio.sys/multipart").glob("*/*")))
    return +found


async def _held(driver: Driver) -> AsyncIterator[tuple[Copy, Name]]:
    async for entry in every(driver, keys.HOLDERS):
        yield keys.holding(entry.key)
