"""Whether all of an image is here, for clients that cannot turn elsewhere once they have its manifest."""

from app.oci.errors import ManifestInvalid
from app.oci.names import Name
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Entry
from app.registry.manifests import parsed
from app.registry.publishing import first_linked
from app.registry.stored import first_entry, read_manifest
from storage import NotFound


@translated
async def is_whole(bucket: Bucket, name: Name, entry: Entry) -> bool:
    """Whether every blob is here; of an index, whether one image is: which one the client wants is not known."""
    try:
        manifest = await parsed(await read_manifest(bucket, name, entry), entry.media_type)
    except (ManifestInvalid, NotFound):
        return False
    blobs = await side_by_side(lambda blob: first_linked(bucket, name, blob.digest), manifest.blobs)
    if not all(blobs):
        return False
    if not manifest.children:
        return True
    found = await side_by_side(lambda child: first_entry(bucket, name, child.digest), manifest.children)
    for child in found:
        if child is not None and await is_whole(bucket, name, child):
            return True
    return False
