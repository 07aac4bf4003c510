"""The live view of the users' file."""

import asyncio
import os
from pathlib import Path

import pytest

from app.auth.htpasswd import Entries, add, remove
from app.auth.users import Users
from app.errors import StartError
from tests.auth.conftest import Clock


def load(path: Path, clock: Clock, reports: list[tuple[str, str]] | None = None) -> Users:
    return Users.load(
        path, clock=clock, settle=0.001, report=lambda *line: (reports if reports is not None else []).append(line)
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("", "holds no user"),
        ("# nobody\n", "holds no user"),
        ("a:$apr1$mgHhGWaK$oCjBmm2eoIvEcyDWlY.Ge0\n", "apr_md5_crypt"),
        ("nonsense", "line 1"),
    ],
)
def test_a_file_nobody_could_log_in_with_stops_the_start_in_one_line(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "htpasswd"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartError, match=says) as error:
        Users.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_file_stops_the_start_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        Users.load(tmp_path)


async def test_a_change_is_seen_after_a_second_and_no_sooner(htpasswd: Path, clock: Clock) -> None:
    reports: list[tuple[str, str]] = []
    users = load(htpasswd, clock, reports)
    reports.clear()
    remove(htpasswd, "bob")
    await users.refresh()
    assert users.hash_of("bob")
    clock.now += 1
    assert not users.fresh
    await users.refresh()
    assert users.fresh
    assert users.hash_of("bob") is None
    assert users.hash_of("alice")
    assert [level for level, _ in reports] == ["warning", "info"]  # cost 4, then the news


async def test_a_change_of_equal_size_and_time_is_seen(htpasswd: Path, clock: Clock) -> None:
    users = load(htpasswd, clock)
    before, times = users.hash_of("alice"), htpasswd.stat()
    other = htpasswd.read_bytes().replace(b"alice:$2y$04$", b"alice:$2a$04$")
    htpasswd.write_bytes(other)
    os.utime(htpasswd, ns=(times.st_atime_ns, times.st_mtime_ns))
    clock.now += 1
    await users.refresh()
    assert users.hash_of("alice") not in (None, before)


@pytest.mark.parametrize("broken", ["missing", "nonsense"])
async def test_a_broken_file_keeps_the_users_and_is_reported_once(htpasswd: Path, clock: Clock, broken: str) -> None:
    reports: list[tuple[str, str]] = []
    users = load(htpasswd, clock, reports)
    reports.clear()
    good = htpasswd.read_bytes()
    htpasswd.unlink()
    if broken == "nonsense":
        htpasswd.write_text("nonsense")
    for _ in range(3):
        clock.now += 1
        await users.refresh()
    assert users.hash_of("alice")
    assert [level for level, _ in reports] == ["error"]
    htpasswd.write_bytes(good)
    add(htpasswd, "carol", "x", cost=4)
    clock.now += 1
    await users.refresh()
    assert users.hash_of("carol")


async def test_an_emptied_file_lets_nobody_in(htpasswd: Path, clock: Clock) -> None:
    users = load(htpasswd, clock)
    htpasswd.write_text("")
    clock.now += 1
    await users.refresh()
    assert users.hash_of("alice") is None


async def test_a_file_caught_half_written_is_not_believed(
    htpasswd: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = load(htpasswd, clock)
    whole = htpasswd.read_bytes()
    htpasswd.write_bytes(b"")

    def finish_writing(seconds: float) -> None:
        htpasswd.write_bytes(whole + b"# new\n")

    monkeypatch.setattr("app.auth.users.time.sleep", finish_writing)
    clock.now += 1
    await users.refresh()
    assert users.hash_of("alice")
    assert users.hash_of("bob")


async def test_many_callers_share_one_look(htpasswd: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    users = load(htpasswd, clock)
    looks = 0
    read = users._read

    def counted() -> tuple[bytes, Entries | None]:
        nonlocal looks
        looks += 1
        return read()

    monkeypatch.setattr(users, "_read", counted)
    clock.now += 1
    await asyncio.gather(*(users.refresh() for _ in range(50)))
    assert looks == 1


async def test_a_hash_is_in_no_report(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "h"
    add(path, "alice", "x", cost=4)
    with path.open("a") as file:
        file.write("old:canary\nbad:$2y$04$canary\n")
    reports: list[tuple[str, str]] = []
    load(path, clock, reports)
    assert {level for level, _ in reports} == {"warning"}
    assert "canary" not in str(reports)
