"""Blobs that an upstream keeps elsewhere, as cloud registries do: followed with care, begun anew at the upstream."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.tls.authority import make_certificates
from tests.proxy.pulling import UP, pulling, section
from tests.services.client import Image, digest_of
from tests.services.front import Fault, Front, TokenService, redirect
from tests.services.registry import Credentials
from tests.services.upstreams import Distribution

USER = Credentials("me", "correct-horse")
BLOBS = "/v2/*/blobs/*"
TAGGED = f"/v2/{UP}/team/app/manifests/1"
SIZE = 1_000_000


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [SIZE])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def path_of(image: Image) -> str:
    return f"/v2/team/app/blobs/{digest_of(image.blobs[1])}"


def blob(image: Image) -> str:
    return path_of(image).replace("/v2/", f"/v2/{UP}/")


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_login_stays_behind_when_a_blob_is_elsewhere_and_its_address_is_told_to_nobody(
    way: str, front: Front, image: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host of the blobs refuses requests with an Authorization header, as S3 does."""
    front.login = USER if way == "basic" else None
    front.tokens = TokenService({USER.name: USER.password}, anonymous=False) if way == "token" else None
    front.on(BLOBS, Fault(elsewhere="host"))
    credentials = {"username": USER.name, "password": USER.password}
    caplog.set_level("DEBUG")
    async with pulling(tmp_path, section(front.url, credentials=credentials)) as service:
        assert (await service.client.get(TAGGED)).expect(200).body == image.data
        got = (await service.client.get(blob(image))).expect(200)
        assert got.body == image.blobs[1]
        assert got.header("location") is None
        followed = front.records.find("/elsewhere/*")
        assert [(one.authorization, one.status) for one in followed] == [(None, 200)] * len(followed)
        marks = [one.query.rpartition("X-Signature=")[2] for one in followed]
        assert marks
        assert not [mark for mark in marks if mark in service.log.getvalue() or mark in caplog.text]


async def test_a_signed_address_that_ended_is_asked_for_anew(front: Front, image: Image, tmp_path: Path) -> None:
    path = path_of(image)
    front.on(BLOBS, Fault(elsewhere="host", life=0.5), method="GET", times=1)
    stalled = front.on(f"/elsewhere{path}", Fault(stall=SIZE // 2), method="GET", times=1)
    async with pulling(tmp_path, section(front.url)) as service:
        running = asyncio.create_task(service.client.get(blob(image)))
        await asyncio.to_thread(
            front.wait_until, lambda: stalled.taken == 1 and front.sent("/elsewhere/*") == SIZE // 2
        )
        front.on(BLOBS, Fault(elsewhere="host"), method="GET")
        await asyncio.sleep(0.6)  # the life of the address
        front.cut_all()
        assert (await running).expect(200).body == image.blobs[1]
    asked = [(one.path, one.status) for one in front.records.find("*/blobs/*", "GET")]
    assert asked == [(path, 307), (f"/elsewhere{path}", 200), (path, 307), (f"/elsewhere{path}", 206)]


async def test_an_address_that_has_ended_when_it_comes_is_a_refusal_and_no_401(
    front: Front, image: Image, tmp_path: Path
) -> None:
    front.on(BLOBS, Fault(elsewhere="host", life=-60), method="GET")
    async with pulling(tmp_path, section(front.url)) as service:
        assert (await service.client.get(blob(image))).status in (403, 503)


async def test_a_relative_address_is_followed(front: Front, image: Image, tmp_path: Path) -> None:
    front.on(BLOBS, Fault(elsewhere="relative"))
    async with pulling(tmp_path, section(front.url)) as service:
        assert (await service.client.get(blob(image))).expect(200).body == image.blobs[1]


@pytest.mark.parametrize("what", ["blob", "manifest", "token"])
async def test_nothing_goes_from_https_to_http(
    what: str, front: Front, upstream: Distribution, image: Image, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path / "tls", ["127.0.0.1"])
    fields: dict[str, Any] = {"tls": {"ca": made.ca}, "allow_private": True, "token_hosts": ["127.0.0.1"]}
    credentials = {"username": USER.name, "password": USER.password}
    with Front(upstream.url, certificate=made.certificate, key=made.key) as secure:
        if what == "token":
            secure.tokens = TokenService({USER.name: USER.password}, anonymous=False, realm=f"{front.url}/token")
        else:
            secure.on(f"/v2/*/{what}s/*", redirect(f"{front.url}{path_of(image)}"))
        async with pulling(tmp_path, section(secure.url, credentials=credentials, **fields)) as service:
            refused = (await service.client.get(blob(image) if what == "blob" else TAGGED)).expect(503)
            assert ("without TLS" if what == "token" else "from https to http") in refused.body.decode()
        assert all(one.authorization is None for one in secure.requests)
    assert front.requests == []
