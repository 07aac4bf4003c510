"""Credential helpers: real small programs on PATH."""

import asyncio
import json
import logging
import os
import time
from pathlib import Path

import pytest

from app.proxy.credentials import Login, open_credentials
from app.proxy.credentials.helper import Helper
from app.proxy.errors import Denied, Unreachable, UpstreamError
from app.proxy.settings import CredentialsSettings

HOST = "registry.example:5000"
ANSWER = """echo '{"ServerURL":"x","Username":"AWS","Secret":"secret-'$(wc -l < "$HERE/runs" | tr -d ' ')'"}'"""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Installed:
    """docker-credential-test on PATH, which notes what each run was asked and then does what `script` says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("HERE", str(folder))
        self.does(ANSWER)

    def does(self, script: str, name: str = "docker-credential-test") -> None:
        program = self._folder / name
        fresh = program.with_suffix(".new")  # a program that runs cannot be written to
        fresh.write_text(f'#!/bin/sh\nread host; echo "$1 $host" >> "$HERE/runs"\n{script}\n')
        fresh.chmod(0o755)
        fresh.replace(program)

    @property
    def runs(self) -> list[str]:
        file = self._folder / "runs"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path, monkeypatch)


async def test_a_helper_is_asked_for_the_host(installed: Installed) -> None:
    credentials = open_credentials(CredentialsSettings(helper="test"))
    assert installed.runs == []
    assert await credentials.login(HOST) == Login("AWS", "secret-1")
    assert installed.runs == [f"get {HOST}"]
    assert credentials.identity == "helper:test"


async def test_docker_hub_is_asked_for_by_its_old_name(installed: Installed) -> None:
    await Helper("test", 600).login("registry-1.docker.io")
    assert installed.runs == ["get https://index.docker.io/v1/"]


async def test_an_identity_token_is_passed_on(installed: Installed) -> None:
    installed.does("""echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh-me"}'""")
    assert await Helper("test", 600).login(HOST) == Login("<token>", "refresh-me")


async def test_twenty_logins_at_once_are_one_run(installed: Installed) -> None:
    helper = Helper("test", 600)
    logins = await asyncio.gather(*(helper.login(HOST) for _ in range(20)))
    assert set(logins) == {Login("AWS", "secret-1")}
    assert len(installed.runs) == 1


async def test_each_host_has_a_login_of_its_own(installed: Installed) -> None:
    helper = Helper("test", 600)
    await asyncio.gather(helper.login("a.example"), helper.login("b.example"))
    assert sorted(installed.runs) == ["get a.example", "get b.example"]


async def test_an_answer_is_used_for_its_lifetime(installed: Installed) -> None:
    clock = Clock()
    helper = Helper("test", 600, clock=clock)
    await helper.login(HOST)
    clock.now += 599
    assert await helper.login(HOST) == Login("AWS", "secret-1")
    clock.now += 2
    assert await helper.login(HOST) == Login("AWS", "secret-2")


async def test_a_refused_login_is_asked_for_again_at_once_and_once(installed: Installed) -> None:
    helper = Helper("test", 600)
    await helper.login(HOST)
    logins = await asyncio.gather(*(helper.login(HOST, renew=True) for _ in range(10)))
    logins.append(await helper.login(HOST, renew=True))
    assert set(logins) == {Login("AWS", "secret-2")}
    assert len(installed.runs) == 2


