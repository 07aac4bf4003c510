"""Reports of collections: what went, why, and how much; the last ones are kept in the bucket, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from app.registry.bucket import Bucket
from app.upkeep import kept

KIND: Final = "gc"
"""Where those of collections that were done lie, among the reports."""
UNFINISHED: Final = "gc-unfinished"
"""Where those of collections that were stopped, or failed, lie."""
ITEMS: Final = 1000
"""Things that one report names; of the rest it holds the sums."""

State = Literal["done", "stopped", "failed"]
"""Stopped: nothing more was deleted, because that was not safe or wise. Failed: the store did."""
Cause = Literal["", "off", "unreadable", "max_share", "refused"]
"""What stopped it, in a word."""
CAUSES: Final[Sequence[Cause]] = [cause for cause in get_args(Cause) if cause]

WHY: Final[Mapping[str, str]] = {
    "copies": "no manifest of a repository that links it needs it",
    "orphans": "nothing links these bytes, a grace period ago as now",
    "uploads": "the upload's life has ended",
    "intents": "its publication can no longer happen",
    "tombstones": "the delete that it announced can no longer happen",
    "holders": "the link that it was derived from is gone",
    "referrers": "its manifest was never published, or is gone",
    "leases": "its owner is gone",
    "probes": "a process that tried the store was killed",
}
"""What goes, and why."""


@dataclass(slots=True)
class Gone:
    """How many things of a kind went, and their bytes."""

    count: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Report:
    """One collection. Times in seconds since 1970 by the store's clock; sizes in bytes."""

    began: float
    dry_run: bool
    state: State = "done"
    reason: str = ""
    cause: Cause = ""
    seconds: float = 0.0
    objects: int = 0
    """Keys that were listed."""
    blobs: int = 0
    bytes: int = 0
    """Copies that were there, and their bytes."""
    wanted: int = 0
    """Bytes that nobody needs, whether or not they went."""
    suspects: Gone = field(default_factory=Gone)
    """Bytes that nothing links, which go when a later collection finds them so."""
    loose_links: int = 0
    """Links that their repository does not need, to copies that others do: they take no bytes."""
    gone: dict[str, Gone] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    """Copies that seemed free and stayed, by why."""
    unreadable: list[str] = field(default_factory=list)
    """Manifests that could not be understood."""
    items: list[dict[str, Any]] = field(default_factory=list)

    def lose(self, kind: str, things: Sequence[tuple[str, int]]) -> None:
        """Notes what went, or would go: each thing's name and bytes."""
        if not things:
            return
        gone = self.gone.setdefault(kind, Gone())
        gone.count += len(things)
        gone.bytes += sum(size for _, size in things)
        room = max(0, ITEMS - len(self.items))
        self.items += [{"what": what, "why": WHY[kind], "bytes": size} for what, size in things[:room]]

    def keep(self, why: str) -> None:
        """Notes a copy that stayed."""
        self.kept[why] = self.kept.get(why, 0) + 1

    def stop(self, cause: Cause, reason: str) -> None:
        """Notes that going on was not safe or wise."""
        self.state, self.cause, self.reason = "stopped", cause, reason

    def fail(self, reason: str) -> None:
        """Notes that it could not go on."""
        self.state, self.reason = "failed", reason

    @property
    def freed(self) -> int:
        """Bytes that went, or would go."""
        return sum(gone.bytes for gone in self.gone.values())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"freed": self.freed} | asdict(self)


async def keep(bucket: Bucket, report: Report) -> str:
    """Writes a report and drops old ones; returns its key. Raises StorageError."""
    return await kept.keep(bucket, KIND if report.state == "done" else UNFINISHED, report.began, report.document())


async def last_done(bucket: Bucket) -> kept.Kept | None:
    """The latest report of a collection that was done; None where there is none. Raises StorageError."""
    return await kept.latest(bucket, KIND, wanted=lambda report: report.get("state") == "done")


async def last_kept(bucket: Bucket) -> kept.Kept | None:
    """The latest report, however it ended, and when it was written; None where there is none. Raises StorageError."""
    return await kept.latest(bucket, KIND, UNFINISHED)


async def last(bucket: Bucket) -> dict[str, Any] | None:
    """The latest report, however it ended; None where there is none. Raises StorageError."""
    found = await last_kept(bucket)
    return found.document if found else None
