"""Stored manifests: where one is, and its bytes, verified when they are read and remembered by digest."""

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Entry
from storage import Corrupt, NotFound


async def first_entry(bucket: Bucket, name: Name, digest: Digest) -> Entry | None:
    """One stored manifest of that digest, for one store request: where it was last is asked first, being cheaper."""
    known = bucket.entries.get((name, digest))
    if known is not None:
        try:
            await bucket.driver.stat(keys.manifest(name, known))
        except NotFound:
            bucket.entries.drop((name, digest))
        else:
            return known
    page = await bucket.driver.list(keys.manifests(name, digest), limit=1)
    if not page.entries:
        return None
    entry = keys.entry_of(page.entries[0].key, page.entries[0].size)
    bucket.entries.put((name, digest), entry)
    return entry


async def read_manifest(bucket: Bucket, name: Name, entry: Entry) -> bytes:
    """The exact bytes; asks the store only when memory does not have them. Raises NotFound, Corrupt."""
    known = bucket.manifests.get(entry.digest)
    return known if known is not None else await fetch_manifest(bucket, name, entry)


async def fetch_manifest(bucket: Bucket, name: Name, entry: Entry) -> bytes:
    """The exact bytes from the store, which thereby also says that they exist. Raises NotFound, Corrupt."""
    data = (await bucket.driver.get(keys.manifest(name, entry))).data
    if digest_of(data, algorithm_of(entry.digest)) != entry.digest:
        bucket.alarm("a manifest does not hash to its digest", {"repository": name, "digest": entry.digest})
        raise Corrupt(f"the stored manifest {entry.digest} does not hash to its digest")
    bucket.manifests.put(entry.digest, data)
    return data
