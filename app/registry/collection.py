"""Collecting copies that nobody needs: the collector's protocol for a batch (design, section 5, rule 2).

In this order: take a fence; no intent names the copy; PUT its tombstone; look again, intents first, then who links it, then
what the manifests of those repositories name; delete the links, then what was derived from them, then the bytes, all under the
fence. A publication that began before the tombstone is seen by the second look; one that begins later sees the tombstone.

Who links a copy is what its derived keys say, which are written before links, and what the caller has seen besides.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.oci.digests import Digest
from app.oci.errors import Unsupported
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.intents import Intents
from app.registry.keys import Copy
from app.registry.listing import every
from app.registry.needs import Needs
from storage import Capabilities, Corrupt, Fence, NotFound, Unavailable

AT_ONCE: Final = 12
"""Store requests side by side: a collector leaves room for those who push and pull."""

_PART: Final = 50
"""Keys of one bulk delete: MinIO deletes those of a request one after the other."""

Verdict = Literal["collected", "intended", "fresh", "linked elsewhere", "needed"]
"""What became of a copy; all but the first mean that it stayed, and why."""


class CollectionOff(Unsupported):
    """This store does not do what a collector builds on, so nothing is ever collected in it."""


def why_off(capabilities: Capabilities) -> str:
    """Why nothing is collected in a store that can do this; empty where it is."""
    if not capabilities.fences:
        return "the store does not refuse expired requests, so collecting garbage in it could lose content: it is off"
    if not capabilities.list_after_write:
        return "the store does not list at once what was written, so collecting garbage in it could lose content: it is off"
    return ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A copy that nobody seems to need, and the repositories that were seen to link it."""

    digest: Digest
    copy: Copy
    names: frozenset[Name]


@dataclass(frozen=True, slots=True)
class Terms:
    """What keeps a copy although no manifest needs it. Without any, intents alone do."""

    settled: float | None = None
    """Links that are younger, in seconds since 1970 by the store's clock, keep their copy."""
    only_seen: bool = False
    """Links of repositories that were not seen before keep their copy."""


class Collector:
    """Collects batches. One lives as long as one run: it remembers what it has read."""

    def __init__(self, bucket: Bucket, intents: Intents, needs: Needs, terms: Terms) -> None:
        """Raises CollectionOff."""
        if why := why_off(bucket.capabilities):
            raise CollectionOff(why)
        self._bucket = bucket
        self._intents = intents
        self._needs = needs
        self._terms = terms

    async def collect(self, candidates: Sequence[Candidate]) -> Mapping[Copy, Verdict]:
        """What became of each copy. All of it ends within one fence; else it raises FenceExpired, and some may be gone.

        Raises Unreadable (then nothing of this batch is deleted), Unavailable, StorageError.
        """
        fence = self._bucket.driver.fence()
        verdicts: dict[Copy, Verdict] = dict.fromkeys(
            await self._intents.naming(candidate.copy for candidate in candidates), "intended"
        )
        doomed = [candidate for candidate in candidates if candidate.copy not in verdicts]
        await side_by_side(lambda candidate: self._bury(candidate.copy, fence), doomed, most=AT_ONCE)
        unneeded = await self._unneeded(doomed, verdicts)
        await self._delete(unneeded, fence)
        for found in unneeded:
            verdicts[found.candidate.copy] = "collected"
        return verdicts

    async def _bury(self, copy: Copy, fence: Fence) -> None:
        await self._bucket.driver.put(keys.tombstone(copy, keys.EVERYWHERE), b"", fence=fence)

    async def _unneeded(self, doomed: Sequence[Candidate], verdicts: dict[Copy, Verdict]) -> "list[_Linked]":
        """The second look: intents, then links, then manifests. Says in `verdicts` why others stay."""
        intended = await self._intents.naming(candidate.copy for candidate in doomed)
        verdicts.update(dict.fromkeys(intended, "intended"))
        rest = [candidate for candidate in doomed if candidate.copy not in intended]
        linked = await side_by_side(self._linked, rest, most=AT_ONCE)
        verdicts.update({found.candidate.copy: found.verdict for found in linked if found.verdict})
        linked = [found for found in linked if not found.verdict]
        needed = await self._needed(linked)
        verdicts.update(dict.fromkeys(needed, "needed"))
        return [found for found in linked if found.candidate.copy not in needed]

    async def _linked(self, candidate: Candidate) -> "_Linked":
        """Who links a copy now: at least everybody who may. (Model: find_links, no_fresh_link.)"""
        found = _Linked(candidate, set(candidate.names), set(candidate.names))
        latest = 0.0
        prefix = keys.holders_of(candidate.digest, candidate.copy)
        async for entry in every(self._bucket.driver, prefix):
            name = keys.holding(entry.key)[1]
            found.derived.add(name)
            if name not in found.names and not await self._is_linked(name, candidate):
                continue  # left over by a delete that broke off, or by a mount that is about to see the tombstone
            found.names.add(name)
            latest = max(latest, entry.modified)
        # A link is written after what is derived from it, within one fence.
        margin = 2 * self._bucket.lifetimes.fence
        if self._terms.only_seen and found.names != candidate.names:
            found.verdict = "linked elsewhere"
        elif self._terms.settled is not None and latest > self._terms.settled - margin:
            found.verdict = "fresh"
        return found

    async def _is_linked(self, name: Name, candidate: Candidate) -> bool:
        try:
            await self._bucket.driver.stat(keys.link(name, candidate.digest, candidate.copy))
        except NotFound:
            return False
        except (Corrupt, Unavailable):
            return True  # it may be there: a disk that lost a few bytes hides keys
        return True

    async def _needed(self, linked: "Collection[_Linked]") -> set[Copy]:
        """Copies that a manifest of a repository needs which links them. (Model: no_manifest.)"""
        asked: dict[Name, set[Digest]] = {}
        for found in linked:
            for name in found.names:
                asked.setdefault(name, set()).add(found.candidate.digest)
        answers = await side_by_side(lambda name: self._needs.named(name, asked[name]), asked, most=AT_ONCE)
        named = dict(zip(asked, answers, strict=True))
        return {
            found.candidate.copy
            for found in linked
            if any(found.candidate.digest in named[name] for name in found.names)
        }

    async def _delete(self, doomed: "Collection[_Linked]", fence: Fence) -> None:
        """(Model: delete_links, delete_bytes.)"""
        links, holders, bytes_ = [], [], []
        for found in doomed:
            digest, copy = found.candidate.digest, found.candidate.copy
            links += [keys.link(name, digest, copy) for name in found.names]
            holders += [keys.holder(digest, copy, name) for name in found.names | found.derived]
            if not copy.adopted:
                bytes_.append(keys.data(copy.uuid))
        for gone in (links, holders, bytes_):
            parts = [gone[at : at + _PART] for at in range(0, len(gone), _PART)]
            await side_by_side(lambda part: self._bucket.driver.delete_many(part, fence=fence), parts, most=AT_ONCE)


@dataclass(slots=True)
class _Linked:
    """Who links a candidate (`names`), and who is said to (`derived`); why it stays, if that is known already."""

    candidate: Candidate
    names: set[Name]
    derived: set[Name]
    verdict: Verdict | None = None
