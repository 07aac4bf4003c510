"""A client of the `/v2` API for tests: requests as they are written, answers as they came, and the shapes of a push."""

import hashlib
import io
import json
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCTETS: Final = "application/octet-stream"

Body = bytes | AsyncIterable[bytes]
HeaderList = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registry said."""

    status: int
    headers: HeaderList
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header; None where it is missing."""
        values = self.every(name)
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def every(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The error codes of the body."""
        return [entry["code"] for entry in self.json()["errors"]]

    @property
    def location(self) -> str:
        """The Location, which is always a path."""
        found = self.header("location")
        assert found is not None
        assert found.startswith("/v2/"), found
        return found

    def expect(self, status: int) -> "Answer":
        """Itself, when the status is this one."""
        assert self.status == status, f"{self.status} instead of {status}: {self.body[:500]!r}"
        return self


class Transport(Protocol):
    """Carries one request; `target` is the path and query as they stand on the wire."""

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> Answer: ...


class Wire:
    """HTTP to a server at `url`, a connection a request unless a session that keeps them is given."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        url = URL(self._url + target, encoded=True)
        async with self._session.request(
            method,
            url,
            headers=headers,
            data=io.BytesIO(body) if isinstance(body, bytes) else body,
            allow_redirects=False,
        ) as response:
            data = await response.read()
            found = [(name, value) for name, value in response.headers.items()]
        return Answer(response.status, found, data)


class Client:
    """One client; `headers` go with each of its requests."""

    def __init__(self, transport: Transport, headers: Mapping[str, str] | None = None) -> None:
        self._transport, self._headers = transport, dict(headers or {})

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Answer:
        """One request. An answer that is an error has the specification's form, else this fails."""
        answer = await self._transport.request(method, target, {**self._headers, **(headers or {})}, body)
        if method == "HEAD":
            assert answer.body == b""
        elif answer.status >= 400:
            check_errors(answer)
        return answer

    async def get(self, target: str, **headers: str) -> Answer:
        """GET; underscores in the names of `headers` are hyphens."""
        return await self.ask("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})

    async def head(self, target: str) -> Answer:
        return await self.ask("HEAD", target)

    async def delete(self, target: str) -> Answer:
        return await self.ask("DELETE", target)

    async def begin(self, repository: str, query: str = "") -> str:
        """POST: the Location of a new upload."""
        return (await self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}")).expect(202).location

    async def patch(self, location: str, body: Body, at: int | None = None) -> Answer:
        """PATCH; with `at`, as the chunk that begins there."""
        headers = {"content-type": OCTETS}
        if at is not None:
            assert isinstance(body, bytes)
            headers["content-range"] = f"{at}-{at + len(body) - 1}"
        return await self.ask("PATCH", location, headers, body)

    async def finish(self, location: str, digest: str, body: Body | None = None, at: int | None = None) -> Answer:
        """PUT with the digest."""
        headers = {"content-type": OCTETS}
        if at is not None:
            assert isinstance(body, bytes)
            headers["content-range"] = f"{at}-{at + len(body) - 1}"
        return await self.ask("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", headers, body)

    async def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """POST and PUT, as containerd does; returns the digest."""
        digest = digest_of(data, algorithm)
        (await self.finish(await self.begin(repository), digest, data)).expect(201)
        return digest

    async def put_manifest(
        self, repository: str, reference: str, data: bytes, media_type: str | None = MANIFEST
    ) -> Answer:
        """PUT of manifest bytes; `reference` may carry a query."""
        headers = {} if media_type is None else {"content-type": media_type}
        return await self.ask("PUT", f"/v2/{repository}/manifests/{reference}", headers, data)

    async def push_image(self, repository: str, reference: str | None, *layers: bytes, **fields: Any) -> "Image":
        """A whole image: layers, config, manifest; by digest where `reference` is None."""
        image = make_image(*layers, **fields)
        for data in image.blobs:
            await self.push_blob(repository, data)
        (await self.put_manifest(repository, reference or image.digest, image.data, image.media_type)).expect(201)
        return image


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and the blobs that it names."""

    data: bytes
    media_type: str
    blobs: Sequence[bytes]

    @property
    def digest(self) -> str:
        return digest_of(self.data)


def make_image(*layers: bytes, config: bytes = b'{"os":"linux"}', media_type: str = MANIFEST, **fields: Any) -> Image:
    """An image manifest over these layers; `fields` are added to the document."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER) for layer in layers],
        **fields,
    }
    return Image(encode(document), media_type, (config, *layers))


def make_index(children: Iterable[Mapping[str, Any]], media_type: str = INDEX, **fields: Any) -> bytes:
    """An index over these descriptors."""
    return encode({"schemaVersion": 2, "mediaType": media_type, "manifests": list(children), **fields})


def descriptor(data: bytes, media_type: str, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data, algorithm), "size": len(data)}


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def encode(document: Any) -> bytes:
    """JSON with an indentation of its own, so that bytes which are parsed and written again do not pass for exact."""
    return json.dumps(document, indent=3).encode()


def noise(size: int, seed: str = "") -> bytes:
    """`size` bytes that repeat nowhere, the same in every run."""
    return hashlib.shake_256(f"noise {seed}".encode()).digest(size)


def check_errors(answer: Answer) -> None:
    """Every error is JSON in the specification's form."""
    assert (answer.header("content-type") or "").startswith("application/json"), answer
    entries = answer.json()["errors"]
    assert entries, answer
    for entry in entries:
        assert set(entry) <= {"code", "message", "detail"}, entry
        assert entry["code"] == entry["code"].upper(), entry
        assert entry["message"], entry
