"""The authenticator: who sends a request, what that costs, and what it answers to guessers."""

import asyncio
import base64
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from app.auth.authenticator import Authenticator
from app.auth.caller import Caller
from app.auth.htpasswd import add, cost_of, remove
from app.auth.throttle import Throttle
from app.oci.errors import TooManyRequests, Unauthorized, Unavailable
from tests.auth.conftest import CountingBcrypt, basic

PEER = "192.0.2.1"
ALICE = basic("alice", "secret")
GENEROUS = 1000


async def test_a_right_password_names_the_caller_and_a_wrong_one_is_challenged(
    make: Callable[..., Authenticator], htpasswd: Path
) -> None:
    authenticator = make(htpasswd)
    assert await authenticator.identify(ALICE, PEER) == Caller("alice")
    for wrong in (basic("alice", "wrong"), basic("alice", ""), basic("alice", "hunter2"), basic("Alice", "secret")):
        with pytest.raises(Unauthorized) as refusal:
            await authenticator.identify(wrong, PEER)
        assert refusal.value.headers == {"WWW-Authenticate": 'Basic realm="r"'}


@pytest.mark.parametrize("header", [None, b"Basic Og=="])
async def test_no_credentials_and_podmans_empty_ones_are_anonymous(
    make: Callable[..., Authenticator], htpasswd: Path, header: bytes | None
) -> None:
    authenticator = make(htpasswd)
    assert authenticator.known(header) == Caller(None)
    assert await authenticator.identify(header, PEER) == Caller(None)


async def test_without_users_everybody_is_anonymous(make: Callable[..., Authenticator]) -> None:
    authenticator = make(None)
    for header in (None, ALICE, b"nonsense"):
        assert authenticator.known(header) == Caller(None)
        assert await authenticator.identify(header, PEER) == Caller(None)


async def test_malformed_credentials_are_challenged_without_a_check(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd)
    for header in (b"", b"Bearer x", b"Basic !", b"Basic " + b"A" * 8192):
        assert authenticator.known(header) is None
        with pytest.raises(Unauthorized):
            await authenticator.identify(header, PEER)
    assert checks.lines == []


async def test_fifty_requests_at_once_cost_one_bcrypt_and_the_next_ones_none(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd)
    assert authenticator.known(ALICE) is None
    callers = await asyncio.gather(*(authenticator.identify(ALICE, PEER) for _ in range(50)))
    assert set(callers) == {Caller("alice")}
    assert authenticator.known(ALICE) == Caller("alice")
    assert await authenticator.identify(ALICE, PEER) == Caller("alice")
    assert len(checks.lines) == 1


async def test_fifty_wrong_requests_at_once_cost_one_bcrypt(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd)
    wrong = basic("alice", "wrong")
    answers = await asyncio.gather(*(authenticator.identify(wrong, PEER) for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unauthorized}
    assert len(checks.lines) == 1


async def test_a_client_that_hangs_up_does_not_fail_the_others(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd)
    checks.hold.clear()
    first, second = (asyncio.create_task(authenticator.identify(ALICE, PEER)) for _ in range(2))
    while not checks.lines:
        await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.wait([first])
    checks.hold.set()
    assert await second == Caller("alice")
    assert first.cancelled()


async def test_an_unknown_user_costs_the_same_as_a_wrong_password(
    make: Callable[..., Authenticator], tmp_path: Path, checks: CountingBcrypt
) -> None:
    path = tmp_path / "h"
    for user, cost in (("a", 6), ("b", 6), ("c", 4)):
        add(path, user, "x", cost=cost)
    authenticator = make(path)
    for user in ("a", "nobody", "x" * 500):
        with pytest.raises(Unauthorized) as refusal:
            await authenticator.identify(basic(user, "wrong"), PEER)
        assert refusal.value.message == "wrong user or password"
    assert [cost_of(line) for line in checks.lines] == [6, 6, 6]


@pytest.mark.parametrize("password", ["x" * 73, "ü" * 37, "x" * 2000])
async def test_a_password_of_more_than_72_bytes_is_refused_not_cut(
    make: Callable[..., Authenticator], tmp_path: Path, checks: CountingBcrypt, password: str
) -> None:
    path = tmp_path / "h"
    line = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4))
    path.write_bytes(b"alice:" + line + b"\n")
    with pytest.raises(Unauthorized):
        await make(path).identify(basic("alice", password), PEER)
    assert checks.lines == []


