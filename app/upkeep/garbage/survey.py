"""One look at the whole bucket: every listing once, joined in a temporary database."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from app.oci.digests import Digest
from app.oci.errors import ManifestInvalid
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Entry
from app.registry.listing import every
from app.registry.needs import Unreadable
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.garbage.join import TABLES, Join
from app.upkeep.garbage.named import NamedDigests
from app.upkeep.scratch import Scratch
from storage import PAGE, Entry as Listed, NotFound

T = TypeVar("T")

Watch = Callable[[str, int, int], None]
"""Told what is done now, how much of it is done, and how much there is; 0 where that is not known."""

AT_ONCE: Final = 8
"""Manifests read side by side; those who push and pull meanwhile share the store with them."""
_SLICE: Final = 32
_UNREADABLE: Final = 100


class Survey:
    """Entered while it is used."""

    def __init__(self, bucket: Bucket, named: NamedDigests, thread: Executor, now: float, watch: Watch) -> None:
        """`thread` has one; `now` in seconds since 1970 by the store's clock."""
        self.now = now
        self.unreadable: list[Unreadable] = []
        self.listed = 0
        self._bucket = bucket
        self._named = named
        self._watch = watch
        self._scratch = Scratch(TABLES, thread)
        self._join: Join | None = None

    async def __aenter__(self) -> Self:
        """Raises NoScratch, as everything does that asks its database."""
        await self._scratch.__aenter__()
        self._join = Join(self._scratch.database)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scratch.__aexit__(kind, exc, trace)

    @property
    def join(self) -> Join:
        """What was found; asked by `off_loop` only."""
        assert self._join is not None, "enter it first"  # noqa: S101
        return self._join

    async def off_loop(self, work: Callable[..., T], *values: Any) -> T:
        """Runs what blocks in the survey's thread."""
        return await self._scratch.run(work, *values)

    async def run(self) -> None:
        """Lists repositories, then what is derived from them, then bytes: a request for each thousand keys.

        Manifests that are not remembered are read. Those that cannot be understood are in `unreadable` afterwards, and then
        nothing may be deleted. Raises StorageError, also for a listing that is cut short.
        """
        lives, join = self._bucket.lifetimes, self.join
        async for page in self.pages(keys.REPOSITORIES):
            await self._place(page, self.now - lives.grace)
        self._watch("joining", 0, 0)
        await self.off_loop(join.index)
        async for page in self.pages(keys.HOLDERS):
            await self.off_loop(join.hold, page, self.now - lives.grace)
        async for page in self.pages(keys.DATA):
            await self.off_loop(join.weigh, page, self.now - lives.fence)
        async for page in self.pages(keys.QUARANTINE):  # what verify keeps for somebody to look at
            await self.off_loop(join.spare, [entry.key.removeprefix(keys.QUARANTINE) for entry in page])
        await self.off_loop(self._named.trim, join.manifests)

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[Listed]]:
        """Every key below a prefix, a thousand at a time."""
        page: list[Listed] = []
        async for entry in every(self._bucket.driver, prefix):
            page.append(entry)
            if len(page) == PAGE:
                yield self._counted(page)
                page = []
        if page:
            yield self._counted(page)

    def rows(self, question: str, *values: object) -> AsyncIterator[list[Any]]:
        """The rows of the database that answer a question, some hundreds at a time."""
        return self._scratch.pages(question, *values)

    async def learn(self, name: Name, entries: Sequence[Entry]) -> None:
        """Takes manifests that came since. Raises Unreadable, StorageError."""
        before = len(self.unreadable)
        gone = await self._read([(name, entry) for entry in entries])
        if len(self.unreadable) > before:
            raise self.unreadable[-1]
        await self.off_loop(self.join.learn, [(name, entry) for entry in entries if (name, entry) not in gone])

    def _counted(self, page: Sequence[Listed]) -> Sequence[Listed]:
        self.listed += len(page)
        self._watch("listing", self.listed, 0)
        return page

    async def _place(self, page: Sequence[Listed], oldest: float) -> None:
        stored = await self.off_loop(self.join.place, page, oldest)
        if stored:
            # Whoever pushes the same image again must find it unknown: what it needs was never learnt.
            await self.off_loop(self.join.forget, await self._read(stored))

    async def _read(self, stored: Sequence[tuple[Name, Entry]]) -> Sequence[tuple[Name, Entry]]:
        """What manifests need: remembered, or read now, a few at a time. Returns those that went since they were listed."""
        known = await self.off_loop(self._named.known, [entry.digest for _, entry in stored])
        await self.off_loop(
            self.join.need, [(name, known[entry.digest]) for name, entry in stored if entry.digest in known]
        )
        rest = [(name, entry) for name, entry in stored if entry.digest not in known]
        gone: list[tuple[Name, Entry]] = []
        for at in range(0, len(rest), _SLICE):
            part = rest[at : at + _SLICE]
            bodies = await side_by_side(self._fetch, part, most=AT_ONCE)
            await self.off_loop(self._understand, part, bodies)
            gone += [one for one, body in zip(part, bodies, strict=True) if body is None]
        if rest:
            await self.off_loop(self._named.settle)
        return gone

    async def _fetch(self, stored: tuple[Name, Entry]) -> bytes | None:
        """The bytes as they are; None where they went since they were listed. Serving replicas' memory is left alone."""
        try:
            return (await asked(self._bucket, lambda: self._bucket.driver.get(keys.manifest(*stored)))).data
        except NotFound:
            return None
        except Withheld:
            return b""

    def _understand(self, stored: Sequence[tuple[Name, Entry]], bodies: Sequence[bytes | None]) -> None:
        needs: list[tuple[Name, Sequence[Digest]]] = []
        for (name, entry), body in zip(stored, bodies, strict=True):
            if body is None:
                continue
            try:
                needs.append((name, self._named.learn(entry.digest, body)))
            except ManifestInvalid:
                if len(self.unreadable) < _UNREADABLE:
                    self.unreadable.append(Unreadable(name, entry.digest))
        self.join.need(needs)


class SurveyedNeeds:
    """Needs as a survey knows them, and the manifests that came since."""

    def __init__(self, bucket: Bucket, survey: Survey) -> None:
        self._bucket = bucket
        self._survey = survey

    async def named(self, name: Name, digests: Collection[Digest]) -> set[Digest]:
        """See registry.needs.Needs. A manifest that went since the survey counts until the next one."""
        join = self._survey.join
        listed = [
            keys.entry_of(entry.key, entry.size) async for entry in every(self._bucket.driver, keys.manifests(name))
        ]
        fresh = await self._survey.off_loop(join.unknown, name, listed)
        if fresh:
            await self._survey.learn(name, fresh)
        return await self._survey.off_loop(join.needed, name, list(digests))
