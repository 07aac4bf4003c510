"""Logins and tokens: what is asked for, how often, and of whom."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from yarl import URL

from app.proxy.credentials.login import IDENTITY_TOKEN, Login
from app.proxy.errors import Denied, Failing, Missing, Portal, RateLimited, UpstreamError
from app.proxy.realms import trusted_realm
from tests.proxy.served import Logins, Served, anonymous, dial, serve

ME, OTHER = Login("me", "old"), Login("me", "new")


def header(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


@dataclass
class Registry:
    """A registry with a token service: `valid` are the tokens that it takes, `logins` the headers that get one."""

    logins: set[str | None] = field(default_factory=lambda: {None})
    valid: set[str] = field(default_factory=set)
    issued: int = 0
    life: dict[str, Any] = field(default_factory=lambda: {"expires_in": 300})
    post: int | None = 405
    refusal: int = 401
    realm: str = ""
    said: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    served: Served = field(default_factory=lambda: Served(0, "http"))

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return await self.token(request)
        given = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given in self.valid:
            return web.Response(body=b"{}")
        realm = self.realm or f"{self.served.base}/token"
        challenge = f'Bearer realm="{realm}",service="reg"{self.said}'
        if given:
            challenge += ',error="invalid_token"'
        status = self.refusal if given else 401
        return web.Response(status=status, headers={"WWW-Authenticate": challenge} if status == 401 else {})

    async def token(self, request: web.Request) -> web.StreamResponse:
        await self.gate.wait()
        if request.method == "POST":
            if self.post is not None:
                return web.Response(status=self.post)
        elif request.headers.get("Authorization") not in self.logins:
            return web.Response(status=401)
        self.issued += 1
        value = f"token{self.issued}"
        self.valid.add(value)
        return web.json_response({"token": value, **self.life})

    @property
    def tokens_asked(self) -> list[str]:
        return [line for line in self.served.asked if "/token" in line]


@asynccontextmanager
async def started(registry: Registry) -> AsyncIterator[Registry]:
    registry.gate.set()
    async with serve(registry) as served:
        registry.served = served
        yield registry


async def test_an_anonymous_token_is_fetched_once_and_sent_unasked() -> None:
    async with started(Registry()) as registry, dial(registry.served.base) as dialled:
        for tag in ("1", "2", "3"):
            await dialled.client.get("team/app", f"manifests/{tag}")
        assert registry.served.authorizations() == [None, "Bearer token1", "Bearer token1", "Bearer token1"]
        assert registry.tokens_asked == ["GET /token?service=reg&scope=repository:team/app:pull"]
        await dialled.client.get("team/other", "manifests/1")
        assert registry.issued == 2


async def test_a_login_goes_to_the_token_service_and_only_there() -> None:
    async with started(Registry(logins={header(ME)})) as registry:
        login = Logins(ME)
        async with dial(f"{registry.served.base}/project", login) as dialled:
            await dialled.client.get("app", "manifests/1")
        assert registry.served.authorizations("/token") == [header(ME)]
        assert registry.served.authorizations() == [None, "Bearer token1"]
        assert registry.tokens_asked[0].endswith("scope=repository:project/app:pull")
        assert login.asked == [(f"127.0.0.1:{registry.served.port}", False)]


async def test_with_a_login_no_wider_scope_is_asked_for_than_is_needed() -> None:
    said = ',scope="repository:secret/other:pull,push"'
    async with started(Registry(logins={header(ME)}, said=said)) as registry:
        async with dial(registry.served.base, Logins(ME)) as dialled:
            await dialled.client.get("app", "manifests/1")
        assert registry.tokens_asked[0].endswith("scope=repository:app:pull")


async def test_a_crowd_shares_one_token() -> None:
    async with started(Registry()) as registry, dial(registry.served.base) as dialled:
        registry.gate.clear()
        crowd = [asyncio.create_task(dialled.client.get("app", f"manifests/{n}")) for n in range(20)]
        async with asyncio.timeout(5):
            while len(registry.served.asked) < 21:
                await asyncio.sleep(0.01)
        crowd[0].cancel()
        registry.gate.set()
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["CancelledError"] + ["Reply"] * 19
        assert registry.issued == 1


async def test_a_token_that_is_refused_is_replaced_once_for_everybody() -> None:
    async with started(Registry(logins={header(OTHER), header(ME)})) as registry:
        login = Logins(ME, OTHER)
        async with dial(registry.served.base, login) as dialled:
            await dialled.client.get("app", "manifests/1")
            registry.valid.clear()
            await asyncio.gather(*[dialled.client.get("app", f"manifests/{n}") for n in range(10)])
        assert registry.issued == 2
        assert [renew for _, renew in login.asked] == [False, True]


@pytest.mark.parametrize("refusal", [401, 403])
async def test_what_is_refused_twice_is_denied(refusal: int) -> None:
    registry = Registry(logins={header(ME)}, refusal=refusal)
    async with started(registry), dial(registry.served.base, Logins(ME)) as dialled:
        await dialled.client.get("app", "manifests/1")
        registry.valid = _Nothing()
        before = len(registry.served.requests)
        with pytest.raises(Denied):
            await dialled.client.get("app", "manifests/1")
        assert registry.issued == 2
        assert len(registry.served.requests) - before == 3  # the old token, a new one, and with that
        with pytest.raises(Denied):
            await dialled.client.get("new", "manifests/1")
        assert registry.issued == 3  # the same login gets no better token


class _Nothing(set[str]):
    """No token is valid, whatever is issued."""

    def __contains__(self, item: object) -> bool:
        return False


async def test_a_403_with_a_login_that_has_ended_is_mended_by_a_new_one() -> None:
    """As Amazon's registry answers for a token that has expired."""

    async def handler(request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if given == header(OTHER):
            return web.Response(body=b"{}")
        return web.Response(status=401 if given is None else 403, headers={"WWW-Authenticate": 'Basic realm="x"'})

    async with serve(handler) as upstream:
        login = Logins(ME, OTHER)
        async with dial(upstream.base, login) as dialled:
            await dialled.client.get("app", "manifests/1")
            await dialled.client.get("app", "manifests/2")
    assert upstream.authorizations() == [None, header(ME), header(OTHER), header(OTHER)]


async def test_a_login_that_the_token_service_refuses_is_renewed_once() -> None:
    async with started(Registry(logins={header(OTHER)})) as registry:
        async with dial(registry.served.base, Logins(ME, OTHER)) as dialled:
            await dialled.client.get("app", "manifests/1")
        assert registry.served.authorizations("/token") == [header(ME), header(OTHER)]
    async with started(Registry(logins=set())) as registry:
        async with dial(registry.served.base, Logins(ME)) as dialled:
            with pytest.raises(Denied, match="token service"):
                await dialled.client.get("app", "manifests/1")
        assert len(registry.tokens_asked) == 1


async def test_docker_hubs_401_to_an_anonymous_token_says_that_it_is_not_there() -> None:
    for name, credentials, kind in (
        ("docker.io", anonymous(), Missing),
        ("docker.io", Logins(ME), Denied),
        ("up.test", anonymous(), Denied),
    ):
        async with started(Registry(logins={None, header(ME)}, valid=_Nothing())) as registry:
            async with dial(registry.served.base, credentials, name=name) as dialled:
                with pytest.raises(UpstreamError) as caught:
                    await dialled.client.get("no/such", "manifests/1")
                assert type(caught.value) is kind
            assert len(registry.served.requests) == 3


async def test_an_identity_token_is_posted() -> None:
    async with started(Registry(post=None)) as registry:
        async with dial(registry.served.base, Logins(Login(IDENTITY_TOKEN, "refresh"))) as dialled:
            await dialled.client.get("app", "manifests/1")
        assert registry.tokens_asked == ["POST /token"]
        assert parse_qs(registry.served.bodies[1]) == {
            "grant_type": ["refresh_token"],
            "service": ["reg"],
            "client_id": ["edge-registry"],
            "scope": ["repository:app:pull"],
            "refresh_token": ["refresh"],
        }


@pytest.mark.parametrize("status", [400, 401, 404, 405])
async def test_an_identity_token_falls_back_to_get(status: int) -> None:
    async with started(Registry(post=status, logins={header(Login("", "refresh"))})) as registry:
        async with dial(registry.served.base, Logins(Login(IDENTITY_TOKEN, "refresh"))) as dialled:
            await dialled.client.get("app", "manifests/1")
        assert [line.split()[0] for line in registry.tokens_asked] == ["POST", "GET"]


# How long tokens live


@pytest.mark.parametrize(
    ("life", "used"),
    [
        ({"expires_in": 300}, 270),
        ({}, 54),
        ({"expires_in": None}, 54),
        ({"expires_in": "100"}, 90),
        ({"expires_in": 1}, 5),
        ({"expires_in": -1}, 54),
        ({"expires_in": "soon"}, 54),
        ({"expires_in": 1e12}, 54),
    ],
)
async def test_a_token_is_used_for_most_of_its_life(
    life: dict[str, Any], used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    async with started(Registry(life=life)) as registry, dial(registry.served.base) as dialled:
        monkeypatch.setattr("app.proxy.tokens.time", type("Clock", (), {"monotonic": staticmethod(lambda: now)}))
        await dialled.client.get("app", "manifests/1")
        now += used - 0.01
        await dialled.client.get("app", "manifests/1")
        assert registry.issued == 1
        now += 0.02
        await dialled.client.get("app", "manifests/1")
        assert registry.issued == 2


# What token services do wrong


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.Response(body=b"<html>", content_type="text/html"), Portal),
        (web.Response(body=b"[]"), Portal),
        (web.Response(body=b"{}"), Portal),
        (web.Response(body=b"not json"), Portal),
        (web.Response(body=json.dumps({"token": "a\r\nX-Evil: 1"}).encode()), Portal),
        (web.Response(body=json.dumps({"token": 5}).encode()), Portal),
        (web.Response(body=b'{"token":"' + b"x" * (1 << 20) + b'"}'), Portal),
        (web.Response(status=307, headers={"Location": "/token2"}), Portal),
        (web.Response(status=404), Failing),
        (web.Response(status=500), Failing),
        (web.Response(status=403), Denied),
        (web.Response(status=429, headers={"Retry-After": "7"}), RateLimited),
    ],
)
async def test_a_token_service_that_gives_none(answer: web.Response, kind: type[UpstreamError]) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return answer
        challenge = f'Bearer realm="{upstream.base}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with serve(handler) as upstream, dial(upstream.base, Logins(ME)) as dialled:
        with pytest.raises(UpstreamError) as caught:
            await dialled.client.get("app", "manifests/1")
        assert type(caught.value) is kind
        assert (dialled.rates.refuses() is not None) == (kind is RateLimited)
    assert len(upstream.requests) == 2


