"""Bytes of stored manifests, verified when they are read and remembered by digest."""

from app.oci.digests import algorithm_of, digest_of
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Entry
from storage import Corrupt


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
