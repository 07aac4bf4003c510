"""The description of the API against a running registry: all that it answers is described, and the reverse."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from app.api.admin_operations import schemas
from app.api.description import PATHS, Site
from app.api.paths import Kind, parse_path
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from tests.services.registry import Answer, Credentials, RegistryServer, filesystem_store
from tests.transfer.archives import layout, picture, tar

Ask = Callable[..., Answer]

_EVERYWHERE: Final = {
    "connection", "content-length", "content-type", "date", "docker-distribution-api-version", "transfer-encoding",
    "x-content-type-options", "x-request-id",
}  # fmt: skip
"""Headers that any answer may have."""


def written(path: str) -> str:
    """How the description writes a path."""
    parsed = parse_path(path)
    return path if parsed is None else PATHS[parsed.kind]


class Witness:
    """Asks the registry, and holds every answer against the description."""

    def __init__(self, server: RegistryServer) -> None:
        self._server = server
        self._paths: Mapping[str, Any] = Site(title="Edge Registry").openapi()["paths"]
        self.seen: set[tuple[str, str, int]] = set()

    def __call__(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        sent = body if body or method in ("PUT", "POST", "PATCH") else None
        answer = self._server.request(method, path, headers=headers, body=sent)
        template = written(path.partition("?")[0])
        described = self._paths[template][method.lower()]["responses"]
        assert str(answer.status) in described, f"{method} {path}: {answer.status} is not described"
        known = described[str(answer.status)]
        extra = set(answer.headers) - {name.lower() for name in known["headers"]} - _EVERYWHERE
        assert not extra, f"{method} {path}: {answer.status} has headers that are not described: {extra}"
        if "content" in known:
            media_type = answer.headers["content-type"].partition(";")[0]
            assert media_type in known["content"], f"{method} {path}: {answer.status} is {media_type}"
        if answer.status >= 400 and method != "HEAD":
            for error in answer.json()["errors"]:
                assert f"`{error['code']}`" in known["description"], f"{method} {path}: {error}"
        self.seen.add((template, method, answer.status))
        return answer

    def never_seen(self) -> set[tuple[str, str, int]]:
        """Successes that are described and were not answered."""
        described = {
            (path, method.upper(), int(status))
            for path, item in self._paths.items()
            for method, operation in item.items()
            for status in operation["responses"]
            if path.startswith(("/v2", "/api/v1")) and int(status) < 400
        }
        return described - self.seen


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("truth")
    settings = {"EDGE_REGISTRY_TRANSFER__MAX_BYTES": "1MiB"}
    with RegistryServer(folder, filesystem_store(folder / "store"), settings=settings) as server:
        yield server


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push(ask: Ask, name: str, data: bytes) -> str:
    assert ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(data)}", body=data).status == 201
    return digest_of(data)


def manifest(config: str, layer: str, **more: Any) -> bytes:
    def descriptor(digest: str) -> dict[str, Any]:
        return {"mediaType": "application/octet-stream", "digest": digest, "size": 5}

    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(layer)],
    }
    return json.dumps({**document, **more}).encode()


def blobs(ask: Ask) -> None:
    begun = ask("POST", "/v2/a/b/blobs/uploads/?digest-algorithm=sha256")
    at = ask("PATCH", begun.headers["location"], headers={"Content-Range": "0-4"}, body=b"hello").headers["location"]
    assert ask("GET", at).headers["range"] == "0-4"
    assert ask("PATCH", at, headers={"Content-Range": "9-13"}, body=b"hello").status == 416
    assert ask("PATCH", at, headers={"Content-Range": "x"}, body=b"hello").status == 400
    assert ask("PUT", f"{at}&digest={digest_of(b'other')}").status == 400
    begun = ask("POST", "/v2/a/b/blobs/uploads/")
    assert ask("DELETE", begun.headers["location"]).status == 204
    assert ask("GET", begun.headers["location"]).status == 404
    begun = ask("POST", "/v2/a/b/blobs/uploads/")
    digest = digest_of(b"hello")
    assert ask("PUT", f"{begun.headers['location']}&digest={digest}", body=b"hello").status == 201
    assert ask("POST", f"/v2/c/blobs/uploads/?mount={digest}&from=a/b").status == 201
    assert ask("POST", f"/v2/c/blobs/uploads/?mount={digest_of(b'no')}&from=a/b").status == 202
    path = f"/v2/a/b/blobs/{digest}"
    assert ask("HEAD", path).status == 200
    assert ask("GET", path).body == b"hello"
    assert ask("GET", path, headers={"Range": "bytes=1-2"}).body == b"el"
    assert ask("GET", path, headers={"Range": "bytes=9-"}).status == 416
    assert ask("GET", path, headers={"If-None-Match": f'"{digest}"'}).status == 304
    assert ask("GET", f"/v2/a/b/blobs/{digest_of(b'no')}").status == 404
    assert ask("GET", "/v2/a/b/blobs/sha256:x").status == 400
    assert ask("HEAD", "/v2/A/blobs/sha256:x").status == 400
    assert ask("DELETE", f"/v2/c/blobs/{digest}").status == 202


def manifests(ask: Ask) -> None:
    config, layer = push(ask, "m", b"{}   "), push(ask, "m", b"layer")
    data = manifest(config, layer)
    typed = {"Content-Type": OCI_MANIFEST}
    assert ask("PUT", "/v2/m/manifests/v1", headers=typed, body=data).status == 201
    assert ask("PUT", f"/v2/m/manifests/{digest_of(data)}?tag=v2&tag=v3", headers=typed, body=data).status == 201
    signature = manifest(
        config, layer, artifactType="a/b", subject=json.loads(data)["config"] | {"digest": digest_of(data)}
    )
    assert "oci-subject" in ask("PUT", "/v2/m/manifests/sig", headers=typed, body=signature).headers
    assert ask("PUT", "/v2/m/manifests/v1", headers=typed, body=manifest(config, digest_of(b"no"))).status == 404
    assert ask("PUT", "/v2/m/manifests/v1", headers=typed, body=b"no JSON").status == 400
    assert ask("PUT", "/v2/m/manifests/.x", headers=typed, body=data).status == 400
    assert ask("PUT", "/v2/m/manifests/v1", headers={**typed, "Content-Encoding": "gzip"}, body=data).status == 415
    assert ask("HEAD", "/v2/m/manifests/v1").status == 200
    assert ask("GET", "/v2/m/manifests/v1").body == data
    assert ask("GET", "/v2/m/manifests/v1", headers={"If-None-Match": f'"{digest_of(data)}"'}).status == 304
    assert ask("GET", "/v2/m/manifests/none").status == 404
    assert ask("DELETE", f"/v2/m/blobs/{layer}").status == 405
    assert "link" in ask("GET", "/v2/m/tags/list?n=1").headers
    assert ask("GET", "/v2/m/tags/list?n=x").status == 400
    assert ask("GET", "/v2/none/tags/list").status == 404
    referrers = ask("GET", f"/v2/m/referrers/{digest_of(data)}?artifactType=a/b")
    assert (referrers.headers["content-type"], len(referrers.json()["manifests"])) == (OCI_INDEX, 1)
    assert ask("GET", "/v2/m/referrers/x").status == 400
    assert ask("DELETE", "/v2/m/manifests/v1").status == 202
    assert ask("DELETE", "/v2/m/manifests/v1").status == 404


def lists(ask: Ask) -> None:
    upload = ask("POST", "/v2/m/blobs/uploads/").headers["location"]
    for path in ("/v2/", "/v2/_catalog", "/v2/m/tags/list", f"/v2/m/referrers/{digest_of(b'x')}", upload):
        assert ask("GET", path).status == ask("HEAD", path).status == (204 if path == upload else 200)
    assert ask("GET", "/v2/_catalog?n=1").json() == {"repositories": ["m"]}
    assert ask("GET", "/v2/_catalog?n=-1").status == 400


def archives(ask: Ask) -> None:
    image, other = picture(b"layer"), picture(b"missing")
    archive = tar(layout((image, "team/app:v1")))
    options = "prefix=site&keep_host=true&platform=linux/amd64&dry_run=true"
    for query in ("", "?name=team/app:v2", f"?{options}"):
        told = ask("POST", f"/api/v1/import{query}", body=archive)
        assert told.status == 200
        assert set(told.json()) == set(schemas()["Imported"]["properties"])
        (one,) = told.json()["images"]
        assert set(one) == set(schemas()["Imported"]["properties"]["images"]["items"]["properties"])
    partly = tar([file for file in layout((image, "a:1"), (other, "b:1")) if file[1] != b"missing"])
    assert set(ask("POST", "/api/v1/import", body=partly).json()) == {"errors", "images"}
    assert ask("POST", "/api/v1/import", body=b"no archive").status == 400
    assert ask("POST", "/api/v1/import?dry_run=maybe", body=archive).status == 400
    assert ask("POST", "/api/v1/import", body=bytes(2 << 20)).status == 413
    assert ask("POST", "/api/v1/import", headers={"Content-Encoding": "gzip"}, body=archive).status == 415
    elsewhere = {"Origin": "https://evil.example"}
    inventory = ask("GET", "/api/v1/inventory").body
    assert digest_of(b"layer").encode() in inventory
    export = "/api/v1/export?image=team/app:v1"
    assert ask("POST", export, body=b"no inventory").status == 400
    assert ask("POST", export, headers={"Content-Encoding": "gzip"}, body=inventory).status == 415
    for method, body in (("GET", b""), ("POST", inventory)):
        assert ask(method, f"{export}&format=oci&platform=all&referrers=1&host=here", body=body).status == 200
        assert ask(method, "/api/v1/export", body=body).json()["errors"][0]["code"] == "NAME_INVALID"
        assert ask(method, f"{export}&format=zip", body=body).json()["errors"][0]["code"] == "EXPORT_INVALID"
        assert ask(method, f"{export}&referrers=maybe", body=body).status == 400
        assert ask(method, "/api/v1/export?image=team/none", body=body).status == 404
        assert ask(method, export, headers=elsewhere, body=body).status == 403
    assert ask("GET", "/api/v1/inventory", headers=elsewhere).status == 403


def test_every_answer_is_described_and_every_described_success_is_answered(registry: RegistryServer) -> None:
    witness = Witness(registry)
    blobs(witness)
    manifests(witness)
    lists(witness)
    archives(witness)
    # A redirect takes a store that clients can reach: tests of S3 see it.
    assert witness.never_seen() == {(PATHS[Kind.BLOB], "GET", 307)}


def test_what_those_are_answered_who_may_not_is_described(tmp_path: Path) -> None:
    settings = {"EDGE_REGISTRY_REGISTRY__READ_ONLY": "true"}
    users = Credentials("alice", "secret")
    everything = [("POST", "/api/v1/import"), ("GET", "/api/v1/export"), ("POST", "/api/v1/export")]
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "store"), users=users, settings=settings) as server:
        witness = Witness(server)
        assert witness("POST", "/api/v1/import", body=b"x").status == 405
        server.credentials = None
        for method, path in [*everything, ("GET", "/api/v1/inventory")]:
            assert witness(method, path, body=b"x" if method == "POST" else b"").status == 401
