import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Edge, environment


def test_no_arguments_print_the_manual(edge: Edge) -> None:
    ended = edge()
    assert ended.status == 0
    assert "Exit status" in ended.stdout
    assert all(re.search(rf"│ {verb}\b", ended.stdout) for verb in ("serve", "user", "setup", "config"))


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("serve", "--insecure-anonymous"),
        ("user add", "--password-stdin"),
        ("user remove", "NAME"),
        ("user list", "--file"),
        ("setup certs", "--folder"),
        ("setup bucket", "MINIO_ROOT_PASSWORD"),
        ("config show", "--json"),
    ],
)
def test_every_verb_has_help(edge: Edge, command: str, word: str) -> None:
    ended = edge(*command.split(), "--help")
    assert (ended.status, ended.stderr) == (0, "")
    assert word in ended.stdout


def test_the_version_is_one_line(edge: Edge) -> None:
    ended = edge("--version")
    assert ended.status == 0
    assert re.fullmatch(r"edge-registry\b.*\n", ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serv"], "'serv'. Did you mean 'serve'"),
        (["serve", "--prot", "1"], "No such option: --prot"),
        (["serve", "--port", "x"], "'--port'"),
        (["user"], "Missing command; see `edge-registry user --help`"),
        (["user", "add"], "'NAME'"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(edge: Edge, arguments: list[str], said: str) -> None:
    ended = edge(*arguments)
    assert ended.status == 2
    assert said in ended.complaint


def test_a_typo_in_the_file_names_the_key_and_the_nearest_one(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("http:\n  prot: 5000\n")
    ended = edge("serve", "--config", "c.yml")
    assert ended.status == 2
    assert ended.complaint == "unknown key http.prot; did you mean http.port? (file c.yml)"


def test_a_registry_without_users_does_not_open_itself_to_the_network(edge: Edge) -> None:
    ended = edge("serve", "--host", "0.0.0.0")
    assert ended.status == 2
    assert "edge-registry user add" in ended.complaint
    assert "--insecure-anonymous" in ended.complaint


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "config", "show"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
