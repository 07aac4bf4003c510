"""The users' file: read, written, refused."""

import multiprocessing
import os
import stat
from pathlib import Path

import bcrypt
import pytest

from app.auth import htpasswd as file
from app.errors import StartError

HASH = "$2y$04$" + "a" * 53


def test_an_added_user_can_log_in_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "htpasswd"
    assert file.add(path, "alice", "größe", cost=4)
    assert not file.add(path, "alice", "other", cost=4)
    file.add(path, "bob", "x", cost=4)
    assert file.users(path) == ["alice", "bob"]
    entries = file.parse(path.read_bytes())
    assert bcrypt.checkpw(b"other", entries.hashes["alice"])
    assert not bcrypt.checkpw("größe".encode(), entries.hashes["alice"])
    file.remove(path, "alice")
    assert file.users(path) == ["bob"]


def test_the_default_cost_gives_no_warning(tmp_path: Path) -> None:
    file.add(tmp_path / "h", "alice", "x")
    entries = file.parse((tmp_path / "h").read_bytes())
    assert file.cost_of(entries.hashes["alice"]) == 10
    assert list(entries.warnings) == []


def test_changes_keep_comments_and_lines_of_other_schemes(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text(f"# staff\nold:$apr1$a$b\n\nbob:{HASH}\n# end\n")
    file.add(path, "alice", "x", cost=4)
    file.remove(path, "bob")
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# staff", "old:$apr1$a$b", ""]
    assert "# end" in lines
    assert file.users(path) == ["old", "alice"]


def test_the_file_is_private_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("")
    target.chmod(0o644)
    link.symlink_to(target)
    file.add(link, "alice", "x", cost=4)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_a_write_that_fails_leaves_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "h"
    file.add(path, "alice", "x", cost=4)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StartError, match="No space left"):
        file.add(path, "bob", "x", cost=4)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["h"]


def test_two_programs_that_add_users_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "h"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_some, args=(path, letter)) for letter in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(file.users(path)) == 20


def _add_some(path: Path, letter: str) -> None:
    for number in range(10):
        file.add(path, f"{letter}{number}", "x", cost=4)


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", "a\0b", " a", "#a", "a" * 129, "\u202ea", "\ud800"])
def test_a_user_name_that_would_break_the_file_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(StartError):
        file.add(tmp_path / "h", user, "x", cost=4)
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize("password", ["", "x" * 73, "ü" * 37, "a\0b", "\ud800"])
def test_a_password_that_bcrypt_would_cut_or_refuse_is_refused_here(tmp_path: Path, password: str) -> None:
    with pytest.raises(StartError) as error:
        file.add(tmp_path / "h", "alice", password, cost=4)
    assert not password or password not in str(error.value)


def test_removing_nobody_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="does not exist"):
        file.remove(tmp_path / "h", "alice")
    file.add(tmp_path / "h", "alice", "x", cost=4)
    with pytest.raises(StartError, match="no user 'bob'"):
        file.remove(tmp_path / "h", "bob")


@pytest.mark.parametrize(
    ("line", "scheme"),
    [
        ("$apr1$mgHhGWaK$oCjBmm2eoIvEcyDWlY.Ge0", "apr_md5_crypt"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "ldap_sha1"),
        ("canary-in-plain-text", "plaintext"),
        ("$2y$04$short", "broken bcrypt"),
        ("$2x$04$" + "a" * 53, "broken bcrypt"),
        ("$2y$31$" + "a" * 53, "cost 31"),
    ],
)
def test_other_schemes_are_refused_by_name_without_showing_the_hash(line: str, scheme: str) -> None:
    entries = file.parse(f"old:{line}\nnew:{HASH}\n".encode())
    assert list(entries.hashes) == ["new"]
    [warning] = [warning for warning in entries.warnings if "old" in warning]
    assert scheme in warning
    assert line not in warning


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_every_bcrypt_prefix_is_verified(prefix: str) -> None:
    line = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode().replace("$2b$", prefix)
    assert bcrypt.checkpw(b"x", file.parse(f"alice:{line}".encode()).hashes["alice"])


def test_cheap_hashes_get_one_warning_and_work() -> None:
    entries = file.parse(f"a:{HASH}\nb:{HASH}\n".encode())
    assert set(entries.hashes) == {"a", "b"}
    assert len(entries.warnings) == 1


def test_windows_and_latin_1_files_are_read() -> None:
    data = b"\xef\xbb\xbfalice:" + HASH.encode() + b"\r\n" + "jürgen".encode("latin-1") + b":" + HASH.encode() + b"\r\n"
    assert list(file.parse(data).hashes) == ["alice", "jürgen"]


def test_a_file_of_something_else_is_an_error_that_names_the_line() -> None:
    with pytest.raises(ValueError, match="line 2"):
        file.parse(f"alice:{HASH}\nnonsense\n".encode())


def test_the_decoy_is_a_real_hash_of_the_cost_most_users_have() -> None:
    ten = HASH.replace("$04$", "$10$")
    entries = file.parse(f"a:{HASH}\nb:{ten}\nc:{ten}\n".encode())
    assert entries.cost == 10
    line = file.decoy(4)
    assert file.cost_of(line) == 4
    assert bcrypt.checkpw(b"x", line) is False  # it raises for a salt it cannot read
    assert line != file.decoy(4)
