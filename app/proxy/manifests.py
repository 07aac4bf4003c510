"""Manifests of a cached repository: by digest fetched once, by tag checked when the last check is too old."""

import asyncio
import time
from fnmatch import fnmatchcase
from typing import Any, Final

from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid, ManifestUnknown, Unsupported
from app.oci.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.cache import Cache
from app.proxy.client import Reply
from app.proxy.documents import parsed_manifest, said_digest
from app.proxy.errors import Failing, Missing, Portal, Unreachable, UpstreamError
from app.proxy.failures import meaning
from app.proxy.upstreams import Upstream
from app.proxy.whole import is_whole
from app.registry import tags
from app.registry.failures import translated
from app.registry.keys import Entry
from app.registry.manifests import Manifests, Published, parsed
from app.registry.notes import Notes
from app.registry.stored import first_entry, read_manifest
from storage import NotFound

ACCEPT: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*")
_OUTAGES: Final = frozenset({"network", "server_error", "rate_limited", "captive_portal"})
"""Failures behind which the upstream will not give blobs either."""
_UNCHANGED: Final = 304
_CHECK: Final = 5.0
"""Seconds after which a tag that we know is answered unchecked; the check goes on."""


class ProxiedManifests(Manifests):
    """The manifests of one cached repository. `careful`: the client cannot turn elsewhere once it has a manifest."""

    def __init__(self, cache: Cache, name: Name, upstream: Upstream, notes: Notes, *, careful: bool) -> None:
        super().__init__(cache.bucket, name)
        self._cache = cache
        self._upstream = upstream
        self._notes = notes
        self._careful = careful
        self._cut_off = False
        self._answered = False

    async def stat(self, digest: Digest) -> Entry:
        """As the registry's; the upstream is asked for what is not here. Raises ManifestUnknown, Denied, Unavailable."""
        try:
            entry = await super().stat(digest)
        except ManifestUnknown:
            self._count(hit=False)
            await self._fetch(digest)
            entry = await super().stat(digest)
        else:
            self._count(hit=True)
        await self._demand_whole(entry)
        return entry

    async def get(self, digest: Digest) -> tuple[Entry, bytes]:
        """As the registry's; the upstream is never asked again for what is here. Raises as `stat`."""
        try:
            entry, data = await super().get(digest)
        except ManifestUnknown:
            self._count(hit=False)
            await self._fetch(digest)
            entry, data = await super().get(digest)
        else:
            self._count(hit=True)
        await self._demand_whole(entry)
        await self._pulled(entry, data)
        return entry, data

    async def stat_tag(self, tag: Tag) -> Entry:
        """What the tag names now, as far as that can be known: `notes` says how old it is. Raises as `stat`."""
        entry = await self._current(tag)
        await self._demand_whole(entry)
        return entry

    @translated
    async def get_tag(self, tag: Tag) -> tuple[Entry, bytes]:
        """As `stat_tag`, with the bytes."""
        entry = await self.stat_tag(tag)
        try:
            data = await read_manifest(self._bucket, self._name, entry)
        except NotFound as exc:
            raise ManifestUnknown(detail={"tag": tag}) from exc
        await self._pulled(entry, data)
        return entry, data

    async def put(self, data: bytes, content_type: str | None, **_: Any) -> Published:
        """Refused: an upstream's name space is filled by the upstream."""
        raise Unsupported(f"nothing can be pushed into the name space of {self._upstream.name}")

    async def refresh(self, tag: Tag) -> Entry:
        """Asks the upstream now, whatever is known. Raises as `stat`, also where the tag is only known from before."""
        known = await tags.read_living(self._bucket, self._name, tag)
        try:
            return await self._check(tag, known[0] if known else None)
        except UpstreamError as exc:
            raise meaning(exc, ManifestUnknown(detail={"tag": tag})) from exc

    @translated
    async def _current(self, tag: Tag) -> Entry:
        written = await tags.read_living(self._bucket, self._name, tag)
        known = written[0] if written else None
        if written is not None:
            self._notes.age = max(0.0, time.time() - written[1])
            if self._is_fixed(tag) or self._notes.age < self._upstream.settings.tag_ttl:
                self._count(hit=True)
                return written[0]
        self._count(hit=False)
        if self._upstream.misses.knows((self._name, tag)):
            return self._stale(tag, known, Missing(f"{self._upstream.name} does not have that"))
        try:
            self._upstream.admit()  # before joining a check that waits for an answer since before the breaker opened
            entry = await (self._check(tag, None) if known is None else self._check_soon(tag, known))
        except UpstreamError as exc:
            if isinstance(exc, Missing):
                self._upstream.misses.note((self._name, tag))
            return self._stale(tag, known, exc)
        self._notes.age, self._answered = 0.0, True
        return entry

    def _is_fixed(self, tag: Tag) -> bool:
        """Whether the tag never moves: because of what the upstream promises, or because it may not move here."""
        patterns = self._bucket.settings.immutable_tags
        here = any(fnmatchcase(f"{self._name}:{tag}", pattern) for pattern in patterns)
        return here or self._upstream.immutable(self._name, tag)

    def _stale(self, tag: Tag, known: Entry | None, failure: UpstreamError) -> Entry:
        """The last known manifest, where the policy allows that for this failure and this age."""
        policy, age = self._upstream.settings.stale, self._notes.age or 0.0
        limit = policy.missing_for + self._upstream.settings.tag_ttl if isinstance(failure, Missing) else policy.max_age
        if known is None or failure.kind not in policy.on or (limit is not None and age > limit):
            self._notes.age = None
            raise meaning(failure, ManifestUnknown(detail={"tag": tag})) from failure
        self._notes.warning = f"{failure.reason}; this was checked {round(age)} s ago"
        self._cut_off = failure.kind in _OUTAGES
        self._upstream.metrics.stale(self._upstream.name, failure.kind)
        return known

    async def _check_soon(self, tag: Tag, known: Entry) -> Entry:
        """As `_check`, for a client that need not wait long. Raises UpstreamError."""
        key, slow = (self._name, tag), Unreachable(f"{self._upstream.name} is slow to answer")
        if self._cache.hanging.knows(key):
            raise slow
        try:
            async with asyncio.timeout(_CHECK):
                return await self._check(tag, known)
        except TimeoutError:
            self._cache.hanging.note(key)
            self._upstream.slow(slow)
            raise slow from None

    async def _check(self, tag: Tag, known: Entry | None) -> Entry:
        """Asks for the tag, once for all who want to know. Raises UpstreamError."""
        entry: Entry = await self._cache.flights.join((self._name, tag), lambda: self._resolve(tag, known))
        return entry

    async def _resolve(self, tag: Tag, known: Entry | None) -> Entry:
        try:
            entry = await self._look(tag, known)
            await tags.write(self._bucket, self._name, tag, entry, writer(self._upstream))
        finally:
            self._cache.hanging.forget((self._name, tag))
        self._upstream.misses.forget((self._name, tag))
        return entry

    async def _look(self, tag: Tag, known: Entry | None) -> Entry:
        """The manifest that the tag names upstream, which is here from then on."""
        found = await self._upstream.ask(self._name, lambda source, name: _head(source, name, tag)) or (
            await self._get(tag, known)
        )
        if isinstance(found, Reply):
            return known if known is not None and found.status == _UNCHANGED else await self._store(found, None)
        if known is not None and known.digest == found:
            return known
        try:
            return await first_entry(self._bucket, self._name, found) or await self._once(found)
        except Missing:  # the tag has moved since, or HEAD named something else
            return await self._store(await self._get(tag), None)

    async def _fetch(self, digest: Digest) -> None:
        """Brings a manifest here. Raises ManifestUnknown, Denied, Unavailable."""
        unknown = ManifestUnknown(detail={"digest": digest})
        if self._upstream.misses.knows((self._name, digest)):
            raise unknown
        try:
            await self._once(digest)
            self._answered = True
        except UpstreamError as exc:
            if isinstance(exc, Missing):
                self._upstream.misses.note((self._name, digest))
            raise meaning(exc, unknown) from exc

    async def _once(self, digest: Digest) -> Entry:
        """Brings a manifest here, once for all who want it. Raises UpstreamError."""
        entry: Entry = await self._cache.flights.join((self._name, digest), lambda: self._bring(digest))
        return entry

    async def _bring(self, digest: Digest) -> Entry:
        return await self._store(await self._get(digest), digest)

    async def _get(self, reference: str, known: Entry | None = None) -> Reply:
        """The manifest, or a 304 where it is the one that is known. Raises UpstreamError."""
        etag = None if known is None else f'"{known.digest}"'

        async def get(source: Upstream, name: str) -> Reply:
            reply = await source.client.get(name, f"manifests/{reference}", accept=ACCEPT, etag=etag)
            source.metrics.pulled(source.name, "manifest", len(reply.body))
            return reply

        return await self._upstream.ask(self._name, get)

    async def _store(self, reply: Reply, digest: Digest | None) -> Entry:
        """Keeps a manifest, byte for byte, once it is known to be what was asked for. Raises Portal, RegistryError."""
        said = f"{self._upstream.name} answers with something that is not this manifest"
        expected = digest or said_digest(reply)
        actual = digest_of(reply.body, algorithm_of(expected)) if expected else digest_of(reply.body)
        if expected not in (None, actual):
            raise Portal(said)
        try:
            manifest, content_type = await parsed_manifest(reply, certain=expected is not None)
        except ManifestInvalid as exc:
            raise Portal(f"{said}: {exc.message}") from exc
        await super().put(reply.body, content_type, digest=actual, tagged=(), by=None, sparse=True)
        self._upstream.misses.forget((self._name, actual))
        self._cache.learned.drop((self._name, actual))  # if it was here before, its blobs may have gone with it
        self._cache.pulls.note(self._name, actual)
        return await first_entry(self._bucket, self._name, actual) or Entry(
            actual, "", manifest.media_type, len(reply.body)
        )

    async def _pulled(self, entry: Entry, data: bytes) -> None:
        """A client has a manifest: note the use, and fetch what it will ask for next."""
        self._upstream.metrics.pushed(self._upstream.name, "manifest", entry.size)
        self._cache.pulls.note(self._name, entry.digest)
        if self._cache.learned.get((self._name, entry.digest)):
            return
        try:
            manifest = await parsed(data, entry.media_type)
        except ManifestInvalid:
            return
        self._cache.pulled(self._upstream, self._name, entry.digest, manifest, data)

    async def _demand_whole(self, entry: Entry) -> None:
        """A client without a second choice gets whole images only, unless the upstream answers now for the rest."""
        alive = self._upstream.reachable and not self._cut_off
        if not self._careful or (alive and self._answered) or await is_whole(self._bucket, self._name, entry):
            return
        if not (alive and await self._upstream.answers()):
            self._notes.age = self._notes.warning = None
            failure = Unreachable(f"the image is not here in whole, and {self._upstream.name} cannot be reached")
            raise meaning(failure, ManifestUnknown()) from None

    def _count(self, *, hit: bool) -> None:
        self._upstream.metrics.asked(self._upstream.name, "manifest", hit=hit)


def writer(upstream: Upstream) -> str:
    """Who wrote the tags of this upstream's repositories: no user, for their names hold no colon."""
    return f"upstream:{upstream.name}"


async def _head(source: Upstream, name: str, tag: Tag) -> Digest | Reply | None:
    """The digest that a tag names upstream, by HEAD, or the manifest where GET was asked instead; None: ask GET."""
    try:
        reply = await source.client.head(name, f"manifests/{tag}", ACCEPT)
    except Failing:
        return None  # some do not answer HEAD at all
    return reply if reply.body else said_digest(reply)
