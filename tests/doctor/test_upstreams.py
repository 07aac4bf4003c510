import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.doctor.limits import within
from app.doctor.report import Check, Verdict
from app.doctor.upstreams import LIMIT, UpstreamExamination
from app.proxy.settings import UpstreamSettings
from tests.doctor.verdicts import bad, the_one
from tests.services.front import Fault, Front, HubLimit, TokenService
from tests.services.minio import free_port
from tests.services.registry import Credentials, RegistryServer, filesystem_store

USER = Credentials("me", "correct-horse")
KEY = "proxy.upstreams.3"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("upstream")
    with RegistryServer(folder, filesystem_store(folder / "data")) as server:
        yield server


@pytest.fixture
def front(registry: RegistryServer) -> Iterator[Front]:
    with Front(registry.url) as front:
        yield front


async def examined(url: str, **settings: Any) -> list[Check]:
    upstream = UpstreamSettings.model_validate({"name": "up.example", "url": url, **settings})
    return list(await within("up.example", LIMIT, "a fix", UpstreamExamination(upstream, KEY).examine()))


def password(text: str = USER.password) -> dict[str, Any]:
    return {"username": USER.name, "password": text}


def lock(front: Front, way: str) -> None:
    if way == "basic":
        front.login = USER
    else:
        front.tokens = TokenService({USER.name: USER.password}, anonymous=False)


async def test_an_open_upstream_is_sound(front: Front) -> None:
    assert bad(await examined(front.url)) == []


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_the_right_password_is_let_in(way: str, front: Front) -> None:
    lock(front, way)
    checks = await examined(front.url, credentials=password())
    assert bad(checks) == []
    assert checks[1].found.startswith("the user me is let in")


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_wrong_password_is_named_by_its_setting_and_not_shown(way: str, front: Front) -> None:
    lock(front, way)
    check = the_one(await examined(front.url, credentials=password("hush-hush")))
    assert check.name == "up.example login"
    assert check.fix is not None
    assert check.fix.startswith(f"set {KEY}.credentials")
    assert "hush" not in repr(check)


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_login_that_is_wanted_and_not_configured_is_found(way: str, front: Front) -> None:
    lock(front, way)
    check = the_one(await examined(front.url))
    assert check.fix is not None
    assert f"{KEY}.credentials" in check.fix


async def test_an_anonymous_token_is_enough_where_anybody_may_pull(front: Front) -> None:
    front.tokens = TokenService()
    checks = await examined(front.url)
    assert bad(checks) == []
    assert "got a token for library/alpine" in checks[1].found


async def test_a_path_before_repositories_is_part_of_what_a_token_is_asked_for(front: Front) -> None:
    front.tokens = TokenService({USER.name: USER.password}, anonymous=False)
    assert bad(await examined(f"{front.url}/project/repo", credentials=password())) == []
    assert front.tokens.issued[0].scopes == ("repository:project/repo/library/alpine:pull",)


@pytest.mark.parametrize(("left", "verdict"), [(90, Verdict.OK), (3, Verdict.WARNING)])
async def test_what_is_left_of_a_rate_limit_is_said_and_costs_no_pull(
    left: int, verdict: Verdict, front: Front
) -> None:
    front.hub = HubLimit(100, remaining=left)
    limit = (await examined(front.url))[-1]
    assert (limit.verdict, limit.found) == (verdict, f"{left} of 100 pulls left")
    assert front.hub.remaining == left


async def test_a_name_that_dns_does_not_know_is_named() -> None:
    check = the_one(await examined("https://registry.invalid"))
    assert check.found == "the name registry.invalid cannot be resolved"


async def test_an_upstream_that_is_away_is_named_by_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    check = the_one(await examined(url))
    assert "Connection refused" in check.found
    assert check.fix is not None
    assert url in check.fix


async def test_an_upstream_that_says_nothing_holds_nobody_up(front: Front) -> None:
    front.on("/v2/", Fault(no_answer="silence"))
    start = time.monotonic()
    check = the_one(await examined(front.url))
    assert check.found == "no answer within 5 s"
    assert time.monotonic() - start < 2 * LIMIT


async def test_a_page_of_a_captive_portal_is_told_from_a_registry(front: Front) -> None:
    front.on("/v2/", Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>"))
    check = the_one(await examined(front.url))
    assert check.fix is not None
    assert "portal" in check.fix


async def test_a_certificate_of_an_unknown_authority_asks_for_it(tmp_path: Path) -> None:
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data"), tls=True) as server:
        check = the_one(await examined(server.url))
        assert "certificate" in check.found
        assert check.fix is not None
        assert check.fix.startswith(f"set {KEY}.tls.ca")
        assert bad(await examined(server.url, tls={"ca": str(server.ca)})) == []


async def test_a_tls_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    check = the_one(await examined("https://registry.invalid", tls={"ca": str(tmp_path / "none")}))
    assert check.fix is not None
    assert f"{KEY}.tls" in check.fix
