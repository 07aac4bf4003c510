"""The negative cache: definite 404s are believed for a while, and no more than so many."""

from app.proxy.misses import Misses


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_miss_is_known_until_its_time_is_over() -> None:
    clock = Clock()
    misses = Misses(60, clock=clock)
    assert not misses.knows(("alpine", "nope"))
    misses.note(("alpine", "nope"))
    clock.now += 59
    assert misses.knows(("alpine", "nope"))
    assert not misses.knows(("alpine", "3.20"))
    clock.now += 1
    assert not misses.knows(("alpine", "nope"))
    assert len(misses._noted) == 0


def test_a_miss_that_is_seen_again_is_believed_anew() -> None:
    clock = Clock()
    misses = Misses(60, clock=clock)
    misses.note("a")
    clock.now += 50
    misses.note("a")
    clock.now += 50
    assert misses.knows("a")


def test_what_was_forgotten_is_asked_again() -> None:
    misses = Misses(60)
    misses.note("a")
    misses.forget("a")
    misses.forget("never noted")
    assert not misses.knows("a")


def test_the_oldest_go_when_there_are_too_many() -> None:
    misses = Misses(60, limit=3)
    for key in "abac":
        misses.note(key)
    misses.note("d")
    assert [key for key in "abcd" if misses.knows(key)] == ["a", "c", "d"]


def test_a_time_of_zero_believes_nothing() -> None:
    misses = Misses(0)
    misses.note("a")
    assert not misses.knows("a")
