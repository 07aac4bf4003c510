"""Filling a registry over HTTP, blocking: images of given sizes, indexes, referrers, layouts."""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.services.client import (
    INDEX,
    MANIFEST,
    OCTETS,
    Image,
    descriptor,
    digest_of,
    encode,
    make_image,
    make_index,
    noise,
)
from tests.services.images import Layout
from tests.services.registry import Credentials

EMPTY: Final = b"{}"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
SIGNATURE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Index:
    """An index and the images that it names, by platform."""

    data: bytes
    media_type: str
    images: Mapping[str, Image]

    @property
    def digest(self) -> str:
        return digest_of(self.data)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registry said; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Pusher:
    """Pushes to the registry at `url`, as `login` (Basic), trusting the authority `ca`."""

    def __init__(self, url: str, *, login: Credentials | None = None, ca: Path | None = None) -> None:
        self._parts = urlsplit(url)
        self._context = ssl.create_default_context(cafile=ca) if self._parts.scheme == "https" else None
        self._headers: dict[str, str] = {}
        if login:
            pair = base64.b64encode(f"{login.name}:{login.password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"

    def request(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request on a connection of its own; `target` is a path or a URL. Raises OSError."""
        split = urlsplit(target)
        at = f"{split.path}?{split.query}" if split.query else split.path
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is None:
            connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=self._context)
        try:
            connection.request(method, at, body=body, headers={**self._headers, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def blob(self, repository: str, data: bytes) -> str:
        """Pushes a blob and returns its digest."""
        begun = self._expect(202, self.request("POST", f"/v2/{repository}/blobs/uploads/"))
        location, digest = begun.headers["location"], digest_of(data)
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        self._expect(201, self.request("PUT", target, headers={"Content-Type": OCTETS}, body=data))
        return digest

    def manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> Answer:
        """Pushes a manifest under a tag or its digest."""
        target = f"/v2/{repository}/manifests/{reference}"
        return self._expect(201, self.request("PUT", target, headers={"Content-Type": media_type}, body=data))

    def image(
        self,
        repository: str,
        tag: str | None,
        sizes: Sequence[int],
        *,
        platform: str = "linux/amd64",
        seed: str = "",
        media_type: str = MANIFEST,
        **fields: Any,
    ) -> Image:
        """An image whose layers are noise of these sizes; by digest where `tag` is None.

        Another `seed` makes other layers. They are no archives: clients that unpack need `layout`.
        """
        layers = [noise(size, f"{seed} {repository} {platform} {number}") for number, size in enumerate(sizes)]
        system, architecture, *_ = platform.split("/")
        config = encode({"os": system, "architecture": architecture, "seed": seed})
        image = make_image(*layers, config=config, media_type=media_type, **fields)
        for data in image.blobs:
            self.blob(repository, data)
        self.manifest(repository, tag or image.digest, image.data, image.media_type)
        return image

    def index(
        self, repository: str, tag: str | None, platforms: Mapping[str, Sequence[int]], *, seed: str = ""
    ) -> Index:
        """An index of images with layers of these sizes, by platform such as linux/arm64."""
        images = {
            platform: self.image(repository, None, sizes, platform=platform, seed=seed)
            for platform, sizes in platforms.items()
        }
        children = [
            {
                **descriptor(image.data, image.media_type),
                "platform": dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False)),
            }
            for platform, image in images.items()
        ]
        index = Index(make_index(children), INDEX, images)
        self.manifest(repository, tag or index.digest, index.data, index.media_type)
        return index

    def referrer(
        self, repository: str, subject: Image | Index, *, artifact_type: str = SIGNATURE, content: bytes = b"signed"
    ) -> Image:
        """An artifact that refers to `subject`; where the registry has no referrers API, under the tag for it too."""
        layer = {**descriptor(content, OCTETS)}
        fields = {"artifactType": artifact_type, "subject": descriptor(subject.data, subject.media_type)}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(EMPTY, EMPTY_TYPE),
            "layers": [layer],
            **fields,
        }
        artifact = Image(encode(document), MANIFEST, (EMPTY, content))
        for data in artifact.blobs:
            self.blob(repository, data)
        answer = self.manifest(repository, artifact.digest, artifact.data, MANIFEST)
        if "oci-subject" not in answer.headers:
            self._add_to_tag(repository, subject.digest.replace(":", "-"), artifact, artifact_type)
        return artifact

    def _add_to_tag(self, repository: str, tag: str, artifact: Image, artifact_type: str) -> None:
        found = self.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": INDEX})
        children = json.loads(found.body)["manifests"] if found.status == 200 else []
        children.append({**descriptor(artifact.data, MANIFEST), "artifactType": artifact_type})
        self.manifest(repository, tag, make_index(children), INDEX)

    def layout(self, repository: str, layout: Layout, tag: str | None = None) -> str:
        """A layout of `tests.services.images`, whole; returns the digest of its top."""
        top = json.loads((layout.folder / "index.json").read_text())["manifests"][0]
        self._document(repository, layout, top, tag or layout.tag)
        return layout.digest

    def _document(self, repository: str, layout: Layout, entry: Mapping[str, Any], reference: str) -> None:
        data = layout.blob(entry["digest"])
        content = json.loads(data)
        for child in content.get("manifests", []):
            self._document(repository, layout, child, child["digest"])
        for part in [content["config"], *content["layers"]] if "layers" in content else []:
            self.blob(repository, layout.blob(part["digest"]))
        self.manifest(repository, reference, data, entry["mediaType"])

    def delete(self, repository: str, digest: str) -> None:
        """Deletes a manifest."""
        self._expect(202, self.request("DELETE", f"/v2/{repository}/manifests/{digest}"))

    def _expect(self, status: int, answer: Answer) -> Answer:
        assert answer.status == status, f"{answer.status} instead of {status}: {answer.body[:500]!r}"
        return answer
