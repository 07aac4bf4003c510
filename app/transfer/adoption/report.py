"""What a takeover found, did and left, in numbers and in the words of people."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

_MOST: Final = 1000
"""Notes of a kind that are kept; the others are counted."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing and what is to be said of it; `what` is a blob, a manifest, a tag, or empty for the whole repository."""

    repository: str
    what: str
    why: str

    def __str__(self) -> str:
        """`team/app: tag v1: why`."""
        return ": ".join(part for part in (_printable(self.repository), _printable(self.what), self.why) if part)


@dataclass(slots=True)
class Report:
    """Filled while the takeover runs. Sizes in bytes."""

    dry: bool = False
    repositories: int = 0
    found: Counter[str] = field(default_factory=Counter)
    """`blobs`, `manifests`, `tags` that Distribution's layout names."""
    done: Counter[str] = field(default_factory=Counter)
    """`blobs_bound`, `blob_bytes_bound`, `blob_bytes_copied`, `manifests_written`, `manifest_bytes_written`,
    `tags_written`, `tags_moved`, `tags_pruned`."""
    notes: dict[str, list[Note]] = field(default_factory=lambda: {"left": [], "sparse": [], "kept": [], "gone": []})
    """`left`: could not be taken over; `sparse`: taken over though it names what is not there; `kept`: as somebody here
    wanted it; `gone`: not in Distribution's layout any more."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many notes of each kind there were."""

    def note(self, kind: str, repository: str, what: str, why: str) -> None:
        """Adds a note of one of the kinds of `notes`."""
        self.counts[kind] += 1
        if len(self.notes[kind]) < _MOST:
            self.notes[kind].append(Note(repository, what, why))

    @property
    def whole(self) -> bool:
        """Whether everything that Distribution serves is here, or is not by somebody's will."""
        return not self.counts["left"] and not self.counts["sparse"]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "dry_run": self.dry,
            "repositories": self.repositories,
            "found": {kind: self.found[kind] for kind in ("blobs", "manifests", "tags")},
            **{name: self.done[name] for name in _DONE},
            **{kind: {"count": self.counts[kind], "notes": _listed(notes)} for kind, notes in self.notes.items()},
        }


_DONE: Final = (
    "blobs_bound",
    "blob_bytes_bound",
    "blob_bytes_copied",
    "manifests_written",
    "manifest_bytes_written",
    "tags_written",
    "tags_moved",
    "tags_pruned",
)


def _listed(notes: list[Note]) -> list[dict[str, str]]:
    return [{"repository": note.repository, "what": note.what, "why": note.why} for note in notes]


def _printable(text: str) -> str:
    return text[:300].encode("unicode_escape").decode("ascii")