async def test_a_password_of_exactly_72_bytes_works(make: Callable[..., Authenticator], tmp_path: Path) -> None:
    add(tmp_path / "h", "alice", "ü" * 36, cost=4)
    authenticator = make(tmp_path / "h")
    assert await authenticator.identify(basic("alice", "ü" * 36), PEER) == Caller("alice")


async def test_a_removed_user_is_refused_within_two_seconds_although_remembered(
    make: Callable[..., Authenticator], htpasswd: Path
) -> None:
    authenticator = make(htpasswd)
    await authenticator.identify(ALICE, PEER)
    remove(htpasswd, "alice")
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        try:
            assert authenticator.known(ALICE) or await authenticator.identify(ALICE, PEER)
        except Unauthorized:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the removed user still gets in after two seconds")


async def test_a_changed_password_is_refused_at_once_after_the_reload(
    make: Callable[..., Authenticator], htpasswd: Path
) -> None:
    authenticator = make(htpasswd, every=0)
    await authenticator.identify(ALICE, PEER)
    add(htpasswd, "alice", "new", cost=4)
    with pytest.raises(Unauthorized):
        await authenticator.identify(ALICE, PEER)
    assert await authenticator.identify(basic("alice", "new"), PEER) == Caller("alice")


async def test_a_user_removed_while_the_password_is_checked_does_not_get_in(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd, every=0)
    checks.hold.clear()
    logging_in = asyncio.create_task(authenticator.identify(ALICE, PEER))
    while not checks.lines:
        await asyncio.sleep(0.001)
    remove(htpasswd, "alice")
    await authenticator._users.refresh()
    checks.hold.set()
    with pytest.raises(Unauthorized):
        await logging_in


async def test_guessing_is_slowed_without_bcrypt_and_without_locking_others_out(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd, throttle=Throttle(burst=3, per_minute=1))
    await authenticator.identify(ALICE, PEER)
    for number in range(3):
        with pytest.raises(Unauthorized):
            await authenticator.identify(basic("alice", f"guess {number}"), PEER)
    done = len(checks.lines)
    with pytest.raises(TooManyRequests) as refusal:
        await authenticator.identify(basic("alice", "guess 4"), PEER)
    assert 1 <= int(refusal.value.headers["Retry-After"]) <= 60
    assert len(checks.lines) == done
    assert await authenticator.identify(ALICE, PEER) == Caller("alice")  # remembered: never throttled
    assert await authenticator.identify(basic("bob", "hunter2"), PEER) == Caller("bob")
    with pytest.raises(Unauthorized):  # another address has its own bucket
        await authenticator.identify(basic("alice", "guess 5"), "192.0.2.2")


async def test_guesses_sent_at_the_same_moment_count_too(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd, throttle=Throttle(burst=3, per_minute=1))
    guesses = (authenticator.identify(basic("alice", f"guess {number}"), PEER) for number in range(12))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert [type(answer) for answer in answers].count(TooManyRequests) == 9
    assert len(checks.lines) == 3


async def test_containerds_five_repeats_of_a_wrong_password_count_once(
    make: Callable[..., Authenticator], htpasswd: Path
) -> None:
    authenticator = make(htpasswd, throttle=Throttle(burst=2, per_minute=1))
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await authenticator.identify(basic("alice", "mistyped"), PEER)
    assert await authenticator.identify(ALICE, PEER) == Caller("alice")


async def test_too_many_waiting_checks_are_refused_and_a_flooder_leaves_room(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd, waiting=8, throttle=Throttle(burst=GENEROUS))
    checks.hold.clear()
    flood = [asyncio.create_task(authenticator.identify(basic("alice", f"{n}"), PEER)) for n in range(20)]
    refused, waiting = await _settled(flood)
    assert (len(refused), len(waiting)) == (16, 4)
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    assert int(refused[0].exception().headers["Retry-After"]) > 0
    others = [asyncio.create_task(authenticator.identify(ALICE, "192.0.2.9"))]
    others += [asyncio.create_task(authenticator.identify(basic("bob", f"{n}"), f"198.51.100.{n}")) for n in range(4)]
    refused, _ = await _settled(others)
    assert len(refused) == 1  # eight places in all
    checks.hold.set()
    assert await others[0] == Caller("alice")
    await asyncio.wait([*flood, *others])
    assert await authenticator.identify(basic("bob", "hunter2"), PEER) == Caller("bob")


