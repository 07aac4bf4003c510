"""Logging in to upstreams, end to end: tokens, passwords, files and helpers, what is renewed and what is refused."""

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.pulling import UP, pulling, section
from tests.services.app import Running
from tests.services.client import Answer, Image, digest_of
from tests.services.front import Fault, Front, TokenService
from tests.services.pushing import Pusher
from tests.services.registry import Credentials, RegistryServer, filesystem_store
from tests.services.upstreams import Distribution

USER = Credentials("me", "correct-horse")
TAGGED = f"/v2/{UP}/team/app/manifests/1"
LARGE = 2_000_000
CROWD = 50


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [LARGE, *range(1, CROWD)])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def password(user: Credentials = USER) -> dict[str, Any]:
    return {"username": user.name, "password": user.password}


def encoded(user: Credentials) -> str:
    return base64.b64encode(f"{user.name}:{user.password}".encode()).decode()


def blob(data: bytes) -> str:
    return f"/v2/{UP}/team/app/blobs/{digest_of(data)}"


async def pull(service: Running, image: Image) -> None:
    """The manifest and two layers, as they are."""
    assert (await service.client.get(TAGGED)).expect(200).body == image.data
    for layer in image.blobs[1:3]:
        assert (await service.client.get(blob(layer))).expect(200).body == layer


async def crowd(service: Running, image: Image) -> list[Answer]:
    """Many pulls at once of things that are not here."""
    return await asyncio.gather(*(service.client.get(blob(layer)) for layer in image.blobs[2:]))


def lock(front: Front, way: str, user: Credentials = USER) -> None:
    """Makes the front ask for this user."""
    if way == "basic":
        front.login, front.tokens = user, None
    else:
        front.tokens = TokenService({user.name: user.password}, anonymous=False)


def asked_for_tokens(front: Front) -> int:
    return front.count("/token")


async def test_an_image_is_pulled_with_one_anonymous_token(front: Front, image: Image, tmp_path: Path) -> None:
    front.tokens = TokenService()
    async with pulling(tmp_path, section(front.url)) as service:
        await pull(service, image)
    assert [(token.user, token.scopes) for token in front.tokens.issued] == [(None, ("repository:team/app:pull",))]


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_an_image_is_pulled_with_a_password(way: str, front: Front, image: Image, tmp_path: Path) -> None:
    lock(front, way)
    async with pulling(tmp_path, section(front.url, credentials=password())) as service:
        await pull(service, image)
    if way == "token":
        assert front.tokens is not None
        assert [token.user for token in front.tokens.issued] == [USER.name]
        assert {one.path for one in front.requests if one.authorization == f"Basic {encoded(USER)}"} == {"/token"}


