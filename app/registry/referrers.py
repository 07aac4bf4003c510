"""Referrers: one descriptor a referrer, written before its manifest; readers drop those whose manifest is not there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.oci.digests import Digest
from app.oci.manifests import Manifest
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Entry
from storage import NotFound

PAGE: Final = 100
"""Descriptors in one answer, at most."""
PAGE_BYTES: Final = 3 << 20
"""Bytes of descriptors in one answer, so that it stays below what clients accept as a manifest."""


@dataclass(frozen=True, slots=True)
class Referrers:
    """One page: descriptors, and the digest after which the next page begins."""

    descriptors: Sequence[dict[str, Any]]
    next: Digest | None


class ReferrersOf:
    """The referrers of manifests in one repository."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self._name = name

    @translated
    async def list(self, subject: Digest, artifact_type: str | None, last: Digest | None) -> Referrers:
        """Descriptors of manifests whose subject is `subject`, which need not exist (specification, end-12)."""
        prefix = keys.referrers(self._name, subject)
        after = keys.referrer(self._name, subject, last, "~") if last else ""  # "~" sorts after every nonce
        found: dict[Digest, dict[str, Any]] = {}
        size, more = 0, True
        while more:
            page = await self._bucket.driver.list(prefix, after=after, limit=PAGE)
            bodies = await side_by_side(self._read, [entry.key for entry in page.entries])
            for entry, body in zip(page.entries, bodies, strict=True):
                digest, _ = keys.referring(entry.key)
                if digest not in found and (len(found) >= PAGE or size > PAGE_BYTES):
                    return Referrers(list(found.values()), next(reversed(found)))
                if body is None or (artifact_type and body.get("artifactType") != artifact_type):
                    continue
                found[digest] = body
                size += entry.size
            more, after = page.more, page.entries[-1].key if page.entries else ""
        return Referrers(list(found.values()), None)

    async def _read(self, key: str) -> dict[str, Any] | None:
        """The descriptor, or None when its manifest was never published or is deleted, or the descriptor decayed."""
        body = self._bucket.referrers.get(key)
        try:
            if body is None:
                body = (await self._bucket.driver.get(key)).data
                self._bucket.referrers.put(key, body)
            descriptor: dict[str, Any] = json.loads(body)
            digest, nonce = keys.referring(key)
            entry = Entry(digest, nonce, descriptor["mediaType"], descriptor["size"])
            await self._bucket.driver.stat(keys.manifest(self._name, entry))
        except (NotFound, ValueError, TypeError, KeyError):
            return None
        return descriptor


async def write(bucket: Bucket, name: Name, manifest: Manifest, entry: Entry) -> None:
    """Notes that `entry` refers to its manifest's subject."""
    if manifest.subject is None:
        return
    descriptor: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    if manifest.artifact_type:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    key = keys.referrer(name, manifest.subject.digest, entry.digest, entry.nonce)
    await bucket.driver.put(key, json.dumps(descriptor).encode())