async def _settled(tasks: list[asyncio.Task[Caller]]) -> tuple[list[asyncio.Task[Caller]], list[asyncio.Task[Caller]]]:
    """Those that were answered at once, and those that wait for bcrypt."""
    for _ in range(5):
        await asyncio.sleep(0)
    done = [task for task in tasks if task.done()]
    for task in done:
        task.exception()
    return done, [task for task in tasks if not task.done()]


async def test_the_event_loop_goes_on_while_twenty_wrong_passwords_are_checked(
    make: Callable[..., Authenticator], tmp_path: Path, checks: CountingBcrypt
) -> None:
    """Measured in the processor time of the loop's thread, which is the same on a busy machine."""
    path = tmp_path / "h"
    add(path, "alice", "secret", cost=10)
    authenticator = make(path, throttle=Throttle(burst=GENEROUS))
    before = time.thread_time()
    bcrypt.checkpw(b"guess", path.read_bytes().strip().partition(b":")[2])
    one_check = time.thread_time() - before
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(one_check / 10)
            beats += 1

    heart = asyncio.create_task(beat())
    before = time.thread_time()
    guesses = (authenticator.identify(basic("alice", f"guess {number}"), PEER) for number in range(20))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    spent = time.thread_time() - before
    heart.cancel()
    assert {type(answer) for answer in answers} == {Unauthorized}
    assert len(checks.lines) == 20
    assert spent < 10 * one_check, "the loop itself checked"
    assert beats > 20, "the loop stood still during each check"


async def test_zero_verdict_seconds_check_every_time(
    make: Callable[..., Authenticator], htpasswd: Path, checks: CountingBcrypt
) -> None:
    authenticator = make(htpasswd, seconds=0)
    for _ in range(2):
        await authenticator.identify(ALICE, PEER)
    assert authenticator.known(ALICE) is None
    assert len(checks.lines) == 2


async def test_after_close_a_new_password_is_refused_politely(
    make: Callable[..., Authenticator], htpasswd: Path
) -> None:
    authenticator = make(htpasswd)
    authenticator.close()
    with pytest.raises(Unavailable):
        await authenticator.identify(ALICE, PEER)


async def test_a_password_is_in_no_error(make: Callable[..., Authenticator], htpasswd: Path) -> None:
    authenticator = make(htpasswd, throttle=Throttle(burst=1, per_minute=1))
    for header in (
        basic("alice", "canary1"),
        basic("alice", "canary2"),
        b"Basic canary!",
        b"canary",
        basic("a", "canary" * 20),
    ):
        with pytest.raises((Unauthorized, TooManyRequests)) as refusal:
            await authenticator.identify(header, PEER)
        assert "canary" not in f"{refusal.value!r} {refusal.value.entries()} {refusal.value.headers}"


HEADERS = st.one_of(
    st.none(),
    st.binary(max_size=300),
    st.binary(max_size=200).map(lambda raw: b"Basic " + base64.b64encode(raw)),
    st.tuples(st.text(max_size=20), st.text(max_size=80)).map(
        lambda pair: b"Basic " + base64.b64encode(f"{pair[0]}:{pair[1]}".encode(errors="surrogatepass"))
    ),
)


@given(header=HEADERS, peer=st.text(max_size=50))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_from_anywhere_gets_a_caller_or_one_of_three_errors(
    make: Callable[..., Authenticator], htpasswd: Path, header: bytes | None, peer: str
) -> None:
    async def ask() -> None:
        authenticator = make(htpasswd)
        try:
            known = authenticator.known(header)
            try:
                caller = await authenticator.identify(header, peer)
            except (Unauthorized, TooManyRequests, Unavailable):
                assert known is None
            else:
                assert caller == Caller(None)  # nobody guesses alice's password here
        finally:
            authenticator.close()

    asyncio.run(ask())
