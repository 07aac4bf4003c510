"""A registry that is copied from: what it has, asked for patiently, and nothing believed that can be checked."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

from app.oci.descriptors import Descriptor, parse_descriptor
from app.oci.digests import Digest, algorithm_of, digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import MAX_BYTES, OCI_INDEX, Manifest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.breaker import Breaker
from app.proxy.client import Reply, UpstreamClient
from app.proxy.credentials.login import Credentials
from app.proxy.documents import BYTES, parsed_manifest, said_digest
from app.proxy.errors import Failing, Missing, Portal, RateLimited, Unreachable, UpstreamError
from app.proxy.lane import Lane, Turn
from app.proxy.manifests import ACCEPT
from app.proxy.rates import RateLimit
from app.proxy.settings import UpstreamSettings
from app.proxy.upstreams import Report
from app.transfer.copying.pages import documents

T = TypeVar("T")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 120.0
"""Seconds that a registry may ask us to wait; above, the image fails and the run goes on."""
_REFERRERS: Final = 20
"""Pages of referrers of one manifest that are read."""
_THRESHOLD: Final = 5
_BREAK: Final = 2.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest, byte for byte; `content_type` is the one to publish it under."""

    data: bytes
    content_type: str | None
    manifest: Manifest


class Source:
    """One registry, named by its host. Everything raises UpstreamError once `retries` repetitions did not help."""

    def __init__(self, settings: UpstreamSettings, credentials: Credentials, report: Report, *, retries: int) -> None:
        self.host = settings.name
        self.moved = 0
        """Bytes of blobs that came from it."""
        self._breaker = Breaker(settings.name, threshold=_THRESHOLD, first_pause=_BREAK, longest_pause=5 * _BREAK)
        self.client = UpstreamClient(settings, credentials, self._breaker, RateLimit(0), report)
        self._lane = Lane(settings.connections, settings.bandwidth)
        self._retries = retries
        self._has_referrers = True

    async def watch(self) -> None:
        """Runs for ever: notices when the registry is back after an outage."""
        await self._breaker.watch(self.client.ping)

    async def digest(self, repository: Name, tag: Tag) -> Digest:
        """What a tag names now. Raises Missing."""
        return await self._patient(lambda: self._digest(repository, tag))

    async def manifest(self, repository: Name, digest: Digest) -> Fetched:
        """A manifest of that digest. Raises Missing, ManifestInvalid, and Portal for other bytes."""
        reply = await self._patient(lambda: self._manifest(repository, digest))
        if digest_of(reply.body, algorithm_of(digest)) != digest:
            raise Portal(f"{self.host} answers with something that is not this manifest")
        manifest, content_type = await parsed_manifest(reply, certain=True)
        return Fetched(reply.body, content_type, manifest)

    async def referrers(self, repository: Name, subject: Digest) -> list[Digest]:
        """What refers to a manifest, by the API, else by the tag that stands in for it (specification, end-12)."""
        tail = f"referrers/{subject}"
        if self._has_referrers:
            try:
                return await self._listed_referrers(repository, tail)
            except Missing:
                self._has_referrers = False
        tag = Tag(subject.replace(":", "-", 1))
        try:
            fetched = await self.manifest(repository, await self.digest(repository, tag))
        except Missing:
            return []
        return [child.digest for child in fetched.manifest.children]

    async def blob(self, repository: Name, blob: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` on, continued by Range wherever they break off. Their digest is not checked here."""
        at, tries = start, 0
        while at < blob.size:
            before = at
            try:
                async with aclosing(self._attempt(repository, blob, at)) as chunks:
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
            except (Unreachable, Failing, RateLimited) as exc:
                tries = 1 if at > before else tries + 1
                await self._rest(exc, tries)

    def names(self) -> AsyncIterator[str]:
        """Every name of the catalog as it stands there, a page at a time; not checked."""
        return self._names()

    def tags(self, repository: Name) -> AsyncIterator[str]:
        """Every tag as it stands in the list, a page at a time; not checked. Raises Missing."""
        return self._pages(repository, "tags/list", "tags")

    async def _names(self) -> AsyncIterator[str]:
        async for name in self._pages(None, "_catalog", "repositories"):
            ours = self.client.listed(name)
            if ours is not None:
                yield ours

    async def _pages(self, repository: Name | None, tail: str, field: str) -> AsyncIterator[str]:
        async def ask(query: dict[str, str]) -> Reply:
            return await self._patient(lambda: self.client.get(repository or "", tail, query=query, limit=BYTES))

        async for document in documents(self.host, ask):
            listed = document.get(field)
            for item in listed if isinstance(listed, list) else ():
                if isinstance(item, str):
                    yield item

    async def _listed_referrers(self, repository: Name, tail: str) -> list[Digest]:
        async def ask(query: dict[str, str]) -> Reply:
            return await self._patient(
                lambda: self.client.get(repository, tail, accept=(OCI_INDEX,), query=query, limit=BYTES)
            )

        found: dict[Digest, None] = {}
        async for document in documents(self.host, ask, _REFERRERS):
            listed = document.get("manifests")
            for item in listed if isinstance(listed, list) else ():
                with suppress(ManifestInvalid):
                    found[parse_descriptor(item, "manifests").digest] = None
        return list(found)

    async def _digest(self, repository: Name, tag: Tag) -> Digest:
        tail = f"manifests/{tag}"
        try:
            reply = await self.client.head(repository, tail, ACCEPT)
        except Failing:  # some do not answer HEAD at all
            reply = await self.client.get(repository, tail, accept=ACCEPT, limit=MAX_BYTES)
        said = said_digest(reply)
        if said is None and not reply.body:
            reply = await self.client.get(repository, tail, accept=ACCEPT, limit=MAX_BYTES)
        return said or digest_of(reply.body)

    async def _manifest(self, repository: Name, digest: Digest) -> Reply:
        return await self.client.get(repository, f"manifests/{digest}", accept=ACCEPT, limit=MAX_BYTES)

    async def _attempt(self, repository: Name, blob: Descriptor, at: int) -> AsyncGenerator[bytes, None]:
        """One answer, from byte `at` on; ends early only by raising Unreachable."""
        turn = Turn(urgent=True)
        async with (
            self._lane.slot(turn),
            self.client.stream(repository, f"blobs/{blob.digest}", start=at) as stream,
        ):
            if stream.size not in (None, blob.size):
                raise Portal(f"{self.host} answers with {stream.size} bytes for a blob of {blob.size}")
            skip = at - stream.start  # a registry that ignores Range begins anew
            async for chunk in stream.chunks():
                await self._lane.pass_(len(chunk), turn)
                self.moved += len(chunk)
                fresh = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                at += len(fresh)
                if at > blob.size:
                    raise Portal(f"{self.host} sends more bytes than the manifest says")
                if fresh:
                    yield fresh
        if at < blob.size:
            raise Unreachable(f"{self.host} ended a blob {blob.size - at} bytes early")

    async def _patient(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` brings, begun anew after outages that may pass."""
        for tries in count(1):
            try:
                return await work()
            except (Unreachable, Failing, RateLimited) as exc:
                await self._rest(exc, tries)
        raise AssertionError

    async def _rest(self, failure: UpstreamError, tries: int) -> None:
        """Waits before the next try, or raises the failure where there is none."""
        pause = max(_FIRST_PAUSE * 2 ** (tries - 1), failure.retry_after or 0.0)
        if tries > self._retries or pause > _LONGEST_PAUSE:
            raise failure
        await asyncio.sleep(pause)


@asynccontextmanager
async def open_source(
    settings: UpstreamSettings, credentials: Credentials, report: Report, *, retries: int
) -> AsyncIterator[Source]:
    """The registry, once it has answered. Raises StartError, and UpstreamError where it does not answer as one."""
    source = Source(settings, credentials, report, retries=retries)
    watching: asyncio.Task[Any] | None = None
    try:
        await source.client.start()
        await source.client.ping()
        watching = asyncio.create_task(source.watch())
        yield source
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))
        await source.client.close()
