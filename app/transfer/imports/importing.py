"""Imports: the images of an archive, each published whole by the rules of a push, or not at all."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.errors import Denied, RegistryError, StoreFull, Unavailable
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.namespace import Namespace
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.manifests import Manifests
from app.registry.publishing import first_linked, holding, usable
from app.registry.stored import first_entry
from app.registry.tags import read_living, write
from app.transfer.errors import ArchiveRefused, shown
from app.transfer.imports.archive import Archive, Progress, Streamed, open_archive
from app.transfer.imports.docker_archive import LIST, DockerArchive
from app.transfer.imports.layout import INDEX, Layout
from app.transfer.imports.listed import Contents, Listed
from app.transfer.imports.naming import Called, Naming
from app.transfer.imports.outline import Held, Outline, outlined
from app.transfer.imports.stash import Kept, Stash
from app.transfer.imports.streams import Chunks
from app.transfer.settings import TransferSettings

_ENDS_ALL: Final = (Unavailable, StoreFull)
"""What is wrong with the store is wrong for every image."""
_MOST: Final = 1000
"""The most names of images in one archive."""
_NAMELESS: Final = "the archive does not say what it is called: give it a name, with --name"


@dataclass(frozen=True, slots=True)
class Wish:
    """How an archive is imported. `given`, `prefix` and `keep_host` as in `Naming`; `platforms` of indexes, none for all.

    `by` is noted in the tags; `may_push` and `may_pull` say what whoever imports may do with a repository, and `gone`
    whether nobody waits for the end any more.
    """

    given: str = ""
    prefix: str = ""
    keep_host: bool = False
    platforms: Sequence[str] = ()
    dry_run: bool = False
    by: str | None = None
    may_push: Callable[[Name], bool] = lambda _: True
    may_pull: Callable[[Name], bool] = lambda _: True
    gone: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one image under one name. Sizes in bytes; `new` are those that no repository held
    which whoever imports may pull.

    `image` is what the archive calls it, `name` where it is now; `left_out` counts images of an index that were not
    wanted or not there. Where `trouble` is set, nothing of it was published under this name.
    """

    image: str
    name: str = ""
    digest: str = ""
    size: int = 0
    new: int = 0
    left_out: int = 0
    trouble: str | None = None


class Importer:
    """Imports into one registry. `own` are hosts under which clients know it."""

    def __init__(
        self, bucket: Bucket, upstreams: Sequence[Namespace], own: Collection[str], settings: TransferSettings
    ) -> None:
        self._bucket = bucket
        self._upstreams = upstreams
        self._own = own
        self._settings = settings

    async def from_path(
        self, path: Path, wish: Wish, progress: Progress = lambda _come, _total: None
    ) -> list[Imported]:
        """A folder, a tar file or a compressed one. Raises ArchiveRefused, CutShort, Unavailable, StoreFull, OSError."""
        async with (
            self._stash(wish) as stash,
            open_archive(path, stash, self._settings.max_bytes, progress) as archive,
        ):
            return await self._import(archive, stash, wish)

    async def from_stream(self, chunks: Chunks, wish: Wish) -> list[Imported]:
        """An archive as it comes. Raises ArchiveRefused, CutShort, Unavailable, StoreFull, and what `chunks` raises."""
        async with self._stash(wish) as stash:
            return await self._import(await Streamed.read(chunks, stash, self._settings.max_bytes), stash, wish)

    @asynccontextmanager
    async def _stash(self, wish: Wish) -> AsyncIterator[Stash]:
        stash = Stash(self._bucket, dry=wish.dry_run)
        try:
            yield stash
        finally:
            await stash.close()

    async def _import(self, archive: Archive, stash: Stash, wish: Wish) -> list[Imported]:
        naming = Naming(self._upstreams, self._own, given=wish.given, prefix=wish.prefix, keep_host=wish.keep_host)
        contents = await _contents(archive)
        listed = await contents.images()
        if not listed:
            raise ArchiveRefused("there is no image in the archive")
        if len(listed) > _MOST:
            raise ArchiveRefused(f"the archive lists more than {_MOST} images")
        return await _Run(self._bucket, stash, contents, wish, naming).all(listed)


