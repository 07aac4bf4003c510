"""Manifests: each is read; it must hash to its digest and be one, and what it names must be there."""

from typing import Any, Final

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import MAX_BYTES, Manifest, parse_manifest
from app.oci.names import Name
from app.registry import keys
from app.registry.hashing import digest_of_stream
from app.registry.keys import Entry
from app.registry.off_loop import off_loop
from app.registry.publishing import first_linked
from app.registry.stored import first_entry
from app.upkeep.decay.findings import Finding
from app.upkeep.decay.inventory import entry_in
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.decay.run import Run
from storage import NotFound

_SPARSE: Final = "SELECT count(*) FROM repository WHERE name = ? AND cached"
_LOOSE: Final = """
SELECT referrer.* FROM referrer LEFT JOIN manifest USING (name, digest, nonce) WHERE manifest.name IS NULL
"""


class VerifiedManifests:
    """The manifests of one run. `check` them, then `settle` what they lack."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self) -> int:
        """Looks at every manifest; returns how many there are. Raises StorageError."""
        total = await self._run.inventory.count("SELECT count(*) FROM manifest")
        found = await self._run.each("manifests", total, "SELECT * FROM manifest", self._check)
        await self._run.each("referrers", 0, _LOOSE, self._check_loose)
        return found

    async def settle(self) -> None:
        """Says which blobs and children are missing, and mends that. Raises StorageError."""
        await self._run.each("mending", 0, "SELECT * FROM missing", self._settle)

    async def _check(self, row: Any) -> None:
        name, entry = entry_in(row)
        data = await self._right(name, entry)
        if data is None:
            return
        try:
            manifest = await off_loop(len(data), parse_manifest, data, entry.media_type)
        except ManifestInvalid as exc:
            self._run.tell(Finding("manifest-invalid", exc.message, name, entry.digest, key=keys.manifest(name, entry)))
            return
        await self._check_subject(name, entry, manifest)
        await self._check_needs(name, entry, manifest)

    async def _right(self, name: Name, entry: Entry) -> bytes | None:
        """The bytes of a manifest that hash to its digest; None where there is nothing more to look at."""
        key, run = keys.manifest(name, entry), self._run
        try:
            if entry.size > MAX_BYTES:
                await self._check_large(name, entry)
                return None
            data = await self._read(key)
            if await off_loop(len(data), digest_of, data, algorithm_of(entry.digest)) == entry.digest:
                return data
            again = await self._read(key)
        except NotFound:
            return None
        except Withheld as exc:
            mended = await run.manifests.replace(name, entry, unlink=run.force) if run.repair else None
            why = f"the store does not give it: {exc}"
            run.tell(Finding("manifest-unreadable", why, name, entry.digest, key=key, mended=mended))
            return None
        if digest_of(again, algorithm_of(entry.digest)) == entry.digest:
            return again
        mended = await run.manifests.replace(name, entry, unlink=True) if run.repair else None
        why = f"its {len(again)} bytes hash to {digest_of(again, algorithm_of(entry.digest))}"
        run.tell(Finding("manifest-garbled", why, name, entry.digest, key=key, mended=mended))
        return None

    async def _read(self, key: str) -> bytes:
        """Raises NotFound, Withheld."""
        return (await asked(self._run.bucket, lambda: self._run.bucket.driver.get(key))).data

    async def _check_large(self, name: Name, entry: Entry) -> None:
        key = keys.manifest(name, entry)
        actual = await asked(self._run.bucket, lambda: self._digest(key, algorithm_of(entry.digest)))
        kind, why = "manifest-too-large", f"it has {entry.size} bytes; {MAX_BYTES} are the most"
        if actual != entry.digest:
            kind, why = "manifest-garbled", f"its {entry.size} bytes hash to {actual}"
        mended = None
        if kind == "manifest-garbled" and self._run.repair:
            mended = await self._run.manifests.replace(name, entry, unlink=True)
        self._run.tell(Finding(kind, why, name, entry.digest, key=key, mended=mended))

    async def _digest(self, key: str, algorithm: str) -> Digest:
        async with self._run.bucket.driver.open(key) as reader:
            return await digest_of_stream(reader, algorithm)

    async def _check_subject(self, name: Name, entry: Entry, manifest: Manifest) -> None:
        if manifest.subject is None:
            return
        subject, run = manifest.subject.digest, self._run
        wrong = await run.derived.refers(name, subject, entry)
        if wrong is None or not await run.stands(keys.manifest(name, entry)):
            return
        mended = run.repair and await run.derived.refer(name, manifest, entry)
        why = f"the list of what refers to {subject} does not name it"
        run.tell(Finding(f"referrer-{wrong}", why, name, entry.digest, mended="written" if mended else None))

    async def _check_needs(self, name: Name, entry: Entry, manifest: Manifest) -> None:
        inventory = self._run.inventory
        blobs = [blob.digest for blob in manifest.blobs]
        children = [child.digest for child in manifest.children]
        lacks_blobs, lacks_children = await inventory.lacks(name, blobs, children)
        if not (lacks_blobs or lacks_children) or await self._is_sparse(name):
            return
        for digest in lacks_blobs:
            await inventory.note_missing(name, digest, "blob-missing", entry.digest)
        for digest in lacks_children:
            await inventory.note_missing(name, digest, "child-missing", entry.digest)

    async def _is_sparse(self, name: Name) -> bool:
        """Whether manifests may name what is not here."""
        run = self._run
        if run.bucket.settings.allow_sparse or run.blobs.upstream_of(name) is not None:
            return True
        return await run.inventory.count(_SPARSE, name) > 0

    async def _settle(self, row: Any) -> None:
        name, digest, kind, namer = Name(row[0]), Digest(row[1]), row[2], Digest(row[3])
        run = self._run
        if await first_linked(run.bucket, name, digest) is not None:
            return
        if kind == "child-missing" and await first_entry(run.bucket, name, digest) is not None:
            return
        if await first_entry(run.bucket, name, namer) is None:
            return  # deleted since it was read
        if kind == "child-missing" and await run.deleted(name):
            run.tell(Finding("child-deleted", f"the index {namer} names it", name, digest))
            return
        mended = await self._mend(name, digest, kind) if run.repair else None
        run.tell(Finding(kind, f"the manifest {namer} names it", name, digest, mended=mended))

    async def _mend(self, name: Name, digest: Digest, kind: str) -> str | None:
        if kind == "blob-missing":
            return (await self._run.blobs.mend(digest, [name], unlink=self._run.unlink, force=self._run.force)).get(
                name
            )
        return await self._run.manifests.publish(name, digest)

    async def _check_loose(self, row: Any) -> None:
        name, subject, digest, nonce = Name(row[0]), Digest(row[1]), Digest(row[2]), row[3]
        key, run = keys.referrer(name, subject, digest, nonce), self._run
        try:
            found = await run.bucket.driver.stat(key)
        except NotFound:
            return
        if found.modified > run.now() - run.bucket.lifetimes.intent:
            return  # its manifest may be on its way
        page = await run.bucket.driver.list(f"{keys.manifests(name, digest)}{nonce}.", limit=1)
        if not page.entries:
            run.tell(Finding("referrer-loose", "its manifest is not there", name, digest, key=key))
