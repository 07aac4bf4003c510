"""Tags: each is read; what it says must make sense, and what it names must be there."""

from typing import Any

from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Entry
from app.upkeep.decay.findings import Finding
from app.upkeep.decay.inventory import tag_in
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.decay.run import Run
from app.upkeep.decay.saying import said
from storage import NotFound

_UPSTREAM = "upstream:"
"""How the writers of cached tags are called (app/proxy/manifests.py)."""
_KNOWN = "SELECT count(*) FROM manifest WHERE (name, digest, nonce, media_type) = (?, ?, ?, ?)"


class VerifiedTags:
    """The tags of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self) -> int:
        """Looks at every tag; returns how many there are. Raises StorageError."""
        total = await self._run.inventory.count("SELECT count(*) FROM tag")
        return await self._run.each("tags", total, "SELECT * FROM tag", self._check)

    async def _check(self, row: Any) -> None:
        name, tag = tag_in(row)
        try:
            body = await self._body(name, tag)
            if not body:
                return  # deleted since it was listed, or emptied by a policy
            entry, by = said(body)
        except Withheld as exc:
            await self._unreadable(name, tag, f"the store does not give it: {exc}")
            return
        except ValueError as exc:
            await self._unreadable(name, tag, str(exc))
            return
        if by.startswith(_UPSTREAM):
            await self._run.inventory.cached([name])
        elif not await self._run.inventory.count(_KNOWN, name, entry.digest, entry.nonce, entry.media_type):
            await self._dangles(name, tag, entry, body)

    async def _dangles(self, name: Name, tag: Tag, entry: Entry, body: bytes) -> None:
        run = self._run
        if await run.stands(keys.manifest(name, entry)) or await run.deleted(name):
            return  # in a repository where manifests were deleted, a tag may name one of them: no reader shows it
        if await self._body(name, tag) != body:
            return
        mended = await run.manifests.restore(name, entry) if run.repair else None
        why = f"there is no manifest {entry.digest} of that nonce"
        run.tell(Finding("tag-dangling", why, name, entry.digest, tag, mended=mended))

    async def _unreadable(self, name: Name, tag: Tag, why: str) -> None:
        mended = await self._run.manifests.empty_tag(name, tag) if self._run.repair else None
        self._run.tell(Finding("tag-unreadable", why, name, tag=tag, key=keys.tag(name, tag), mended=mended))

    async def _body(self, name: Name, tag: Tag) -> bytes:
        try:
            return (await asked(self._run.bucket, lambda: self._run.bucket.driver.get(keys.tag(name, tag)))).data
        except NotFound:
            return b""
