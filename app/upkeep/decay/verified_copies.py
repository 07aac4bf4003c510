"""Copies of blobs: their sizes, and of a sample their bytes, each copy once however many links it has."""

from typing import Any, Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy
from app.upkeep.decay.decay import Hashing, Verdict
from app.upkeep.decay.findings import Finding
from app.upkeep.decay.run import Run

_DOUBTFUL: Final = """
SELECT DISTINCT link.uuid, link.digest, link.size FROM link LEFT JOIN bytes USING (uuid)
WHERE bytes.size IS NULL OR bytes.size != link.size
"""
_CHOSEN: Final = "FROM (SELECT DISTINCT uuid, digest, size FROM link) WHERE chosen(uuid)"
_COPIES: Final = "SELECT count(*) FROM (SELECT DISTINCT uuid, digest, size FROM link)"
_LINKING: Final = "SELECT name FROM link WHERE (uuid, digest, size) = (?, ?, ?)"
_BAD: Final = "SELECT uuid, size, name FROM broken JOIN link USING (digest, uuid, size) WHERE digest = ?"
_MANY: Final = 20
_SHARE: Final = 0.1


class VerifiedCopies:
    """The copies of one run. `check` and `hash` them, then `settle` what is wrong."""

    def __init__(self, run: Run, hashing: Hashing) -> None:
        self._run = run
        self._hashing = hashing
        self._size = 0

    async def check(self) -> int:
        """Compares sizes; returns how many copies are linked. Raises StorageError."""
        await self._run.each("sizes", 0, _DOUBTFUL, self._weigh)
        return await self._run.inventory.count(_COPIES)

    async def hash(self) -> int:
        """Hashes the copies that were chosen; returns how many there were. Raises StorageError."""
        self._size = await self._run.inventory.count(f"SELECT sum(size) {_CHOSEN}")
        self._run.progress("bytes", 0, self._size)
        return await self._run.each("copies", 0, f"SELECT * {_CHOSEN}", self._hash)

    async def refusal(self) -> str | None:
        """Why links should not be taken away: so much is broken that the store, not the content, is what needs mending."""
        broken = await self._run.inventory.count("SELECT count(*) FROM broken WHERE state != 'unreadable'")
        copies = await self._run.inventory.count(_COPIES)
        if broken <= max(_MANY, copies * _SHARE):
            return None
        return f"{broken} of {copies} copies are gone or garbled, which looks like a store that is restored in part"

    async def settle(self) -> None:
        """Says which links lead to bad bytes, and mends that. Raises StorageError."""
        async for page in self._run.inventory.pages("SELECT DISTINCT digest FROM broken"):
            for (digest,) in page:
                await self._settle(Digest(digest))

    async def release(self) -> None:
        """Forgets notes of copies whose bytes are right again, or are gone. Raises StorageError."""
        async for digest, copy in self._run.blobs.quarantine.noted():
            if (await self._hashing.verdict(digest, copy)).state in ("whole", "gone"):
                await self._run.blobs.quarantine.release(copy)

    async def _weigh(self, row: Any) -> None:
        copy, digest = Copy(row[0], row[2]), Digest(row[1])
        await self._judge(digest, copy, await self._hashing.weighed(copy))

    async def _hash(self, row: Any) -> None:
        copy, digest = Copy(row[0], row[2]), Digest(row[1])
        verdict = await self._hashing.verdict(digest, copy)
        await self._judge(digest, copy, verdict)
        self._run.progress("bytes", min(self._hashing.read, self._size), self._size)

    async def _judge(self, digest: Digest, copy: Copy, verdict: Verdict) -> None:
        """Remembers what is wrong, unless nothing links the copy any more."""
        if verdict.state == "whole":
            return
        for (name,) in await self._run.inventory.rows(_LINKING, copy.uuid, digest, copy.size):
            if await self._run.stands(keys.link(Name(name), digest, copy)):
                await self._run.inventory.note_broken(digest, copy, verdict.state, verdict.why)
                return

    async def _settle(self, digest: Digest) -> None:
        run = self._run
        bad = [(Copy(uuid, size), Name(name)) for uuid, size, name in await run.inventory.rows(_BAD, digest)]
        whys = await run.inventory.rows("SELECT uuid, state, why FROM broken WHERE digest = ?", digest)
        why = {uuid: (state, text) for uuid, state, text in whys}
        mended = await run.blobs.mend(digest, [], bad, unlink=run.unlink, force=run.force) if run.repair else {}
        for copy, name in bad:
            state, text = why[copy.uuid]
            run.tell(Finding(f"copy-{state}", text, name, digest, key=keys.data(copy.uuid), mended=mended.get(name)))
