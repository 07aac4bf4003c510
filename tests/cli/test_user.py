import os
import pty
import subprocess
import sys
from pathlib import Path

import bcrypt
import pytest

from tests.cli.conftest import Edge, environment


def test_users_are_added_listed_and_removed(edge: Edge, tmp_path: Path) -> None:
    assert edge("user", "add", "alice", "--password-stdin", stdin="wonderland\n").status == 0
    assert edge("user", "add", "bob", "--password-stdin", stdin="builder\n").status == 0
    assert edge("user", "list").stdout.split() == ["alice", "bob"]
    removed = edge("user", "remove", "alice")
    assert (removed.status, removed.stdout) == (0, "")
    assert edge("user", "list").stdout.split() == ["bob"]
    name, _, line = (tmp_path / "registry-users").read_text().strip().partition(":")
    assert name == "bob"
    assert bcrypt.checkpw(b"builder", line.encode())


def test_a_first_user_makes_the_server_ask_everybody_for_a_password(edge: Edge) -> None:
    edge("user", "add", "alice", "--password-stdin", stdin="wonderland")
    shown = edge("config", "show").stdout.splitlines()
    assert 'auth.htpasswd = "registry-users"  # default' in shown
    assert 'auth.anonymous = "none"  # default' in shown
    assert 'http.host = "0.0.0.0"  # default' in shown


def test_adding_again_changes_the_password(edge: Edge, tmp_path: Path) -> None:
    edge("user", "add", "alice", "--password-stdin", stdin="first")
    again = edge("user", "add", "alice", "--password-stdin", stdin="second")
    assert "changed the password of alice" in again.stderr
    line = (tmp_path / "registry-users").read_text().strip().partition(":")[2]
    assert bcrypt.checkpw(b"second", line.encode())
    assert not bcrypt.checkpw(b"first", line.encode())


def test_a_file_that_the_server_does_not_use_is_pointed_out(edge: Edge, tmp_path: Path) -> None:
    ended = edge("user", "add", "alice", "--password-stdin", "--file", "other", stdin="x")
    assert (tmp_path / "other").is_file()
    assert "EDGE_REGISTRY_AUTH__HTPASSWD" in ended.stderr
    configured = edge("user", "list", EDGE_REGISTRY_AUTH__HTPASSWD="other")
    assert configured.stdout == "alice\n"


def test_without_a_terminal_the_hint_is_password_stdin(edge: Edge) -> None:
    ended = edge("user", "add", "alice")
    assert ended.status == 2
    assert "--password-stdin" in ended.complaint


def test_no_users_is_said_and_is_no_error(edge: Edge) -> None:
    ended = edge("user", "list")
    assert (ended.status, ended.stdout) == (0, "")
    assert "edge-registry user add NAME" in ended.stderr


RULES = """
auth:
  htpasswd: users
  rules:
    - {users: [alice], repositories: ["**"], actions: [pull, push, delete, catalog]}
    - {users: ["*"], repositories: ["docker.io/**"], actions: [pull]}
"""


@pytest.mark.parametrize(
    ("question", "status", "answer"),
    [
        ("alice push team/app", 0, "alice may push to team/app: rule 1 of auth.rules"),
        ("bob pull docker.io/library/alpine", 0, "bob may pull from docker.io/library/alpine: rule 2 of auth.rules"),
        ("bob push team/app", 1, "bob may not push to team/app: nothing grants it"),
        ("alice catalog", 0, "alice may list the catalog: rule 1 of auth.rules"),
        ("anonymous pull docker.io/a", 1, "anonymous may not pull from docker.io/a: nothing grants it"),
    ],
)
def test_what_a_user_may_do_is_told_with_the_rule(
    edge: Edge, tmp_path: Path, question: str, status: int, answer: str
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    ended = edge("user", "check", *question.split(), "--config", "rules.yaml")
    assert (ended.status, ended.stdout) == (status, answer + "\n")


def test_without_rules_the_check_says_so(edge: Edge) -> None:
    edge("user", "add", "alice", "--password-stdin", stdin="x")
    assert "without rules" in edge("user", "check", "alice", "delete", "a").stdout
    assert edge("user", "check", "anonymous", "pull", "a").status == 1
    assert "auth.anonymous" in edge("user", "check", "bob", "pull", "a", EDGE_REGISTRY_AUTH__ANONYMOUS="pull").stdout


@pytest.mark.parametrize("question", ["alice push", "alice catalog team/app", "alice pull A", "alice read a"])
def test_a_question_that_makes_no_sense_is_one_line(edge: Edge, question: str) -> None:
    ended = edge("user", "check", *question.split())
    assert ended.status == 2
    assert ended.complaint


def test_an_empty_password_and_an_unknown_user_are_one_line(edge: Edge) -> None:
    assert edge("user", "add", "alice", "--password-stdin").status == 2
    edge("user", "add", "bob", "--password-stdin", stdin="x")
    ended = edge("user", "remove", "alice")
    assert ended.status == 2
    assert "'alice'" in ended.complaint


def test_a_terminal_is_asked_twice_and_shows_nothing(tmp_path: Path) -> None:
    main, side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "app", "user", "add", "alice"],
        cwd=tmp_path,
        env=environment(),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    ) as process:
        os.close(side)
        seen = _read_until(main, b"Password: ")
        os.write(main, b"wonderland\n")
        seen += _read_until(main, b"Again: ")
        os.write(main, b"wonderland\n")
        seen += _read_until(main, b"added alice")
        assert process.wait(30) == 0
    os.close(main)
    assert b"wonderland" not in seen
    assert (tmp_path / "registry-users").is_file()


def _read_until(handle: int, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        seen += os.read(handle, 4096)
    return seen
