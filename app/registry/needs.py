"""What the manifests of a repository need: every digest that stands in any of their strings (design, section 5, rule 4)."""

from collections.abc import Callable, Collection
from typing import Final, Protocol

from app.oci.digests import Digest
from app.oci.errors import ManifestInvalid, Unavailable
from app.oci.manifests import digests_named
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, Recent, side_by_side
from app.registry.keys import Entry
from app.registry.listing import every
from app.registry.off_loop import off_loop
from app.registry.stored import read_manifest
from storage import Corrupt, NotFound

_REMEMBERED: Final = 20_000
"""Manifests whose names are kept between looks."""


class Unreadable(Unavailable):
    """A stored manifest cannot be understood, so nobody knows what it needs, and nothing may be deleted."""

    def __init__(self, name: Name, digest: Digest) -> None:
        super().__init__(f"the manifest {digest} in {name} cannot be read: nothing is deleted")
        self.name = name
        self.digest = digest


class Needs(Protocol):
    """What a collector asks."""

    async def named(self, name: Name, digests: Collection[Digest]) -> set[Digest]:
        """Those of the digests that a manifest names which this repository has now: its manifests are listed anew.

        Raises Unreadable, StorageError.
        """
        ...


Known = Callable[[Name, Digest], Collection[str] | None]
"""What a manifest of a repository names, as far as it matters; None where that must be read."""


class StoredNeeds:
    """Needs as the stored manifests tell them. What was read is remembered as long as this object lives."""

    def __init__(self, bucket: Bucket, known: Known = lambda _name, _digest: None) -> None:
        """`known` is asked first."""
        self._bucket = bucket
        self._known = known
        self._names: Recent[Digest, frozenset[str]] = Recent(_REMEMBERED)

    async def named(self, name: Name, digests: Collection[Digest]) -> set[Digest]:
        """See Needs. (Model: no_manifest.)"""
        wanted = {str(digest): digest for digest in digests}

        async def names(key: str) -> list[Digest]:
            found = await self._read(name, keys.entry_of(key, 0))
            return [wanted[text] for text in found if text in wanted]

        listed = [entry.key async for entry in every(self._bucket.driver, keys.manifests(name))]
        return {digest for answer in await side_by_side(names, listed) for digest in answer}

    async def _read(self, name: Name, entry: Entry) -> Collection[str]:
        for known in (self._known(name, entry.digest), self._names.get(entry.digest)):
            if known is not None:
                return known
        try:
            data = await read_manifest(self._bucket, name, entry)
            found = frozenset(await off_loop(len(data), digests_named, data))
        except NotFound:
            return frozenset()  # deleted since it was listed
        except (ManifestInvalid, Corrupt) as exc:
            raise Unreadable(name, entry.digest) from exc
        self._names.put(entry.digest, found)
        return found
