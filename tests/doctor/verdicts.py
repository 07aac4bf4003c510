"""What tests say of checks."""

from collections.abc import Iterable

from app.doctor.report import Check, Verdict


def bad(checks: Iterable[Check]) -> list[Check]:
    """Those that are not ok; fails where one of them has no fix, or one that is ok has one."""
    found = list(checks)
    for check in found:
        assert (check.fix is None) == (check.verdict is Verdict.OK), check
        assert "\n" not in check.found + (check.fix or ""), check
    return [check for check in found if check.verdict is not Verdict.OK]


def the_one(checks: Iterable[Check], verdict: Verdict = Verdict.FAILED) -> Check:
    """The only one that is not ok."""
    found = bad(checks)
    assert [check.verdict for check in found] == [verdict], found
    return found[0]