async def _contents(archive: Archive) -> Contents:
    """Docker since 25, containerd and podman write both lists; the layout keeps the digests that registries know."""
    if await archive.size(INDEX) is not None:
        return Layout(archive)
    if await archive.size(LIST) is not None:
        return DockerArchive(archive)
    raise ArchiveRefused("this is no archive of images: there is neither index.json nor manifest.json in it")


class _Run:
    """One import."""

    def __init__(self, bucket: Bucket, stash: Stash, contents: Contents, wish: Wish, naming: Naming) -> None:
        self._bucket = bucket
        self._stash = stash
        self._contents = contents
        self._wish = wish
        self._naming = naming
        self._published: dict[Digest, dict[Name, Imported]] = {}
        self._last: tuple[Descriptor, Outline] | None = None
        self._counted: set[Digest] = set()

    async def all(self, listed: Sequence[Listed]) -> list[Imported]:
        """Every image; what speaks of another one, such as a signature without a name, comes after it.

        Raises ArchiveRefused where two of them would be called the same.
        """
        named = [image for image in listed if image.called or image.tag]
        if self._wish.given:  # what is called by its digest alone speaks of another one
            named = [image for image in named if "@" not in image.called] or named or list(listed)
        await self._demand_names(named)
        found = {image: await self._one(image) for image in named}
        found |= {image: await self._referring(image) for image in listed if image not in found}
        return [found[image] for image in listed]

    async def _demand_names(self, named: Sequence[Listed]) -> None:
        by_name: dict[Called, dict[int, Listed]] = {}
        for image in named:
            with suppress(RegistryError):
                called = self._naming.called(image)
                if called is not None:
                    by_name.setdefault(called, {})[image.place] = image
        for called, images in by_name.items():
            if len(images) > 1 and len({(await self._contents.top(image)).digest for image in images.values()}) > 1:
                raise ArchiveRefused(f"{len(images)} images of the archive would be called {called}")

    async def _one(self, image: Listed) -> Imported:
        try:
            called = self._naming.called(image)
            if called is None:
                return Imported(str(image), trouble=_NAMELESS)
            return await self._publish(image, called, await self._contents.top(image))
        except _ENDS_ALL:
            raise
        except RegistryError as exc:
            return Imported(str(image), trouble=_said(exc))

    async def _referring(self, image: Listed) -> Imported:
        """What has no name, and speaks of an image that was just published, goes to where that is."""
        result = Imported(str(image), trouble=_NAMELESS)
        try:
            top = await self._contents.top(image)
            outline = await self._outlined(top, None)
            homes = self._published.get(outline.subject, {}) if outline.subject else {}
            for name in list(homes):
                result = await self._publish(image, Called(name, None), top)
        except _ENDS_ALL:
            raise
        except RegistryError as exc:
            return Imported(str(image), trouble=_said(exc))
        return result

    async def _publish(self, image: Listed, called: Called, top: Descriptor) -> Imported:
        """Raises ArchiveRefused, Denied and what a push raises."""
        if self._wish.gone():
            raise Unavailable("nobody waits for the import any more")
        if not self._wish.may_push(called.name):
            raise Denied(f"images may not be imported into {called.name}")
        if called.tag is not None and self._naming.is_promised(called.name, called.tag):
            await self._demand_still(called.name, called.tag, top.digest)
        earlier = self._published.get(top.digest, {}).get(called.name)
        if earlier is not None and await self._tagged(called, top.digest):
            return replace(earlier, image=str(image), name=str(called), new=0)
        outline = await self._outlined(top, called.name)
        there = await side_by_side(lambda digest: self._linked(called.name, digest), outline.blobs)
        missing = {digest for digest, linked in zip(outline.blobs, there, strict=True) if not linked}
        kept = [await self._contents.keep(digest) for digest in outline.blobs if digest in missing - outline.held]
        new = await self._new([blob for blob in kept if blob.digest not in self._counted])
        self._counted |= {blob.digest for blob in kept}
        if not self._wish.dry_run:
            await side_by_side(lambda blob: self._stash.link(called.name, blob), kept)
            await side_by_side(lambda digest: self._mount(called.name, digest), outline.held & missing)
            await self._sheets(called, outline)
        result = Imported(str(image), str(called), top.digest, outline.size, new, outline.left_out)
        self._published.setdefault(top.digest, {})[called.name] = result
        return result

    @translated
    async def _tagged(self, called: Called, digest: Digest) -> bool:
        """Gives one more tag to what this import has published; False where that is gone again."""
        if self._wish.dry_run or called.tag is None:
            return True
        entry = await first_entry(self._bucket, called.name, digest)
        if entry is not None:
            await write(self._bucket, called.name, called.tag, entry, self._wish.by)
        return entry is not None

    async def _outlined(self, top: Descriptor, name: Name | None) -> Outline:
        """What an image consists of; where it is in the archive with all of it, that is the same under its next name."""
        if self._last is not None and self._last[0] == top:
            return self._last[1]
        outline = await outlined(self._contents, top, self._wish.platforms, self._holder(name))
        self._last = None if outline.held or outline.left_out else (top, outline)
        return outline

    async def _new(self, kept: Sequence[Kept]) -> int:
        """Bytes that no repository held which may be looked into: of others, nobody is told what is in them."""
        known = await side_by_side(lambda blob: self._mountable(None, blob.digest), kept)
        return sum(blob.size for blob, here in zip(kept, known, strict=True) if not here)

    @translated
    async def _demand_still(self, name: Name, tag: Tag, digest: Digest) -> None:
        """Raises Denied for a tag of an upstream that never moves, and would. A new one is as welcome as from the upstream."""
        known = await read_living(self._bucket, name, tag)
        if known is not None and known[0].digest != digest:
            raise Denied("the tag is immutable", detail={"tag": tag})

    async def _sheets(self, called: Called, outline: Outline) -> None:
        """The manifests, the image's own and its tag last."""
        manifests = Manifests(self._bucket, called.name)
        for sheet in outline.sheets:
            data = await self._contents.manifest(sheet.digest)
            assert data is not None  # noqa: S101  (it was there when it was outlined)
            tagged: Sequence[Tag] = [called.tag] if called.tag and sheet is outline.sheets[-1] else ()
            await manifests.put(
                data, sheet.media_type, digest=sheet.digest, tagged=tagged, by=self._wish.by, sparse=sheet.sparse
            )

    async def _mount(self, name: Name, digest: Digest) -> None:
        if not await self._stash.mount(name, digest, self._wish.may_pull):
            raise Unavailable("what the registry held is gone: begin the import again")

    def _holder(self, name: Name | None) -> Held:
        async def held(digest: Digest) -> bool:
            if name is not None and await self._linked(name, digest):
                return True
            return await self._mountable(name, digest)

        return held

    @translated
    async def _linked(self, name: Name, digest: Digest) -> bool:
        return await first_linked(self._bucket, name, digest) is not None

    @translated
    async def _mountable(self, name: Name | None, digest: Digest) -> bool:
        sources = [source for source in await holding(self._bucket, digest) if self._wish.may_pull(source)]
        return bool(sources) and await usable(self._bucket, name or sources[0], digest, sources) is not None


def _said(exc: RegistryError) -> str:
    """One line; some errors name in their detail what they are about."""
    detail = exc.detail
    about = next(iter(detail.values()), None) if isinstance(detail, dict) else None
    return f"{exc.message}: {shown(about)}" if isinstance(about, str) and about else exc.message
