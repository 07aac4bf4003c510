"""The cache of right passwords."""

from app.auth.basic import Credentials
from app.auth.verdicts import Verdicts
from tests.auth.conftest import Clock


def key(verdicts: Verdicts, user: str = "alice", password: bytes = b"x") -> bytes:
    return verdicts.key(Credentials(user, password))


def test_a_verdict_holds_for_its_time_and_its_hash_only(clock: Clock) -> None:
    verdicts = Verdicts(10, clock=clock)
    verdicts.remember(key(verdicts), b"line")
    assert verdicts.holds(key(verdicts), b"line")
    assert not verdicts.holds(key(verdicts, password=b"y"), b"line")
    assert not verdicts.holds(key(verdicts, user="bob"), b"line")
    clock.now += 10
    assert not verdicts.holds(key(verdicts), b"line")
    verdicts.remember(key(verdicts), b"line")
    assert not verdicts.holds(key(verdicts), b"other line")
    assert len(verdicts) == 0


def test_zero_seconds_remember_nothing(clock: Clock) -> None:
    verdicts = Verdicts(0, clock=clock)
    verdicts.remember(key(verdicts), b"line")
    assert not verdicts.holds(key(verdicts), b"line")


def test_the_one_used_longest_ago_makes_room(clock: Clock) -> None:
    verdicts = Verdicts(10, most=2, clock=clock)
    a, b, c = (key(verdicts, user=user) for user in "abc")
    verdicts.remember(a, b"line")
    verdicts.remember(b, b"line")
    assert verdicts.holds(a, b"line")
    verdicts.remember(c, b"line")
    assert [verdicts.holds(name, b"line") for name in (a, b, c)] == [True, False, True]


def test_user_and_password_cannot_be_shifted_into_each_other(clock: Clock) -> None:
    verdicts = Verdicts(10, clock=clock)
    assert key(verdicts, "ab", b"c") != key(verdicts, "a", b"bc")
    assert key(verdicts) != key(Verdicts(10, clock=clock))
