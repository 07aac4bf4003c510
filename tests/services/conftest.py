"""A Distribution, the image that it holds, the front before it, and how tests ask that."""

import base64
import http.client
from collections.abc import Iterator, Mapping

import pytest

from tests.services.client import MANIFEST, Image, digest_of
from tests.services.front import Front
from tests.services.pushing import Answer, Pusher
from tests.services.upstreams import Distribution, need_distribution

SIZE = 3_000_000
BLOBS = "/v2/*/blobs/*"
MANIFESTS = "/v2/*/manifests/*"
PULL = "repository:team/app:pull"


@pytest.fixture(scope="session")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        yield server


@pytest.fixture(scope="session")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [SIZE, 10])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def get(front: Front, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    return Pusher(front.url).request(method, path, headers={"Accept": MANIFEST, **(headers or {})})


def blob_path(image: Image) -> str:
    return f"/v2/team/app/blobs/{digest_of(image.blobs[1])}"


def broken_get(front: Front, path: str) -> tuple[int, bytes, str]:
    """The announced length of an answer that breaks off, what came of it, and how it ended."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    got, ended = b"", "whole"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        length = int(answer.headers["Content-Length"])
        while data := answer.read1(1 << 16):
            got += data
        ended = "fin" if len(got) < length else ended
    except ConnectionResetError:
        ended = "rst"
    finally:
        connection.close()
    return length, got, ended


def login(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
