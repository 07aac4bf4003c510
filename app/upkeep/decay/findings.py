"""What verify may find, and its account of one run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.oci.digests import Digest
from app.oci.names import Name
from app.oci.references import Tag

Weight = Literal["broken", "note"]
"""Whether somebody may miss something, or only an operator may want to know."""

_AGAIN: Final = "push or import the image again; --repair looks for another copy, and upstream"
_GIVEN_UP: Final = "--repair takes it from elsewhere, and --repair --force gives up what is nowhere else"
_DERIVED: Final = "run with --repair, or `edge-registry rebuild`"
KINDS: Final[dict[str, tuple[Weight, str]]] = {
    "copy-gone": ("broken", _AGAIN),
    "copy-garbled": ("broken", _AGAIN),
    "copy-unreadable": ("broken", f"look at the store's disks; {_GIVEN_UP}"),
    "blob-missing": ("broken", _AGAIN),
    "child-missing": ("broken", _AGAIN),
    "child-deleted": ("note", "nothing, if it was deleted on purpose; else push it again"),
    "manifest-garbled": ("broken", _AGAIN),
    "manifest-unreadable": ("broken", f"look at the store's disks; {_GIVEN_UP}"),
    "manifest-invalid": ("broken", "delete the manifest by its digest: while it is there, no garbage is collected"),
    "manifest-too-large": ("broken", "delete the manifest by its digest: no client takes it"),
    "tag-dangling": (
        "broken",
        "push the tag again, or delete it; --repair looks for the manifest elsewhere, and upstream",
    ),
    "tag-unreadable": ("broken", "push the tag again; --repair empties it where an upstream fills the repository"),
    "catalog-missing": ("broken", _DERIVED),
    "holder-missing": ("broken", _DERIVED),
    "referrer-missing": ("broken", _DERIVED),
    "referrer-unreadable": ("broken", _DERIVED),
    "referrer-loose": ("note", "nothing: readers pass over it, and the collector takes it"),
    "holder-loose": ("note", "nothing: only a link is proof, and the collector takes it"),
    "foreign": ("note", "nothing, if somebody put it there on purpose; the registry never reads or deletes it"),
}
"""Each kind of finding: how much it weighs, and what would mend it."""
MOST: Final = 10_000
"""Findings that are kept with all they say; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What, where and why. `mended` says what was done about it; None where nothing was, or nothing could be."""

    kind: str
    why: str
    name: Name | None = None
    digest: Digest | None = None
    tag: Tag | None = None
    key: str | None = None
    mended: str | None = None

    @property
    def broken(self) -> bool:
        """Whether somebody may miss something."""
        return KINDS[self.kind][0] == "broken"

    @property
    def remedy(self) -> str:
        """What would mend it."""
        return KINDS[self.kind][1]

    @property
    def place(self) -> str:
        """Where it is, in words."""
        words = [f"{self.name}:{self.tag}" if self.tag else self.name, self.digest]
        return " ".join(word for word in words if word) or self.key or ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        where = {"repository": self.name, "digest": self.digest, "tag": self.tag, "key": self.key}
        return {
            "kind": self.kind,
            "weight": KINDS[self.kind][0],
            **{field: text for field, text in where.items() if text is not None},
            "why": self.why,
            "remedy": None if self.mended else self.remedy,
            "mended": self.mended,
        }


@dataclass(slots=True)
class Account:
    """One run: what was looked at, and what was found. Times in seconds, sizes in bytes."""

    began: str
    scope: str | None
    repaired: bool
    sample: tuple[float, float] = (0.0, 0.0)
    """The part of all copies whose bytes were hashed, as places between 0 and 1; the end may lie before the beginning."""
    seconds: float = 0.0
    checked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    refused: str | None = None
    """Why repair took no links away, where it did not."""

    def take(self, finding: Finding) -> None:
        """Adds a finding."""
        self.found[finding.kind] += 1
        if finding.mended:
            self.mended[finding.kind] += 1
        if len(self.findings) < MOST:
            self.findings.append(finding)

    @property
    def broken(self) -> int:
        """How much is broken and was not mended."""
        return sum(number - self.mended[kind] for kind, number in self.found.items() if KINDS[kind][0] == "broken")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sound": self.broken == 0,
            "broken": self.broken,
            "began": self.began,
            "seconds": round(self.seconds, 1),
            "whole": self.scope is None,
            "repositories": self.scope or "all",
            "repair": self.repaired,
            "refused": self.refused,
            "sample": {"from": self.sample[0], "to": self.sample[1]},
            "checked": dict(self.checked),
            "found": dict(self.found),
            "mended": dict(self.mended),
            "left_off": self.found.total() - len(self.findings),
            "findings": [finding.document() for finding in self.findings],
        }
