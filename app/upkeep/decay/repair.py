"""Mends blobs: from another copy of the same digest, in whichever repository it is, else from the upstream."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from app.oci.digests import Digest
from app.oci.errors import RegistryError
from app.oci.names import Name
from app.proxy.errors import UpstreamError
from app.proxy.proxy import Proxy
from app.proxy.spool import Origin
from app.proxy.upstreams import Upstream
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Copy
from app.registry.listing import every
from app.registry.publishing import bind, intent, linked, tombstoned
from app.upkeep.decay.decay import Hashing, Verdict
from app.upkeep.decay.looking import stands
from app.upkeep.decay.placing import holder
from app.upkeep.decay.quarantine import Quarantine


@dataclass(slots=True)
class Held:
    """Who links which copies of one digest, and what they are worth."""

    names: dict[Copy, set[Name]] = field(default_factory=dict)
    verdicts: dict[Copy, Verdict] = field(default_factory=dict)

    def copies(self, *states: str) -> list[Copy]:
        """The copies of which one of these things is true."""
        return [copy for copy, verdict in self.verdicts.items() if verdict.state in states]

    def holding(self, copies: Iterable[Copy]) -> set[Name]:
        """The repositories that link one of them."""
        return {name for copy in copies for name in self.names[copy]}


class BlobRepair:
    """Mends one digest at a time, in all repositories: they share copies."""

    def __init__(self, bucket: Bucket, proxy: Proxy | None, hashing: Hashing) -> None:
        self.quarantine = Quarantine(bucket)
        self._bucket = bucket
        self._proxy = proxy
        self._hashing = hashing

    async def mend(
        self,
        digest: Digest,
        wanting: Collection[Name],
        bad: Collection[tuple[Copy, Name]] = (),
        *,
        unlink: bool = True,
        force: bool = False,
    ) -> dict[Name, str]:
        """Gives a whole copy to `wanting` and to all that link a bad one; says how each got it.

        With `unlink`, links to bad copies are taken away; with `force` too, copies that the store does not give count as
        gone. `bad` are links that are known besides the derived keys. Raises StorageError; what goes wrong upstream only
        leaves a repository out of the answer.
        """
        held = await self._survey(digest, bad)
        whole = held.copies("whole")
        others = [copy for copy in held.names if copy not in whole]
        needy = sorted((set(wanting) | held.holding(others)) - held.holding(whole))
        mended = dict.fromkeys(held.holding(whole), "another copy is linked there")
        for name in needy:
            source = await self._link(name, digest, whole, held)
            if source is not None:
                mended[name] = f"linked to a copy of {source}"
        if unlink:
            await self._unlink(digest, held, mended, force=force)
            for name in needy:
                upstream = self.upstream_of(name)
                if name not in mended and upstream is not None and await self._fetch(upstream, name, digest, others):
                    mended[name] = f"fetched from {upstream.name}"
        return mended

    async def _unlink(self, digest: Digest, held: Held, mended: Collection[Name], *, force: bool) -> None:
        """Takes away links to bad copies; to those that the store does not give, only where something else will do."""
        dead = held.copies("garbled", "gone", *(["unreadable"] if force else []))
        for copy in dead:
            verdict = held.verdicts[copy]
            await self.quarantine.take(digest, copy, held.names[copy], verdict.state, verdict.why)
        for copy in held.copies("unreadable"):
            names = {name for name in held.names[copy] if name in mended or self.upstream_of(name) is not None}
            if copy not in dead and names:
                await self.quarantine.retire(digest, copy, names)

    def upstream_of(self, name: Name) -> Upstream | None:
        """The upstream that fills a repository."""
        upstreams = self._proxy.upstreams if self._proxy is not None else ()
        return next((upstream for upstream in upstreams if name.startswith(f"{upstream.prefix}/")), None)

    async def _survey(self, digest: Digest, bad: Collection[tuple[Copy, Name]]) -> Held:
        """Who links the digest, by the derived keys and `bad`; and what each copy is worth."""
        held = Held()
        for copy, name in bad:
            held.names.setdefault(copy, set()).add(name)
        async for entry in every(self._bucket.driver, keys.holders(digest)):
            found = holder(entry.key)
            if found is not None and await stands(self._bucket, keys.link(found.name, digest, found.copy)):
                held.names.setdefault(found.copy, set()).add(found.name)
        for copy in held.names:
            held.verdicts[copy] = await self._hashing.verdict(digest, copy)
        return held

    async def _link(self, name: Name, digest: Digest, whole: Iterable[Copy], held: Held) -> Name | None:
        """Links a whole copy, as a publisher (app/registry/publishing.py); returns the repository that had it."""
        for copy in whole:
            for source in sorted(held.names[copy]):
                fence = self._bucket.driver.fence()
                if copy not in await linked(self._bucket, source, digest):
                    continue
                async with intent(self._bucket, [copy]):
                    if not await tombstoned(self._bucket, [copy], {source, name}):
                        await bind(self._bucket, name, digest, copy, fence)
                        return source
        return None

    async def _fetch(self, upstream: Upstream, name: Name, digest: Digest, bad: Collection[Copy]) -> bool:
        """Whether the upstream gave the blob: a link to a bad copy, which a publication may have kept, is no blob."""
        assert self._proxy is not None  # noqa: S101  (it has this upstream)
        try:
            await self._proxy.cache.transfers.bring(upstream, Origin(digest, None, upstream.name, name))
        except (UpstreamError, RegistryError):
            return False
        return any(copy not in bad for copy in await linked(self._bucket, name, digest))
