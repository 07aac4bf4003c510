"""Tags that follow those of Distribution's layout, as long as nobody here moved or deleted them."""

from collections.abc import Collection

from app.oci.digests import Digest
from app.oci.errors import Denied
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys, tags
from app.registry.bucket import Bucket
from app.registry.stored import first_entry
from app.registry.tags import Written
from app.transfer.adoption.layout import Garbled, Kind, Layout, Link
from app.transfer.adoption.manifests import AdoptedManifests
from app.transfer.adoption.report import Report
from storage import NotFound

_PRUNED = "pruned"
"""Instead of a version: the tag was emptied by a takeover, not by somebody here."""


class AdoptedTags:
    """Each tag that was taken over says so, as its writer. What was taken over once is remembered beside it: a tag that
    is missing here and known was deleted here."""

    def __init__(self, bucket: Bucket, layout: Layout, manifests: AdoptedManifests, report: Report, by: str) -> None:
        self._bucket, self._layout, self._manifests, self._report, self._by = bucket, layout, manifests, report, by

    async def adopt(self, link: Link, known: Collection[str]) -> None:
        """Brings one tag; `known` are the versions of its link that were taken over. Raises StorageError, RegistryError.

        What is left as it is, and why, is noted in the report.
        """
        if link.version in known:
            return None
        name, tag = link.name, Tag(link.what)
        try:
            digest = await self._layout.target(link)
        except Garbled as why:
            return self._report.note("left", name, f"tag {tag}", str(why))
        except NotFound:
            return None  # deleted there since it was listed
        seen = await tags.look(self._bucket, name, tag)
        if not self._is_ours(seen, known):
            return self._keep(name, tag, digest, seen)
        if self._report.dry:
            return await self._predict(name, tag, digest, seen)
        return await self._follow(link, digest, seen, known)

    async def gone(self, name: Name, tag: Tag, known: Collection[str], *, prune: bool) -> None:
        """Notes that Distribution has no such tag any more; with `prune`, empties ours unless somebody here moved it."""
        seen = await tags.look(self._bucket, name, tag)
        if seen is None or seen.entry is None or seen.by != self._by or await self._layout.has_tag(name, tag):
            return
        if not prune or self._report.dry:
            self._report.note("gone", name, f"tag {tag}", "would be pruned" if prune else "stays here without --prune")
            return
        if await tags.replace(self._bucket, name, tag, None, None, seen):
            await self._remember(name, tag, _PRUNED, known)
            self._report.done["tags_pruned"] += 1

    def _is_ours(self, seen: Written | None, known: Collection[str]) -> bool:
        """Whether nobody here has a say in it: it was never here, or a takeover wrote it last."""
        if seen is None:
            return not known
        if seen.entry is None:
            return _PRUNED in known
        return seen.by == self._by

    def _keep(self, name: Name, tag: Tag, digest: Digest, seen: Written | None) -> None:
        if seen is None or seen.entry is None:
            self._report.note("kept", name, f"tag {tag}", "it was deleted here")
        elif seen.entry.digest != digest:
            self._report.note("kept", name, f"tag {tag}", f"it was pushed here; there it names {digest}")

    async def _follow(self, link: Link, digest: Digest, seen: Written | None, known: Collection[str]) -> None:
        name, tag = link.name, Tag(link.what)
        entry = await first_entry(self._bucket, name, digest)
        if entry is None and not await self._manifests.is_adopted(name, digest):
            await self._manifests.adopt_late(name, digest)
            entry = await first_entry(self._bucket, name, digest)
        if entry is None:
            return await self._note_dangling(name, tag, digest)
        if seen is None or seen.entry != entry:
            try:
                written = await tags.replace(self._bucket, name, tag, entry, self._by, seen)
            except Denied as denied:
                return self._report.note("kept", name, f"tag {tag}", denied.message)
            if written:
                self._count(seen, digest)
            elif not await self._is_so(name, tag, digest):
                return self._report.note("kept", name, f"tag {tag}", "it was pushed here a moment ago")
        return await self._remember(name, tag, link.version, known)

    async def _is_so(self, name: Name, tag: Tag, digest: Digest) -> bool:
        """Whether another takeover, at the same time, has done it."""
        now = await tags.look(self._bucket, name, tag)
        return now is not None and now.by == self._by and now.entry is not None and now.entry.digest == digest

    async def _predict(self, name: Name, tag: Tag, digest: Digest, seen: Written | None) -> None:
        if await first_entry(self._bucket, name, digest) is not None:
            self._count(seen, digest)
        elif await self._manifests.is_adopted(name, digest):
            await self._note_dangling(name, tag, digest)
        elif await self._manifests.is_to_come(name, digest):
            self._count(seen, digest)
        else:
            await self._note_dangling(name, tag, digest)

    def _count(self, seen: Written | None, digest: Digest) -> None:
        if seen is None or seen.entry is None:
            self._report.done["tags_written"] += 1
        elif seen.entry.digest != digest:
            self._report.done["tags_moved"] += 1

    async def _note_dangling(self, name: Name, tag: Tag, digest: Digest) -> None:
        if await self._manifests.is_adopted(name, digest):
            self._report.note("kept", name, f"tag {tag}", f"its manifest {digest} was deleted here")
        elif await self._layout.find(name, Kind.MANIFEST, digest) is None:
            self._report.note("gone", name, f"tag {tag}", f"its manifest {digest} was deleted there")
        else:
            self._report.note("left", name, f"tag {tag}", f"its manifest {digest} could not be taken over")

    async def _remember(self, name: Name, tag: Tag, version: str, known: Collection[str]) -> None:
        driver, root = self._bucket.driver, self._layout.root
        await driver.put(keys.adopted_tag(root, name, tag, version), b"")
        for old in known:
            if old != version:
                await driver.delete(keys.adopted_tag(root, name, tag, old))
