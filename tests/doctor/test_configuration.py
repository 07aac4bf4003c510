import os
from pathlib import Path

import pytest

from app.auth.htpasswd import add
from app.doctor.configuration import NamedFile, Way, examine_files, examine_users, examine_ways, knows, refusals
from app.doctor.report import Verdict
from tests.doctor.verdicts import bad, the_one

NOBODY = 65534


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may look into."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    return tmp_path


def way(**changed: object) -> Way:
    given = {
        "key": "http",
        "host": "0.0.0.0",
        "port": 5045,
        "loopback": False,
        "anonymous": "none",
        "asks": True,
        "read_only": False,
    }
    return Way(**{**given, **changed})  # type: ignore[arg-type]


def test_each_refusal_of_the_configuration_is_a_failure_with_what_was_meant() -> None:
    text = (
        "unknown key http.prot; did you mean http.port? (file c.yml)\nhttp.workers: must be a whole number (file c.yml)"
    )
    typo, number = bad(refusals(text))
    assert (typo.found, typo.fix) == ("unknown key http.prot in file c.yml", "write http.port in file c.yml")
    assert number.found == "http.workers: must be a whole number"
    assert number.fix is not None
    assert "file c.yml" in number.fix


def test_a_door_that_is_open_to_the_network_is_a_warning() -> None:
    check = the_one(examine_ways([way(anonymous="push")], users=False), Verdict.WARNING)
    assert check.found == "0.0.0.0:5045: everybody who can reach it may push and delete without a password"
    assert check.fix == "edge-registry user add NAME, and set auth.htpasswd"


@pytest.mark.parametrize(
    "changed",
    [{"loopback": True, "anonymous": "push"}, {"read_only": True, "anonymous": "push"}, {"anonymous": "pull"}],
)
def test_doors_that_are_meant_to_be_open_are_sound(changed: dict[str, object]) -> None:
    assert bad(examine_ways([way(**changed)], users=True)) == []


def test_a_registry_that_nobody_can_enter_is_a_failure() -> None:
    assert the_one(examine_ways([way()], users=False)).name == "access"


def test_a_file_of_users_that_this_user_may_not_read_is_named_with_the_fix(shared: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path = shared / "htpasswd"
    path.write_text("")
    path.chmod(0o600)
    os.seteuid(NOBODY)
    try:
        check = the_one(examine_files([NamedFile("auth.htpasswd", path, secret=True)], shared=True))
    finally:
        os.seteuid(0)
    assert check.name == "auth.htpasswd"
    assert check.found == f"{path} cannot be read: Permission denied"
    assert check.fix == f"chown {NOBODY} {path}"


def test_files_that_are_not_there_are_named_with_their_setting(tmp_path: Path) -> None:
    check = the_one(examine_files([NamedFile("http.tls.key", tmp_path / "none", secret=True)], shared=True))
    assert (check.name, check.found) == ("http.tls.key", f"{tmp_path / 'none'} is not there")


def test_a_secret_that_everybody_may_read_is_a_warning_outside_of_pods(shared: Path) -> None:
    path = shared / "server.key"
    path.write_text("")
    path.chmod(0o644)
    file = NamedFile("http.tls.key", path, secret=True)
    assert the_one(examine_files([file], shared=True), Verdict.WARNING).fix == f"chmod o= {path}"
    assert bad(examine_files([file], shared=False)) == []
    assert bad(examine_files([NamedFile("http.tls.certificate", path)], shared=True)) == []
    shared.chmod(0o700)
    assert bad(examine_files([file], shared=True)) == []


def test_a_file_of_users_without_any_that_counts_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("old:$apr1$abcdefgh$0123456789012345678901\n")
    found = bad(examine_users(path))
    assert [check.verdict for check in found] == [Verdict.WARNING, Verdict.FAILED]
    assert "$apr1" not in repr(found)


def test_users_are_counted_and_their_passwords_can_be_tried(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    add(path, "me", "correct-horse", 4)
    assert [check.found for check in examine_users(path) if check.verdict is Verdict.OK] == [f"1 in {path}"]
    assert knows(path, "me", "correct-horse") is True
    assert knows(path, "me", "another") is False
    assert knows(path, "you", "correct-horse") is False
    assert knows(path, "me", "x" * 100) is False
    assert knows(tmp_path / "none", "me", "correct-horse") is None
