"""What was found: one line a check, in groups, and the one thing to do where something is not as it should be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended; a warning works today."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `found` holds no secret; `fix` is one command or one setting, None exactly where all is well."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, fix: str) -> Check:
    """It works, and yet."""
    return Check(name, Verdict.WARNING, found, fix)


def failed(name: str, found: str, fix: str) -> Check:
    """It does not work."""
    return Check(name, Verdict.FAILED, found, fix)


@dataclass(slots=True)
class Report:
    """`groups` maps a group to its checks, in the order in which they were looked at; `skipped` maps others to why."""

    groups: dict[str, Sequence[Check]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[Verdict, int]:
        """How many checks ended how."""
        verdicts = [check.verdict for checks in self.groups.values() for check in checks]
        return {verdict: verdicts.count(verdict) for verdict in Verdict}

    @property
    def sound(self) -> bool:
        """Whether nothing failed."""
        return self.counts()[Verdict.FAILED] == 0

    def document(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "sound": self.sound,
            "counts": {str(verdict): count for verdict, count in self.counts().items()},
            "checks": [
                {
                    "group": group,
                    "name": check.name,
                    "verdict": str(check.verdict),
                    "found": check.found,
                    "fix": check.fix,
                }
                for group, checks in self.groups.items()
                for check in checks
            ],
            "skipped": dict(self.skipped),
        }

    def lines(self) -> Iterator[tuple[Verdict | None, str]]:
        """The report for people: each line, and the verdict that it states."""
        for group, checks in self.groups.items():
            yield None, group
            width = max((len(check.name) for check in checks), default=0)
            for check in checks:
                fix = f"; fix: {check.fix}" if check.fix else ""
                found = " ".join(check.found.split())
                yield check.verdict, f"  {check.verdict:<7}  {check.name:<{width}}  {found}{fix}"
        for group, why in self.skipped.items():
            yield None, f"{group}: not looked at: {why}"
        counts = self.counts()
        yield (
            None,
            f"{counts[Verdict.OK]} ok, {counts[Verdict.WARNING]} warnings, {counts[Verdict.FAILED]} failed",
        )
