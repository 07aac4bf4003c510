"""What one cached repository holds, as a listing of the bucket tells it, and what its manifests name."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from app.oci.digests import Digest
from app.oci.errors import ManifestInvalid
from app.oci.manifests import digests_named
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.registry.off_loop import off_loop
from app.registry.stored import read_manifest
from storage import Corrupt, Driver, Entry as Listed, NotFound


@dataclass(slots=True)
class Shelf:
    """One repository. Times are seconds since 1970 by the store's clock."""

    name: Name
    links: dict[Digest, list[tuple[Copy, float]]] = field(default_factory=dict)
    manifests: dict[Digest, list[tuple[Entry, float]]] = field(default_factory=dict)
    pulls: dict[Digest, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """Keys, and the version of each."""
    referrers: list[tuple[str, float]] = field(default_factory=list)
    named: dict[Digest, Sequence[Digest]] = field(default_factory=dict)
    """What each manifest names of this repository's blobs and manifests; children before the indexes that name them."""
    namers: Counter[Digest] = field(default_factory=Counter)
    """How many manifests name a digest."""

    def place(self, listed: Listed) -> None:
        """Takes one key of this repository; one that is not of the registry's making is passed over."""
        with suppress(ValueError, IndexError):
            self._place(listed)

    def _place(self, listed: Listed) -> None:
        kind = keys.placed(listed.key)[1]
        if kind == "blobs":
            self.links.setdefault(keys.digest_below(listed.key), []).append((keys.copy_of(listed.key), listed.modified))
        elif kind == "manifests":
            entry = keys.entry_of(listed.key, listed.size)
            self.manifests.setdefault(entry.digest, []).append((entry, listed.modified))
        elif kind == "pulls":
            self.pulls[keys.digest_below(listed.key)] = listed.modified
        elif kind == "tags" and listed.size:
            self.tags[listed.key] = listed.version
        elif kind == "referrers":
            self.referrers.append((listed.key, listed.modified))

    async def read(self, bucket: Bucket) -> bool:
        """Reads every manifest, so that `named` and `namers` are known; says whether all could be understood.

        Costs one request for each manifest that memory does not have. One that went meanwhile is forgotten, and not known
        to name nothing: it may be stored again at any moment. Raises StorageError where the store fails.
        """
        own: dict[Digest, Digest] = {digest: digest for digest in (*self.links, *self.manifests)}

        gone: set[Digest] = set()

        async def names(digest: Digest) -> tuple[Digest, ...] | None:
            for entry, _ in self.manifests[digest]:
                try:
                    data = await read_manifest(bucket, self.name, entry)
                    found = await off_loop(len(data), digests_named, data)
                except NotFound:
                    continue
                except (ManifestInvalid, Corrupt):
                    return None
                return tuple(own[Digest(name)] for name in found if name in own)
            gone.add(digest)
            return ()

        answers = await side_by_side(names, self.manifests)
        named = {digest: answer for digest, answer in zip(self.manifests, answers, strict=True) if answer is not None}
        if len(named) < len(self.manifests):
            return False
        for digest in gone:
            del self.manifests[digest], named[digest]
        order = TopologicalSorter({digest: self._manifests_in(answer) for digest, answer in named.items()})
        self.named = {digest: named[digest] for digest in order.static_order()}
        self.namers = Counter(digest for answer in named.values() for digest in answer)
        return True

    async def writers(self, bucket: Bucket) -> set[str | None]:
        """Who wrote its tags; None for a writer without a name. Costs one request a tag."""
        return await self._writers(bucket, self.tags)

    async def new_writers(self, bucket: Bucket) -> set[str | None]:
        """As `writers`, of the tags that were written since these were listed. Costs one request, and one for each of them."""
        listed = [entry async for entry in every(bucket.driver, keys.tags(self.name)) if entry.size]
        return await self._writers(bucket, [entry.key for entry in listed if self.tags.get(entry.key) != entry.version])

    async def _writers(self, bucket: Bucket, tags: Iterable[str]) -> set[str | None]:
        async def writer(key: str) -> list[str | None]:
            try:
                body = (await bucket.driver.get(key)).data
            except NotFound:
                return []
            if not body:
                return []
            try:
                return [json.loads(body).get("by")]
            except (ValueError, AttributeError):
                return [""]  # not the proxy's writing

        return {by for answer in await side_by_side(writer, tags) for by in answer}

    def children(self, digest: Digest) -> Sequence[Digest]:
        """The manifests here that a manifest names: an index's images, a signature's subject."""
        return self._manifests_in(self.named.get(digest, ()))

    def closure(self, roots: Iterable[Digest]) -> set[Digest]:
        """These manifests, all that they name, and what refers to any of them, such as signatures."""
        referring: dict[Digest, list[Digest]] = {}
        for key, _ in self.referrers:
            referring.setdefault(keys.digest_below(key), []).append(keys.referring(key)[0])
        found: set[Digest] = set()
        rest = [digest for digest in roots if digest in self.manifests]
        while rest:
            digest = rest.pop()
            if digest not in found:
                found.add(digest)
                rest += self.children(digest)
                rest += (other for other in referring.get(digest, ()) if other in self.manifests)
        return found

    def used(self, digest: Digest) -> float:
        """When a manifest was last pulled, or stored where that is later."""
        stored = (modified for _, modified in self.manifests[digest])
        return max(self.pulls.get(digest, 0.0), *stored)

    def arrived(self, digest: Digest) -> float:
        """When the newest link to a blob was made; 0 where there is none."""
        return max((modified for _, modified in self.links.get(digest, ())), default=0.0)

    def copies(self) -> Iterator[Copy]:
        """Every copy that is linked, once a link."""
        return (copy for links in self.links.values() for copy, _ in links)

    def manifest_bytes(self) -> int:
        """The size of its manifests."""
        return sum(entry.size for stored in self.manifests.values() for entry, _ in stored)

    def loose(self) -> list[Digest]:
        """Blobs that no manifest names."""
        return [digest for digest in self.links if not self.namers[digest]]

    def take(self, digest: Digest) -> list[Digest]:
        """Forgets a manifest; returns the blobs that none names any more."""
        del self.manifests[digest]
        named = self.named.pop(digest)
        self.namers.subtract(named)
        return [other for other in named if other in self.links and not self.namers[other]]

    def unlink(self, digest: Digest, copies: Collection[Copy]) -> None:
        """Forgets links."""
        self.links[digest] = [link for link in self.links[digest] if link[0] not in copies]

    def leftovers(self, before: float) -> list[str]:
        """Keys older than `before` that speak of manifests which are not here."""
        here = {(digest, entry.nonce) for digest, stored in self.manifests.items() for entry, _ in stored}
        pulls = (keys.pull(self.name, digest) for digest, at in self.pulls.items() if self._gone(digest, at, before))
        referrers = (key for key, at in self.referrers if at < before and keys.referring(key) not in here)
        return [*pulls, *referrers]

    def _gone(self, digest: Digest, at: float, before: float) -> bool:
        return at < before and digest not in self.manifests

    def _manifests_in(self, digests: Collection[Digest]) -> list[Digest]:
        return [digest for digest in digests if digest in self.manifests]


async def shelves(driver: Driver, prefix: str) -> AsyncIterator[Shelf]:
    """Every repository below the first segment `prefix`, in one pass over its keys: a page for each thousand.

    Raises StorageError where the store fails.
    """
    shelf: Shelf | None = None
    async for listed in every(driver, keys.repositories(prefix)):
        try:
            name = keys.placed(listed.key)[0]
        except ValueError:
            continue
        if name == prefix:
            continue  # somebody's own repository of that name
        if shelf is None or shelf.name != name:
            if shelf is not None:
                yield shelf
            shelf = Shelf(name)
        shelf.place(listed)
    if shelf is not None:
        yield shelf
