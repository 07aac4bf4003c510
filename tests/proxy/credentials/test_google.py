"""Google access tokens, end to end against services with the documented protocols."""

import asyncio
import gc
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import StartError
from app.proxy.credentials import Credentials, Login, open_credentials
from app.proxy.credentials.google import Google, open_google
from app.proxy.credentials.tokens import KeyFile
from app.proxy.errors import Denied, Unreachable
from app.proxy.settings import CredentialsSettings, GoogleSettings
from tests.services.google import ACCOUNT, AUDIENCE, GoogleServices

HOST = "europe-docker.pkg.dev"
FIRST, SECOND = "eyJ.first.subject", "eyJ.second.subject"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(FIRST)
    return path


@pytest.fixture
async def google(subject: Path) -> AsyncIterator[GoogleServices]:
    async with GoogleServices(subject) as services:
        yield services


def written(folder: Path, info: dict[str, Any]) -> Path:
    path = folder / "credentials.json"
    path.write_text(json.dumps(info))
    return path


def opened(path: Path) -> Credentials:
    return open_credentials(CredentialsSettings(google=GoogleSettings(file=path)))


async def token(credentials: Credentials, *, renew: bool = False) -> str:
    login = await credentials.login(HOST, renew=renew)
    assert login is not None
    assert login.username == "oauth2accesstoken"
    return login.password


async def test_workload_identity_with_impersonation_asks_sts_then_iam(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    assert google.asked == []
    assert google.accepts(await token(credentials))
    assert google.counts == {"sts": 1, "iam": 1}
    assert credentials.identity == f"google:{ACCOUNT}"


async def test_workload_identity_without_impersonation_uses_the_federated_token(
    google: GoogleServices, tmp_path: Path
) -> None:
    credentials = opened(written(tmp_path, google.external_account(impersonate=False)))
    assert google.accepts(await token(credentials))
    assert google.counts == {"sts": 1}
    assert credentials.identity == f"google:{AUDIENCE.removeprefix('//iam.googleapis.com/')}"


async def test_a_rotated_token_file_is_sent_with_the_next_exchange(
    google: GoogleServices, tmp_path: Path, subject: Path
) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    first = await token(credentials)
    fresh = subject.with_suffix(".new")
    fresh.write_text(SECOND)
    fresh.replace(subject)
    google.revoke()
    second = await token(credentials, renew=True)
    assert google.subjects == [FIRST, SECOND]
    assert google.accepts(second)
    assert not google.accepts(first)


async def test_a_token_file_in_json_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text(json.dumps({"id_token": FIRST}))
    async with GoogleServices(path, token_field="id_token") as google:
        credentials = opened(written(tmp_path, google.external_account()))
        assert google.accepts(await token(credentials))
        assert google.subjects == [FIRST]


async def test_a_service_account_key_signs_an_assertion(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.service_account()))
    assert google.accepts(await token(credentials))
    assert google.counts == {"oauth": 1}
    assert credentials.identity == f"google:{ACCOUNT}"


