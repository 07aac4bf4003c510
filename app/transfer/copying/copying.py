"""A run that copies many images from other registries: which ones, some side by side, and what became of each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from app.oci.digests import Digest
from app.oci.errors import NameInvalid, RegistryError, TagInvalid
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.proxy.errors import Missing, Portal, UpstreamError
from app.registry.bucket import Bucket
from app.registry.registry import Repository
from app.transfer.copying.blobs import PIECE, CopiedBlobs
from app.transfer.copying.image import CopiedImage, Count, Image, Rules, Shown
from app.transfer.copying.selection import EVERY, Selection
from app.transfer.copying.source import Source
from storage import StorageError

AT_ONCE: Final = 3
"""Images that are copied side by side."""
_MOST_TAGS: Final = 1_000_000

Named = Callable[[Name], Name]
"""The name here of a repository there. Raises NameInvalid."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image, or of one source that names none: `trouble` is None where it is here whole."""

    image: str
    target: str | None
    digest: Digest | None
    count: Count
    trouble: str | None


class Watcher(Protocol):
    """Who is told."""

    def begin(self, image: Image) -> "Watched":
        """An image begins to be copied."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """It ended, well or not."""
        ...


class Watched(Shown, Protocol):
    """One image on its way."""

    def end(self) -> None:
        """It comes no more."""
        ...


class Copying:
    """One run. `named` decides the names here."""

    def __init__(self, bucket: Bucket, rules: Rules, named: Named, watcher: Watcher, *, piece: int = PIECE) -> None:
        self._bucket = bucket
        self._rules = rules
        self._named = named
        self._watcher = watcher
        self._blobs = CopiedBlobs(bucket, piece)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._alone = _Alone()
        self._counted: set[Digest] = set()
        self._told = 0

    async def close(self) -> None:
        """Ends what runs."""
        await self._blobs.close()

    async def run(self, source: Source, selection: Selection) -> None:
        """Copies everything that is selected; what goes wrong with one image is told, and the rest goes on."""
        begun, told = 0, self._told
        async with asyncio.TaskGroup() as group:
            try:
                async for image, tags in self._images(source, selection):
                    begun += 1
                    await self._places.acquire()
                    group.create_task(self._one(image, tags))
            except (UpstreamError, RegistryError) as exc:
                self._tell(str(selection), _reason(exc))
            else:
                if not begun and self._told == told:
                    self._tell(str(selection), "no image is called so")

    async def _one(self, image: Image, tags: frozenset[str] | None) -> None:
        shown = self._watcher.begin(image)
        work = CopiedImage(
            image,
            self._rules,
            self._blobs,
            Repository(self._bucket, image.target),
            shown,
            tags=tags,
            counted=self._counted,
        )
        trouble: str | None = None
        try:
            async with self._alone.with_(f"{image.target}@{await work.resolve()}"):
                await work.run()
            if work.absent:
                trouble = ", ".join(f"there is no image for {platform}" for platform in dict.fromkeys(work.absent))
        except (UpstreamError, RegistryError, StorageError) as exc:
            trouble = _reason(exc)
        finally:
            self._places.release()
            shown.end()
        self._watcher.ended(Outcome(str(image), _target(image), work.digest, work.count, trouble))

    async def _images(self, source: Source, selection: Selection) -> AsyncIterator[tuple[Image, frozenset[str] | None]]:
        """What is selected, each with the tags of its repository that may be signatures, where they are known."""
        async for name in self._repositories(source, selection):
            try:
                target = self._named(name)
            except NameInvalid as exc:
                self._tell(f"{source.host}/{name}", _reason(exc))
                continue
            if selection.digest is not None:
                yield Image(source, name, selection.digest, target), None
            elif selection.tag is not None:
                yield Image(source, name, selection.tag, target), None
            else:
                try:
                    found = [tag async for tag in self._tags(source, name)]
                except (UpstreamError, RegistryError) as exc:
                    if selection.repository is None and isinstance(exc, Missing):
                        continue  # catalogs list repositories without a tag as well
                    self._tell(f"{source.host}/{name}", _reason(exc))
                    continue
                signatures = _signatures(found) if selection.reference != EVERY else frozenset()
                for tag in found:
                    if selection.wants(tag) and (self._rules.referrers or tag not in _signatures([tag])):
                        yield Image(source, name, tag, target), signatures

    async def _repositories(self, source: Source, selection: Selection) -> AsyncIterator[Name]:
        if selection.repository is not None:
            yield selection.repository
            return
        async for text in source.names():
            try:
                name = parse_name(text)
            except NameInvalid:
                self._tell(f"{source.host}/{text[:100]!r}", "the catalog lists what is no name of a repository")
                continue
            if selection.has(name):
                yield name

    async def _tags(self, source: Source, name: Name) -> AsyncIterator[Tag]:
        seen = 0
        async for text in source.tags(name):
            seen += 1
            if seen > _MOST_TAGS:
                raise Portal(f"{source.host} answers a list of tags that has no end")
            try:
                yield parse_tag(text)
            except TagInvalid:
                self._tell(f"{source.host}/{name}:{text[:100]!r}", "the list of tags holds what is no tag")

    def _tell(self, about: str, trouble: str) -> None:
        self._told += 1
        self._watcher.ended(Outcome(about, None, None, Count(), trouble))


class _Alone:
    """Keys, each held by one at a time: tags that name the same manifest would bring it twice."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def with_(self, key: str) -> AsyncIterator[None]:
        """Waits for the key, and holds it."""
        lock, users = self._held.get(key, (asyncio.Lock(), 0))
        self._held[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held.pop(key)
            if users > 1:
                self._held[key] = lock, users - 1


def _signatures(tags: Collection[str]) -> frozenset[str]:
    """The tags that cosign made of digests."""
    return frozenset(tag for tag in tags if tag.startswith(("sha256-", "sha512-")))


def _target(image: Image) -> str:
    return f"{image.target}{':' if image.tag else '@'}{image.reference}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, UpstreamError):
        return exc.reason
    if isinstance(exc, RegistryError):
        detail = exc.detail if isinstance(exc.detail, dict) else {}
        about = detail.get("digest") or detail.get("name")
        return f"{exc.message}: {about}" if about and str(about) not in exc.message else exc.message
    return str(exc)
