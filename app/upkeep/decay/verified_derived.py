"""Derived keys: those that are missing are said, and written; those in excess are only said."""

from typing import Any, Final

from app.oci.digests import Digest
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy
from app.upkeep.decay.findings import Finding
from app.upkeep.decay.run import Run
from storage import NotFound

_LOOSE: Final = """
SELECT holder.* FROM holder LEFT JOIN link USING (digest, uuid, size, name) WHERE link.name IS NULL
"""


class VerifiedDerived:
    """The derived keys of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self) -> None:
        """Looks at the catalog and the holders, and mends them. Raises StorageError."""
        run = self._run
        async for names in run.derived.uncatalogued():
            for name in names:
                mended = run.repair and await run.derived.catalogue(name)
                key = keys.catalog(name)
                run.tell(
                    Finding(
                        "catalog-missing",
                        "the catalog does not list it",
                        name,
                        key=key,
                        mended="written" if mended else None,
                    )
                )
        async for links in run.derived.unheld():
            for link in links:
                mended = run.repair and await run.derived.hold(link)
                key = keys.holder(link.digest, link.copy, link.name)
                why = "its link is not among those of its digest"
                run.tell(
                    Finding(
                        "holder-missing", why, link.name, link.digest, key=key, mended="written" if mended else None
                    )
                )

    async def check_loose(self) -> None:
        """Looks for holders without a link; only where everything was listed. Raises StorageError."""
        await self._run.each("holders", 0, _LOOSE, self._check_loose)

    async def _check_loose(self, row: Any) -> None:
        digest, copy, name = Digest(row[0]), Copy(row[1], row[2]), Name(row[3])
        key, run = keys.holder(digest, copy, name), self._run
        try:
            found = await run.bucket.driver.stat(key)
        except NotFound:
            return
        if found.modified > run.now() - run.bucket.lifetimes.intent:
            return  # its link may be on its way
        if not await run.stands(keys.link(name, digest, copy)):
            run.tell(Finding("holder-loose", "it has no link", name, digest, key=key))