async def test_without_a_file_the_metadata_server_is_asked(
    google: GoogleServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", google.address)
    credentials = open_google(None)
    assert google.accepts(await token(credentials))
    assert google.counts == {"metadata": 1}
    assert credentials.identity == "google:metadata"


async def test_the_environment_names_the_file(
    google: GoogleServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, google.service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert google.accepts(await token(open_google(None)))


@pytest.mark.parametrize("impersonate", [True, False])
async def test_nobody_but_the_services_of_the_file_is_asked(
    google: GoogleServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impersonate: bool
) -> None:
    names: list[str] = []
    lookup = socket.getaddrinfo

    def recorded(host: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(str(host))
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    credentials = opened(written(tmp_path, google.external_account(impersonate=impersonate)))
    await token(credentials)
    await token(credentials, renew=True)
    assert set(names) == {"127.0.0.1"}
    paths = {path.rpartition(":")[2].rpartition("/")[2] for path in google.asked}
    assert paths == ({"token", "generateAccessToken"} if impersonate else {"token"})


async def test_twenty_logins_at_once_are_one_exchange(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    tokens = await asyncio.gather(*(token(credentials) for _ in range(20)))
    assert len(set(tokens)) == 1
    assert google.counts == {"sts": 1, "iam": 1}


async def test_twenty_refused_requests_renew_once(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    await token(credentials)
    google.revoke()
    tokens = await asyncio.gather(*(token(credentials, renew=True) for _ in range(20)))
    tokens.append(await token(credentials, renew=True))
    assert len(set(tokens)) == 1
    assert google.accepts(tokens[0])
    assert google.counts["sts"] == 2


async def test_a_token_is_renewed_minutes_before_its_end(google: GoogleServices, tmp_path: Path) -> None:
    clock = Clock()
    credentials = Google(KeyFile(written(tmp_path, google.external_account())), clock=clock)
    first = await token(credentials)
    clock.now += 3600 - 320
    assert await token(credentials) == first
    clock.now += 25
    second = await token(credentials)
    assert second != first
    assert google.counts == {"sts": 2, "iam": 2}


async def test_a_token_that_still_holds_is_used_while_sts_is_down(google: GoogleServices, tmp_path: Path) -> None:
    clock = Clock()
    credentials = Google(KeyFile(written(tmp_path, google.external_account())), clock=clock)
    first = await token(credentials)
    google.status = 503
    clock.now += 3600 - 200
    assert await token(credentials) == first
    clock.now += 195
    with pytest.raises(Unreachable):
        await token(credentials)


@pytest.mark.parametrize("kind", ["external", "key", "metadata"])
async def test_a_refusal_is_denied_and_tells_no_secret(
    google: GoogleServices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", google.address)
    infos = {"external": google.external_account(), "key": google.service_account()}
    credentials = open_google(written(tmp_path, infos[kind]) if kind in infos else None)
    google.refuse = True
    with pytest.raises(Denied) as raised:
        await token(credentials)
    assert raised.value.reason.startswith(f"{HOST}: Google refuses the credentials (4")
    assert raised.value.__cause__ is None
    told = f"{raised.value!r} {caplog.text}"
    assert FIRST not in told
    assert "eyJ" not in told


@pytest.mark.parametrize("trouble", ["500", "429", "html", "redirect", "dead", "silent"])
async def test_a_token_service_that_does_not_answer_is_unreachable_at_once(
    google: GoogleServices, tmp_path: Path, trouble: str
) -> None:
    info = google.external_account()
    google.status = int(trouble) if trouble.isdigit() else None
    google.html = trouble == "html"
    google.redirect = f"{google.url}/elsewhere" if trouble == "redirect" else None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if trouble in ("dead", "silent"):
            info["token_url"] = f"http://127.0.0.1:{1 if trouble == 'dead' else silent.getsockname()[1]}/v1/token"
        credentials = Google(KeyFile(written(tmp_path, info)), seconds=0.5)
        began = time.monotonic()
        with pytest.raises(Unreachable) as raised:
            await token(credentials)
    assert time.monotonic() - began < 2
    assert FIRST not in raised.value.reason
    assert "/elsewhere" not in google.asked


@pytest.mark.parametrize("trouble", ["500", "dead"])
async def test_google_auth_does_not_try_again_for_minutes(google: GoogleServices, tmp_path: Path, trouble: str) -> None:
    info = google.service_account()
    google.status = 500 if trouble == "500" else None
    if trouble == "dead":
        info["token_uri"] = "http://127.0.0.1:1/token"
    credentials = opened(written(tmp_path, info))
    with pytest.raises(Unreachable):
        await asyncio.wait_for(token(credentials), 2)
    assert google.asked == (["/token"] if trouble == "500" else [])


async def test_a_failure_is_everybodys_and_ends_soon(google: GoogleServices, tmp_path: Path) -> None:
    clock = Clock()
    credentials = Google(KeyFile(written(tmp_path, google.external_account())), clock=clock)
    google.status = 500
    results = await asyncio.gather(*(credentials.login(HOST) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {Unreachable}
    assert len(google.asked) == 1
    google.status = None
    clock.now += 3
    assert google.accepts(await token(credentials))


async def test_the_loop_turns_while_a_token_service_is_silent(google: GoogleServices, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        info = google.external_account() | {"token_url": f"http://127.0.0.1:{silent.getsockname()[1]}/v1/token"}
        credentials = Google(KeyFile(written(tmp_path, info)), seconds=0.5)
        waiting = asyncio.create_task(token(credentials))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            turns += 1
    with pytest.raises(Unreachable):
        await waiting
    assert turns > 5


async def test_an_exchange_goes_on_when_its_first_caller_leaves(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    first = asyncio.create_task(token(credentials))
    await asyncio.sleep(0)
    second = asyncio.create_task(token(credentials))
    await asyncio.sleep(0)
    first.cancel()
    assert google.accepts(await second)
    assert google.counts["sts"] == 1


async def test_a_lost_token_file_is_denied(google: GoogleServices, tmp_path: Path, subject: Path) -> None:
    credentials = opened(written(tmp_path, google.external_account()))
    subject.unlink()
    with pytest.raises(Denied, match="cannot be used"):
        await token(credentials)
    assert google.asked == []


async def test_a_rotated_key_file_is_used_for_the_next_exchange(google: GoogleServices, tmp_path: Path) -> None:
    path = written(tmp_path, google.service_account())
    credentials = opened(path)
    await token(credentials)
    path.write_text(json.dumps(google.external_account()))
    await token(credentials, renew=True)
    assert google.counts == {"oauth": 1, "sts": 1, "iam": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "authorized_user"}, "neither external_account nor service_account"),
        ({"token_url": "http://sts.example/v1/token"}, "token_url is no https URL"),
        ({"service_account_impersonation_url": "http://iam.example/x"}, "is no https URL"),
        ({"credential_source": {"executable": {"command": "/bin/true"}}}, "credential helper"),
        ({"credential_source": {}}, "credential helper"),
        ({"token_url": "https://[sts"}, "lacks something"),
        ({"subject_token_type": "urn:ietf:params:aws:token-type:aws4_request"}, "credential helper"),
        ({"credential_source": {"file": "a", "url": "https://b.example"}}, "lacks something"),
    ],
)
async def test_a_file_that_cannot_be_used_stops_the_start(
    google: GoogleServices, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(StartError, match=said):
        opened(written(tmp_path, google.external_account() | change))


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_is_no_json_object_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(StartError, match="JSON"):
        opened(path)


def test_a_key_file_with_a_broken_key_stops_the_start_without_the_key(tmp_path: Path) -> None:
    info = {"type": "service_account", "client_email": ACCOUNT, "token_uri": "https://oauth2.example/token"}
    with pytest.raises(StartError, match="its key is broken") as raised:
        opened(written(tmp_path, info | {"private_key": "hush"}))
    assert "hush" not in str(raised.value)


def test_where_google_auth_is_missing_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.proxy.credentials.google.find_spec", lambda name: None)
    with pytest.raises(StartError, match=r"pip install 'edge-registry\[google\]'"):
        opened(written(tmp_path, {}))


async def test_a_login_shows_no_secret(google: GoogleServices, tmp_path: Path) -> None:
    credentials = opened(written(tmp_path, google.service_account()))
    login = await credentials.login(HOST)
    assert isinstance(login, Login)
    assert login.password not in repr(login)


async def test_a_failure_that_nobody_waits_for_is_no_complaint(google: GoogleServices, tmp_path: Path) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    credentials = Google(KeyFile(written(tmp_path, google.external_account())))
    google.status = 500
    waiting = asyncio.create_task(token(credentials))
    await asyncio.sleep(0)
    waiting.cancel()
    run = credentials._remembered._run
    assert run is not None
    await asyncio.wait({run})
    assert google.asked == ["/v1/token"]
    del credentials, run, waiting
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