async def test_credentials_not_found_is_anonymous(installed: Installed) -> None:
    installed.does("echo 'credentials not found in native keychain'; exit 1")
    assert await Helper("test", 600).login(HOST) is None


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("echo 'hush: broken' >&2; exit 3", Denied, "docker-credential-test ended with status 3"),
        ("echo 'dial tcp: lookup api.example: no such host hush'; exit 1", Unreachable, "cannot reach its service"),
        ("echo 'hush'", Denied, "answers what is not JSON"),
        ("echo '[\"hush\"]'", Denied, "without Username and Secret"),
        ("""echo '{"Username": "hush"}'""", Denied, "without Username and Secret"),
        ("kill -9 $$", Denied, "ended with status -9"),
        ("yes hush | head -c 300000", Denied, "or too much"),
    ],
)
async def test_a_helper_that_fails_is_an_error_without_its_words(
    installed: Installed, caplog: pytest.LogCaptureFixture, script: str, kind: type[UpstreamError], said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    installed.does(script)
    with pytest.raises(kind, match=f"^{HOST}: .*{said}") as raised:
        await Helper("test", 600).login(HOST)
    assert "hush" not in f"{raised.value!r} {caplog.text}"


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60 & wait", "sleep 60 & exit 0"])
async def test_a_helper_that_hangs_is_ended_with_its_children(installed: Installed, script: str) -> None:
    installed.does(f'echo $$ >> "$HERE/group"; {script}')
    began = time.monotonic()
    with pytest.raises(Unreachable, match="does not answer within"):
        await Helper("test", 600, seconds=0.5).login(HOST)
    assert time.monotonic() - began < 5
    group = int((Path(os.environ["HERE"]) / "group").read_text())
    assert not await asyncio.to_thread(_runs_after, group, 5.0)


def _runs_after(group: int, seconds: float) -> bool:
    """Whether a process of the group, other than a zombie, is there after at most that long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = []
        for folder in Path("/proc").iterdir():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if fields and int(fields[2]) == group:
                states.append(fields[0])
        if all(state in "ZX" for state in states):
            return False
        time.sleep(0.02)
    return True


async def test_a_helper_that_reads_nothing_is_heard(installed: Installed, tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text("""#!/bin/sh\nexec <&-\necho '{"Username":"a","Secret":"b"}'\n""")
    assert await Helper("test", 600).login(HOST) == Login("a", "b")


async def test_a_helper_gets_the_environment_without_our_secrets(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "edge")
    monkeypatch.setenv("EDGE_REGISTRY_STORAGE__S3__SECRET_KEY", "ours")
    monkeypatch.setenv("REGISTRY_STORAGE_S3_SECRETKEY", "ours")
    ours = "$EDGE_REGISTRY_STORAGE__S3__SECRET_KEY$REGISTRY_STORAGE_S3_SECRETKEY"
    installed.does(f"""echo '{{"Username":"'$AWS_PROFILE'","Secret":"_'{ours}'"}}'""")
    assert await Helper("test", 600).login(HOST) == Login("edge", "_")


async def test_where_a_helper_fails_later_its_last_login_goes_on_until_it_is_refused(installed: Installed) -> None:
    clock = Clock()
    helper = Helper("test", 600, clock=clock)
    await helper.login(HOST)
    installed.does("echo 'no route to host'; exit 1")
    clock.now += 5000
    assert await helper.login(HOST) == Login("AWS", "secret-1")
    clock.now += 10
    with pytest.raises(Unreachable):
        await helper.login(HOST, renew=True)


async def test_a_name_that_is_a_path_is_refused(installed: Installed) -> None:
    with pytest.raises(Denied, match="name of its credential helper is refused"):
        await Helper("../evil", 600).login(HOST)


async def test_a_helper_that_is_not_installed_is_denied() -> None:
    with pytest.raises(Denied, match="docker-credential-no-such cannot be started"):
        await Helper("no-such", 600).login(HOST)


async def test_a_cancelled_caller_does_not_end_the_run_of_others(installed: Installed) -> None:
    helper = Helper("test", 600)
    first = asyncio.create_task(helper.login(HOST))
    second = asyncio.create_task(helper.login(HOST))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == Login("AWS", "secret-1")
    assert len(installed.runs) == 1


async def test_a_file_of_logins_names_helpers(installed: Installed, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {HOST: {}}, "credHelpers": {HOST: "test"}}))
    credentials = open_credentials(CredentialsSettings(config=path))
    assert await credentials.login(HOST) == Login("AWS", "secret-1")
    assert await credentials.login(HOST, renew=True) == Login("AWS", "secret-2")
    assert await credentials.login("other.example") is None


async def test_a_file_whose_store_is_not_installed_gives_what_it_holds_itself(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    entry = {"username": "me", "password": "hush"}
    path.write_text(json.dumps({"auths": {HOST: entry}, "credsStore": "no-such"}))
    credentials = open_credentials(CredentialsSettings(config=path))
    assert await credentials.login(HOST) == Login("me", "hush")
    with pytest.raises(Denied, match="docker-credential-no-such"):
        await credentials.login("other.example")
