"""Binding blobs where Distribution wrote them: not a byte of them is moved."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.oci.digests import DEFAULT_ALGORITHM, Digest, algorithm_of, digest_of
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, Recent, side_by_side
from app.registry.hashing import digest_of_stream
from app.registry.keys import Copy
from app.registry.listing import every
from app.registry.publishing import bind, intent, tombstoned, unbind
from app.transfer.adoption.layout import Garbled, Kind, Layout, Link
from app.transfer.adoption.report import Report
from storage import Entry, Fence, NotFound

_REMEMBERED: Final = 100_000
"""Sizes of blobs: repositories share their lowest layers."""
_GONE: Final = "its bytes are not there"


@dataclass(frozen=True, slots=True)
class _Place:
    """The bytes that a link of Distribution's names, and the copy that they are here."""

    digest: Digest
    copy: Copy


class AdoptedBlobs:
    """Makes repositories here hold what they hold in Distribution's layout."""

    def __init__(self, bucket: Bucket, layout: Layout, report: Report) -> None:
        self._bucket, self._layout, self._report = bucket, layout, report
        self._sizes: Recent[Digest, Entry] = Recent(_REMEMBERED)
        self._quarantined: set[str] = set()

    async def start(self) -> None:
        """Recalls which bytes are known not to hash to their digest. Raises StorageError."""
        self._quarantined = {entry.key async for entry in every(self._bucket.driver, keys.QUARANTINE)}

    async def bind(self, name: Name, links: Sequence[Link]) -> None:
        """Binds blobs that a repository does not hold here, all of them as one publication. Raises StorageError.

        What is being collected here at this moment is left to a later run, unless a manifest needs it.
        """
        fence = self._bucket.driver.fence()
        places = await side_by_side(self._place, links)
        for link, place in zip(links, places, strict=True):
            if isinstance(place, str):
                self._report.note("left", name, f"blob {link.what}", place)
        await self._bind(name, [place for place in places if isinstance(place, _Place)], fence)

    async def need(self, name: Name, digest: Digest) -> bool:
        """Binds a blob that a manifest names, if Distribution's layout has it in this repository. Raises StorageError.

        Where its copy is being collected here, the bytes are copied inside the store, as every publisher does it.
        """
        fence = self._bucket.driver.fence()
        link = await self._layout.find(name, Kind.BLOB, digest)
        place = await self._place(link) if link is not None else _GONE
        if isinstance(place, str):
            return False
        return await self._bind(name, [place], fence) == 1 or await self._copied(name, place, fence)

    async def _bind(self, name: Name, places: Sequence[_Place], fence: Fence) -> int:
        """How many could be bound: those that are not being collected."""
        if not self._report.dry and places:
            copies = {place.copy for place in places}
            async with intent(self._bucket, copies):
                dead = await tombstoned(self._bucket, copies, [name])
                places = [place for place in places if place.copy not in dead]
                await side_by_side(lambda place: bind(self._bucket, name, place.digest, place.copy, fence), places)
        self._report.done["blobs_bound"] += len(places)
        self._report.done["blob_bytes_bound"] += sum(place.copy.size for place in places)
        return len(places)

    async def is_to_come(self, name: Name, digest: Digest) -> bool:
        """Whether a run that does write would bind it. Raises StorageError."""
        link = await self._layout.find(name, Kind.BLOB, digest)
        return link is not None and isinstance(await self._place(link), _Place)

    async def check(self, name: Name, digest: Digest, size: int) -> str | None:
        """Why a blob that a manifest says to have `size` bytes cannot be right; None where it may be. Raises StorageError.

        Bytes are read only where the sizes differ. Decayed ones are unbound, so that a push can heal them.
        """
        copy = self._bucket.places.get((name, digest))  # publishing has just looked
        if copy is None or copy.size == size:
            return None
        if not copy.adopted or await self._hashes(copy, digest):
            return f"{digest} has {copy.size} bytes, not the {size} that the manifest says"
        await self._quarantine(name, digest, copy)
        await unbind(self._bucket, name, digest, copy)
        self._bucket.places.drop((name, digest))
        return f"the bytes of {digest} do not hash to it: they were left out"

    async def _place(self, link: Link) -> _Place | str:
        """Where the bytes are, or why nothing can be bound."""
        digest = Digest(link.what)
        try:
            target = await self._layout.target(link)
            found = await self._bytes(target)
            copy = keys.adopted(target, found.size, self._layout.root)
            if target != digest and not await self._is_alias(copy, target, digest):
                return f"its link file names {target}"
        except NotFound:
            return _GONE
        except Garbled as garbled:
            return str(garbled)
        if copy.size == 0 and digest != digest_of(b"", algorithm_of(digest)):
            return "its bytes are gone: the file is empty"
        return "its bytes do not hash to it" if keys.quarantine(copy) in self._quarantined else _Place(digest, copy)

    async def _bytes(self, digest: Digest) -> Entry:
        known = self._sizes.get(digest)
        if known is None:
            known = await self._layout.bytes_of(digest)
            self._sizes.put(digest, known)
        return known

    async def _is_alias(self, copy: Copy, target: Digest, digest: Digest) -> bool:
        """Distribution keeps what was pushed as sha512 under its sha256, and a link from the one to the other."""
        other = algorithm_of(digest) != algorithm_of(target) == DEFAULT_ALGORITHM
        return other and await self._hashes(copy, digest)

    async def _hashes(self, copy: Copy, digest: Digest) -> bool:
        async with self._bucket.driver.open(keys.data(copy.uuid)) as reader:
            return await digest_of_stream(reader, algorithm_of(digest)) == digest

    async def _quarantine(self, name: Name, digest: Digest, copy: Copy) -> None:
        why = "the bytes do not hash to the digest"
        fields = {"digest": digest, "size": copy.size, "why": why, "repositories": [name], "time": time.time()}
        await self._bucket.driver.put(keys.quarantine(copy), json.dumps(fields).encode())
        self._quarantined.add(keys.quarantine(copy))

    async def _copied(self, name: Name, place: _Place, fence: Fence) -> bool:
        new = Copy(keys.fresh(), place.copy.size)
        try:
            await self._bucket.driver.copy(keys.data(place.copy.uuid), keys.data(new.uuid))
        except NotFound:
            return False
        await bind(self._bucket, name, place.digest, new, fence)
        self._report.done["blob_bytes_copied"] += new.size
        return True
