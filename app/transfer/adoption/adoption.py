"""Taking over, in place, what CNCF Distribution keeps in the registry's own bucket or folder.

Two ordered listings are joined: what Distribution has, and what was taken over before. What is in the first alone is
new; a tag in the second alone is gone there. Each thing is remembered after it was done, so a run that was killed is
continued by the next, and a run with nothing new costs a request for each thousand files. Nothing is written in
Distribution's layout, so the old registry goes on working, and pushes to it are brought by the next run.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.oci.digests import is_digest
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.listing import every
from app.transfer.adoption.blobs import AdoptedBlobs
from app.transfer.adoption.layout import Kind, Layout, Link, order
from app.transfer.adoption.manifests import AdoptedManifests
from app.transfer.adoption.report import Report
from app.transfer.adoption.tags import AdoptedTags

T = TypeVar("T")

BY: Final = "adopt:"
"""The writer of adopted tags, before their root; no user's name has a colon."""
_BATCH: Final = 240

Progress = Callable[[int], None]
"""Called with the number of links that were looked at."""


@dataclass(frozen=True, slots=True)
class Item:
    """A manifest, tag or blob: its link in Distribution's layout, and the versions of it that were taken over."""

    name: Name
    kind: Kind
    what: str
    link: Link | None
    known: tuple[str, ...]


class Adoption:
    """One run over the layout; `prune` empties adopted tags that are gone there, `dry` only looks."""

    def __init__(self, bucket: Bucket, layout: Layout, *, prune: bool = False, dry: bool = False) -> None:
        self.report = Report(dry=dry)
        self._bucket, self._layout, self._prune = bucket, layout, prune
        by = f"{BY}{layout.root}"
        self._blobs = AdoptedBlobs(bucket, layout, self.report)
        self._manifests = AdoptedManifests(bucket, layout, self._blobs, self.report, by)
        self._tags = AdoptedTags(bucket, layout, self._manifests, self.report, by)
        self._odd = ""

    @translated
    async def count(self) -> int:
        """How many links there are, for a request for each thousand. Raises RegistryError."""
        total = 0
        async for _ in self._layout.links(lambda *_: None):
            total += 1
        return total

    @translated
    async def run(self, progress: Progress = lambda _: None) -> Report:
        """Takes everything over. Raises RegistryError when the store fails: then the next run goes on."""
        await self._blobs.start()
        name, held, counted = None, _Ordered[str](_nothing()), None
        async for batch in _batches(_joined(self._layout.links(self._note_odd), self._remembered())):
            first = batch[0]
            if first.name != name:
                name, held = first.name, _Ordered(self._held(first.name))
            found = sum(item.link is not None for item in batch)
            self.report.found[f"{first.kind.name.lower()}s"] += found
            if found and counted != name:
                counted = name
                self.report.repositories += 1
            await self._take(batch, held)
            progress(self.report.found.total())
        return self.report

    async def _take(self, batch: list[Item], held: "_Ordered[str]") -> None:
        """A batch of one repository and one kind."""
        name, kind = batch[0].name, batch[0].kind
        links = [item.link for item in batch if item.link is not None]
        if kind is Kind.BLOB:
            await self._blobs.bind(name, [link for link in links if not await held.has(link.what)])
        elif kind is Kind.MANIFEST:
            await side_by_side(self._manifests.adopt, [item.link for item in batch if item.link and not item.known])
        else:
            await side_by_side(self._take_tag, batch)

    async def _take_tag(self, item: Item) -> None:
        if item.link is not None:
            await self._tags.adopt(item.link, item.known)
        else:
            await self._tags.gone(item.name, Tag(item.what), item.known, prune=self._prune)

    async def _remembered(self) -> AsyncIterator[Item]:
        """What was taken over before, in the order of the layout."""
        root = self._layout.root
        async for entry in every(self._bucket.driver, f"{keys.adoptions(root)}{self._layout.literal}"):
            name, what, version = keys.adoption(entry.key)
            if self._layout.means(name):
                yield Item(name, Kind.MANIFEST if is_digest(what) else Kind.TAG, what, None, (version,))

    async def _held(self, name: Name) -> AsyncIterator[str]:
        """The blobs that a repository holds here, in order."""
        async for entry in every(self._bucket.driver, keys.links(name)):
            yield keys.digest_below(entry.key)

    def _note_odd(self, repository: str, what: str, why: str) -> None:
        if f"{repository} {what}" != self._odd:  # every file below a folder says the same
            self._odd = f"{repository} {what}"
            self.report.note("left", repository, what, why)


class _Ordered(Generic[T]):
    """What comes in order, one look ahead."""

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._next: T | None = None
        self._begun = False

    async def peek(self) -> T | None:
        """The next, which stays; None at the end."""
        if not self._begun:
            await self.step()
        return self._next

    async def step(self) -> None:
        """Leaves the next behind."""
        self._begun = True
        self._next = await anext(self._source, None)

    async def has(self: "_Ordered[str]", wanted: str) -> bool:
        """Whether `wanted` is among what comes; asked in order."""
        while (found := await self.peek()) is not None and found < wanted:
            await self.step()
        return found == wanted


async def _joined(links: AsyncIterator[Link], remembered: AsyncIterator[Item]) -> AsyncIterator[Item]:
    """Both, by repository, kind and name: what only one of them has, and what both have, once."""
    left, right = _Ordered(links), _Ordered(remembered)
    while True:
        link, mark = await left.peek(), await right.peek()
        if link is None and mark is None:
            return
        place = min(_order(one) for one in (link, mark) if one is not None)
        known: list[str] = []
        while mark is not None and _order(mark) == place:
            known += mark.known
            last = mark
            await right.step()
            mark = await right.peek()
        if link is not None and link.order == place:
            await left.step()
            yield Item(link.name, link.kind, link.what, link, tuple(known))
        else:
            yield Item(last.name, last.kind, last.what, None, tuple(known))


def _order(one: Link | Item) -> tuple[str, int, str]:
    return order(one.name, one.kind, one.what)


async def _batches(items: AsyncIterator[Item]) -> AsyncIterator[list[Item]]:
    """What belongs to one repository and is of one kind, some at once."""
    batch: list[Item] = []
    async for item in items:
        if batch and (len(batch) == _BATCH or (item.name, item.kind) != (batch[0].name, batch[0].kind)):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


async def _nothing() -> AsyncIterator[str]:
    return
    yield ""