async def test_a_crowd_of_pulls_takes_one_token_and_one_more_when_that_is_refused(
    front: Front, image: Image, tmp_path: Path
) -> None:
    front.tokens = TokenService({USER.name: USER.password}, anonymous=False)
    front.on("/token", Fault(delay=0.2))
    async with pulling(tmp_path, section(front.url, credentials=password())) as service:
        assert {answer.status for answer in await crowd(service, image)} == {200}
        assert asked_for_tokens(front) == 1
        front.tokens.revoke()
        absent = [f"/v2/{UP}/team/app/blobs/{digest_of(str(number).encode())}" for number in range(CROWD)]
        answers = await asyncio.gather(*(service.client.get(path) for path in absent))
        assert {answer.status for answer in answers} == {404}
        assert asked_for_tokens(front) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_ends_in_the_middle_of_a_layer_is_renewed_for_the_rest(
    status: int, front: Front, image: Image, tmp_path: Path
) -> None:
    front.tokens = TokenService({USER.name: USER.password}, anonymous=False, expired_status=status)
    large = image.blobs[1]
    path = f"/v2/team/app/blobs/{digest_of(large)}"
    stalled = front.on(path, Fault(stall=LARGE // 2), method="GET", times=1)
    async with pulling(tmp_path, section(front.url, credentials=password())) as service:
        running = asyncio.create_task(service.client.get(blob(large)))
        await asyncio.to_thread(front.wait_until, lambda: stalled.taken == 1 and front.sent(path) == LARGE // 2)
        front.tokens.revoke()
        front.cut_all()
        assert (await running).expect(200).body == large
    assert asked_for_tokens(front) == 2
    parts = [(one.headers.get("range"), one.status) for one in front.records.find(path, "GET")]
    assert parts[0] == (None, 200)
    assert [code for _, code in parts[1:]] == [status, 206]
    assert parts[1][0] == parts[2][0]
    assert int(str(parts[1][0]).removeprefix("bytes=").removesuffix("-")) > 0


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_wrong_password_is_denied_without_a_401_and_without_a_storm(
    way: str, front: Front, image: Image, tmp_path: Path
) -> None:
    lock(front, way, Credentials(USER.name, "another"))
    async with pulling(tmp_path, section(front.url, credentials=password())) as service:
        refused = (await service.client.get(TAGGED)).expect(403)
        assert refused.codes == ["DENIED"]
        assert refused.header("www-authenticate") is None
        assert USER.password not in refused.body.decode()
        front.forget()
        answers = await crowd(service, image)
        assert {answer.status for answer in answers} == {403}
        assert len([one for one in front.requests if one.authorization == f"Basic {encoded(USER)}"]) <= 2


async def test_a_private_repository_is_denied_to_nobody(front: Front, image: Image, tmp_path: Path) -> None:
    front.tokens = TokenService({USER.name: USER.password}, anonymous=("public/*",))
    async with pulling(tmp_path, section(front.url)) as service:
        for answer in (await service.client.get(TAGGED), await service.client.get(blob(image.blobs[1]))):
            answer.expect(403)
            assert answer.header("www-authenticate") is None


def docker_config(folder: Path, front: Front, user: Credentials) -> dict[str, Any]:
    written = folder / "config.json"
    written.write_text(json.dumps({"auths": {front.host: {"auth": encoded(user)}}, "HttpHeaders": {"X-Meta": "1"}}))
    return {"config": str(written)}


def podman_config(folder: Path, front: Front, user: Credentials) -> dict[str, Any]:
    written = folder / "auth.json"
    written.write_text(json.dumps({"auths": {f"{front.host}/team": {"auth": encoded(user)}}}))
    return {"config": str(written)}


def helper(folder: Path, front: Front, user: Credentials) -> dict[str, Any]:
    program = folder / "docker-credential-t5"
    answer = json.dumps({"ServerURL": front.host, "Username": user.name, "Secret": user.password})
    program.with_suffix(".new").write_text(f"#!/bin/sh\nread host\ncat <<'END'\n{answer}\nEND\n")
    program.with_suffix(".new").chmod(0o755)
    program.with_suffix(".new").replace(program)
    return {"helper": "t5"}


def named_helper(folder: Path, front: Front, user: Credentials) -> dict[str, Any]:
    helper(folder, front, user)
    written = folder / "config.json"
    written.write_text(json.dumps({"credHelpers": {front.host: "t5"}}))
    return {"config": str(written)}


def password_file(folder: Path, front: Front, user: Credentials) -> dict[str, Any]:
    written = folder / "password"
    written.write_text(user.password + "\n")
    return {"username": user.name, "password_file": str(written)}


@pytest.mark.parametrize("source", [docker_config, podman_config, helper, named_helper, password_file])
@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_login_that_was_changed_in_its_source_is_used_with_the_next_pull(
    source: Any, way: str, front: Front, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lock(front, way)
    async with pulling(tmp_path, section(front.url, credentials=source(tmp_path, front, USER))) as service:
        (await service.client.get(blob(image.blobs[1]))).expect(200)
        renewed = Credentials(USER.name, "battery-staple")
        source(tmp_path, front, renewed)
        lock(front, way, renewed)
        (await service.client.get(blob(image.blobs[2]))).expect(200)
        (await service.client.get(TAGGED)).expect(200)


async def test_no_secret_of_a_login_is_written_or_said(front: Front, image: Image, tmp_path: Path) -> None:
    """A real server, with every way of logging in, right and wrong."""
    wrong = Credentials("me", "wrong-horse")
    with Front(front.target) as basic, Front(front.target) as refusing:
        lock(front, "token")
        lock(basic, "basic")
        lock(refusing, "token")
        upstreams = [
            section(front.url, "token.test", credentials=password()),
            section(basic.url, "basic.test", credentials=docker_config(tmp_path, basic, USER)),
            section(basic.url, "helper.test", credentials=helper(tmp_path, basic, USER)),
            section(refusing.url, "wrong.test", credentials=password(wrong)),
            section(basic.url, "wrong-basic.test", credentials=password(wrong)),
        ]
        settings = {
            "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps(upstreams),
            "EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(tmp_path / "spool"),
            "EDGE_REGISTRY_LOG__LEVEL": "debug",
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        }
        with RegistryServer(tmp_path / "server", filesystem_store(tmp_path / "data"), settings=settings) as server:
            pusher, said = Pusher(server.url), []
            for name, status in [(str(entry["name"]), 200) for entry in upstreams[:3]] + [
                ("wrong.test", 403),
                ("wrong-basic.test", 403),
            ]:
                for path in (f"/v2/{name}/team/app/manifests/1", blob(image.blobs[3]).replace(UP, name)):
                    answer = pusher.request("GET", path)
                    assert answer.status == status, (path, answer)
                    said += [] if status == 200 else [answer.body.decode(), str(answer.headers)]
            assert front.tokens is not None
            said.append(server.request("GET", "/metrics").body.decode())
            said.append(server.read_log())
            secrets = [USER.password, wrong.password, encoded(USER), encoded(wrong)]
            secrets += [token.token for token in front.tokens.issued]
            assert len(secrets) > 4
            assert [secret for secret in secrets if any(secret in text for text in said)] == []
            assert "wrong.test" in server.read_log()