async def test_access_token_is_another_word_for_token() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"access_token": "it"})
        if request.headers.get("Authorization") == "Bearer it":
            return web.Response(body=b"{}")
        return web.Response(status=401, headers={"WWW-Authenticate": f'bearer Realm="{upstream.base}/token?a=1"'})

    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        await dialled.client.get("app", "manifests/1")
    assert upstream.asked[1] == "GET /token?a=1&scope=repository:app:pull"


# Whose token service it is


async def test_a_realm_of_another_host_sees_no_login_until_it_is_listed() -> None:
    async with started(Registry(logins={header(ME)})) as thief, started(Registry()) as registry:
        registry.realm = f"{thief.served.named}/token"
        async with dial(registry.served.base, Logins(ME), allow_private=True) as dialled:
            with pytest.raises(Portal, match="token_hosts"):
                await dialled.client.get("app", "manifests/1")
        assert thief.served.requests == []
        registry.valid.add("token1")
        for listed in ("localhost", f"localhost:{thief.served.port}"):
            thief.issued = 0
            async with dial(registry.served.base, Logins(ME), token_hosts=[listed]) as dialled:
                await dialled.client.get("app", "manifests/1")
        assert thief.served.authorizations("/token") == [header(ME)] * 2


@pytest.mark.parametrize(
    ("origin", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("https://r.example:5000", "https://R.example:5001/token"),
        ("http://r.example", "http://r.example/token"),
        ("http://r.example", "https://r.example/token"),
        ("https://r.example", "https://auth.listed/token"),
        ("https://r.example", "https://ported.listed:8443/token"),
    ],
)
def test_a_realm_that_belongs_to_the_upstream(origin: str, realm: str) -> None:
    found = trusted_realm(realm, URL(origin), ["auth.listed", "ported.listed:8443"], "up.test")
    assert str(found).lower() == realm.lower()


@pytest.mark.parametrize(
    ("origin", "realm"),
    [
        ("https://r.example", "http://r.example/token"),
        ("https://r.example", "http://auth.listed/token"),
        ("https://r.example", "https://auth.docker.io/token"),
        ("https://r.example", "https://r.example.evil/token"),
        ("https://r.example", "https://evil-r.example/token"),
        ("https://r.example", "https://r.example@evil/token"),
        ("https://r.example", "https://me:x@r.example/token"),
        ("https://r.example", "https://ported.listed/token"),
        ("https://r.example", "https://169.254.169.254/token"),
        ("https://r.example", "/token"),
        ("https://r.example", "file:///etc/passwd"),
        ("https://r.example", "https://r.example:99999/"),
        ("https://r.example", "https://[::1/token"),
        ("https://r.example", ""),
    ],
)
def test_a_realm_that_does_not(origin: str, realm: str) -> None:
    with pytest.raises(Portal) as caught:
        trusted_realm(realm, URL(origin), ["auth.listed", "ported.listed:8443"], "up.test")
    assert not re.search("passwd|me:x", caught.value.reason)
