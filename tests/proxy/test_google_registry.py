"""Pulling from Artifact Registry by Workload Identity, end to end: no key is stored, tokens come and go."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.pulling import UP, pulling, section
from tests.services.app import Running
from tests.services.client import Image, digest_of
from tests.services.front import Front, TokenService
from tests.services.google import GoogleServices
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, filesystem_store
from tests.services.upstreams import Distribution

TAGGED = f"/v2/{UP}/team/app/manifests/1"


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [100_000, 2000, 3000])


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """The projected token of a service account, which the cluster rotates."""
    path = tmp_path / "token"
    rotate(path)
    return path


def rotate(subject: Path) -> str:
    token = f"eyJ.{secrets.token_hex(8)}.subject"
    subject.write_text(token)
    return token


@pytest.fixture
async def google(subject: Path) -> AsyncIterator[GoogleServices]:
    async with GoogleServices(subject) as services:
        yield services


class ArtifactRegistry(TokenService):
    """Gives its tokens for access tokens that Google's services issued, and that still hold."""

    def __init__(self, google: GoogleServices, **fields: Any) -> None:
        super().__init__(anonymous=False, **fields)
        self._google = google
        self.seen: set[str] = set()

    def _checked(self, name: str, password: str) -> str:
        self.seen.add(password)
        if name != "oauth2accesstoken" or not self._google.accepts(password):
            raise KeyError(name)
        return name


@pytest.fixture
def front(upstream: Distribution, image: Image, google: GoogleServices) -> Iterator[Front]:
    with Front(upstream.url) as front:
        front.tokens = ArtifactRegistry(google)
        yield front


@pytest.fixture
def credentials(google: GoogleServices, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps(google.external_account()))
    return {"google": {"file": str(path)}}


def blob(data: bytes) -> str:
    return f"/v2/{UP}/team/app/blobs/{digest_of(data)}"


def secrets_of(front: Front, *subjects: str) -> list[str]:
    """Everything that nobody may read: subject tokens, access tokens, the registry's tokens."""
    tokens = front.tokens
    assert isinstance(tokens, ArtifactRegistry)
    return [*subjects, *tokens.seen, *(token.token for token in tokens.issued)]


async def pull(service: Running, image: Image, *layers: int) -> None:
    assert (await service.client.get(TAGGED)).expect(200).body == image.data
    for layer in (image.blobs[number] for number in layers):
        assert (await service.client.get(blob(layer))).expect(200).body == layer


async def test_an_image_is_pulled_by_one_exchange(
    front: Front, image: Image, google: GoogleServices, credentials: dict[str, Any], tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url, credentials=credentials)) as service:
        assert google.asked == []
        await pull(service, image, 1, 2, 3)
    assert (google.counts["sts"], google.counts["iam"], google.complaints) == (1, 1, [])
    assert front.tokens is not None
    assert [token.user for token in front.tokens.issued] == ["oauth2accesstoken"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_has_ended_is_exchanged_anew_with_the_token_file_of_that_time(
    status: int,
    front: Front,
    image: Image,
    google: GoogleServices,
    subject: Path,
    credentials: dict[str, Any],
    tmp_path: Path,
) -> None:
    front.tokens = ArtifactRegistry(google, expired_status=status)
    first = subject.read_text()
    async with pulling(tmp_path, section(front.url, credentials=credentials)) as service:
        await pull(service, image, 1)
        second = rotate(subject)
        await pull(service, image, 2)
        assert google.subjects == [first]
        google.revoke()
        front.tokens.revoke()
        await pull(service, image, 3)
        assert google.subjects == [first, second]
        assert google.complaints == []


async def test_a_principal_without_the_right_is_denied_and_no_token_is_told(
    front: Front, image: Image, google: GoogleServices, subject: Path, credentials: dict[str, Any], tmp_path: Path
) -> None:
    google.refuse = True
    async with pulling(tmp_path, section(front.url, credentials=credentials)) as service:
        for path in (TAGGED, blob(image.blobs[1])):
            answer = (await service.client.get(path)).expect(403)
            assert answer.header("www-authenticate") is None
            assert subject.read_text() not in answer.body.decode()
        assert subject.read_text() not in service.log.getvalue()
    assert front.count("/v2/*") == front.count("/v2/*/manifests/1", "HEAD") + front.count("/v2/*/blobs/*", "HEAD")


async def test_what_is_here_is_served_while_googles_services_are_down(
    front: Front, image: Image, google: GoogleServices, credentials: dict[str, Any], tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url, credentials=credentials)) as service:
        await pull(service, image, 1)
        google.revoke()
        assert front.tokens is not None
        front.tokens.revoke()
        google.status = 503
        stale = (await service.client.get(TAGGED)).expect(200)
        assert stale.header("warning") is not None
        assert (await service.client.get(blob(image.blobs[1]))).expect(200).body == image.blobs[1]
        missing = (await service.client.get(blob(image.blobs[2]))).expect(503)
        assert int(missing.header("retry-after") or 0) >= 1


async def test_a_server_pulls_without_a_key_and_writes_no_token(
    front: Front, image: Image, google: GoogleServices, subject: Path, credentials: dict[str, Any], tmp_path: Path
) -> None:
    settings = {
        "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps([section(front.url, credentials={"google": {}})]),
        "EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(tmp_path / "spool"),
        "EDGE_REGISTRY_LOG__LEVEL": "debug",
        "GOOGLE_APPLICATION_CREDENTIALS": str(credentials["google"]["file"]),
    }
    server = RegistryServer(tmp_path / "server", filesystem_store(tmp_path / "data"), settings=settings)
    await asyncio.to_thread(server.start)
    try:
        pusher, first, said = Pusher(server.url), subject.read_text(), []
        found = await asyncio.to_thread(pusher.request, "GET", TAGGED)
        assert (found.status, found.body) == (200, image.data)
        second = rotate(subject)
        google.revoke()
        assert front.tokens is not None
        front.tokens.revoke()
        found = await asyncio.to_thread(pusher.request, "GET", blob(image.blobs[2]))
        assert (found.status, found.body) == (200, image.blobs[2])
        google.refuse = True
        google.revoke()
        front.tokens.revoke()
        refused = await asyncio.to_thread(pusher.request, "GET", blob(image.blobs[3]))
        assert refused.status == 403
        said = [server.read_log(), refused.body.decode(), str(refused.headers)]
    finally:
        await asyncio.to_thread(server.stop)
    assert google.subjects == [first, second]
    hidden = secrets_of(front, first, second)
    assert len(hidden) >= 6
    assert [secret for secret in hidden if any(secret in text for text in said)] == []
