"""The throttle of guessing."""

import pytest

from app.auth.throttle import Throttle, origin
from app.oci.errors import TooManyRequests
from tests.auth.conftest import Clock


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(burst=3, per_minute=6, most=100, clock=clock)


def guess(throttle: Throttle, source: str = "1.2.3.4", user: str = "alice", password: bytes = b"0") -> None:
    throttle.admit(source, user)
    throttle.spend(source, user, password)


def test_after_the_burst_it_says_when_to_come_back(throttle: Throttle, clock: Clock) -> None:
    for password in (b"1", b"2", b"3"):
        guess(throttle, password=password)
    with pytest.raises(TooManyRequests) as refusal:
        guess(throttle, password=b"4")
    assert refusal.value.headers == {"Retry-After": "10"}
    clock.now += 9.9
    with pytest.raises(TooManyRequests):
        guess(throttle, password=b"4")
    clock.now += 0.2
    guess(throttle, password=b"4")
    with pytest.raises(TooManyRequests):
        guess(throttle, password=b"5")


def test_one_wrong_password_sent_five_times_counts_once(throttle: Throttle) -> None:
    for _ in range(10):
        guess(throttle, password=b"1")
    guess(throttle, password=b"2")
    with pytest.raises(TooManyRequests):
        guess(throttle, password=b"3")


def test_nobody_else_is_throttled(throttle: Throttle) -> None:
    for password in (b"1", b"2", b"3"):
        guess(throttle, password=password)
    guess(throttle, source="1.2.3.5")
    guess(throttle, user="bob")


def test_right_passwords_cost_nothing(throttle: Throttle) -> None:
    for number in range(20):
        guess(throttle, password=b"%d" % number)
        throttle.refund("1.2.3.4", "alice", b"%d" % number)
    assert len(throttle) == 0


def test_memory_is_bounded(throttle: Throttle) -> None:
    for number in range(1000):
        guess(throttle, user=f"user {number}")
    assert len(throttle) == 100


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix socket", "unix socket"),
    ],
)
def test_a_customers_whole_ipv6_network_is_one_origin(peer: str, source: str) -> None:
    assert origin(peer) == source
