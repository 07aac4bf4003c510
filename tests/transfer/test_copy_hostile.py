"""`edge-registry copy` from a registry that lies: what it says is refused, and nothing of it is kept."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from tests.services.client import INDEX, MANIFEST, descriptor, digest_of, encode, make_image, make_index
from tests.services.registry import RegistryServer, filesystem_store
from tests.transfer.copied import Ended, Here, kept_bytes

Answer = tuple[int, dict[str, str], bytes]
LARGE: Final = 20 << 20


class Hostile:
    """A registry that answers each path with what a test put there; 404 for all else."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[str], Answer]] = {"/v2/": (200, {}, b"{}")}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET  # noqa: N815  (http.server's name)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(request.path)
        found = self.answers.get(path, (404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'))
        status, headers, body = found(request.path) if callable(found) else found
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            try:
                request.wfile.write(body)
            except OSError:
                request.close_connection = True

    def manifest(self, repository: str, reference: str, data: bytes, media_type: str, said: str | None = None) -> None:
        headers = {"Content-Type": media_type, "Docker-Content-Digest": said or digest_of(data)}
        for name in (reference, said or digest_of(data)):
            self.answers[f"/v2/{repository}/manifests/{name}"] = (200, headers, data)

    def blob(self, repository: str, digest: str, data: bytes) -> None:
        self.answers[f"/v2/{repository}/blobs/{digest}"] = (200, {"Content-Type": "application/octet-stream"}, data)

    def image(self, repository: str, tag: str, *layers: bytes) -> bytes:
        """An honest one; returns its manifest."""
        image = make_image(*layers)
        for data in image.blobs:
            self.blob(repository, digest_of(data), data)
        self.manifest(repository, tag, image.data, MANIFEST)
        return image.data

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    found = Hostile()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("here")
    with RegistryServer(folder, filesystem_store(folder / "data")) as found:
        yield found


@pytest.fixture
def here(server: RegistryServer, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(server, filesystem_store(server.folder / "data"), capsys)


def refused(here: Here, hostile: Hostile, source: str, reason: str) -> Ended:
    """Copies, is refused, and finds nothing more here than before."""
    before, names = kept_bytes(_data(here)), here.catalog()
    done = here.plain(f"{hostile.host}{source}", "--retries", "0")
    assert done.status == 1
    assert reason in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert here.catalog() == names
    assert kept_bytes(_data(here)) - before < 100, "a small config, which was right, may wait for the collector"
    return done


def _data(here: Here) -> Path:
    return here.server.folder / "data"


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_blob_of_another_digest(here: Here, hostile: Hostile, size: int) -> None:
    image = json.loads(hostile.image("lies/blob", "v1", b"a" * size))
    hostile.blob("lies/blob", image["layers"][0]["digest"], b"b" * size)
    refused(here, hostile, "/lies/blob:v1", "did not match")


def test_a_blob_that_is_larger_than_the_manifest_says(here: Here, hostile: Hostile) -> None:
    image = json.loads(hostile.image("lies/large", "v1", b"a" * 1000))
    hostile.answers[f"/v2/lies/large/blobs/{image['layers'][0]['digest']}"] = (
        200,
        {"Content-Length": "", "Transfer-Encoding": "identity"},
        b"a" * 500_000,
    )
    hostile.blob("lies/large", image["layers"][0]["digest"], b"a" * 500_000)
    refused(here, hostile, "/lies/large:v1", "answers with 500000 bytes for a blob of 1000")


def test_a_blob_that_is_shorter_than_the_manifest_says(here: Here, hostile: Hostile) -> None:
    image = json.loads(hostile.image("lies/short", "v1", b"a" * 1000))
    hostile.blob("lies/short", image["layers"][0]["digest"], b"a" * 10)
    refused(here, hostile, "/lies/short:v1", "answers with 10 bytes for a blob of 1000")


def test_a_manifest_of_another_digest(here: Here, hostile: Hostile) -> None:
    data = make_image(b"x").data
    hostile.manifest("lies/manifest", "v1", data, MANIFEST, said=digest_of(b"something else"))
    refused(here, hostile, "/lies/manifest:v1", "something that is not this manifest")


def test_a_manifest_without_an_end(here: Here, hostile: Hostile) -> None:
    hostile.manifest("lies/endless", "v1", b'{"schemaVersion":2,"a":"' + b"x" * (5 << 20) + b'"}', MANIFEST)
    refused(here, hostile, "/lies/endless:v1", "where that is too much")


def test_indexes_in_indexes_without_an_end(here: Here, hostile: Hostile) -> None:
    data = hostile.image("lies/deep", "bottom", b"x")
    media_type = MANIFEST
    for level in range(12):
        data, media_type = make_index([descriptor(data, media_type)]), INDEX
        hostile.manifest("lies/deep", f"v{level}", data, media_type)
    refused(here, hostile, "/lies/deep:v11", "an image that has no end")


def test_referrers_that_refer_to_each_other(here: Here, hostile: Hostile) -> None:
    data = hostile.image("lies/ring", "v1", b"x")
    digest = digest_of(data)
    for _ in range(12):
        subject = descriptor(data, MANIFEST)
        data = encode({**json.loads(make_image(b"x").data), "subject": subject, "annotations": {"of": digest}})
        hostile.manifest("lies/ring", "none", data, MANIFEST)
        listed = (200, {"Content-Type": INDEX}, make_index([descriptor(data, MANIFEST)]))
        hostile.answers[f"/v2/lies/ring/referrers/{digest}"] = listed
        digest = digest_of(data)
    done = here.plain(f"{hostile.host}/lies/ring:v1", "--retries", "0")
    assert done.status == 1
    assert "an image that has no end" in done.stderr
    assert here.tags("lies/ring") == []


def test_a_catalog_that_names_folders_above(here: Here, hostile: Hostile) -> None:
    names = ["../../etc", "/abs", "a//b", "UPPER", "x" * 300, "good/one", 7, None]
    hostile.answers["/v2/_catalog"] = (200, {}, json.dumps({"repositories": names}).encode())
    hostile.answers["/v2/good/one/tags/list"] = (200, {}, b'{"tags":["v1","../../v2","-x",{}]}')
    hostile.image("good/one", "v1", b"good")
    done = here.plain(hostile.host, "--to", "catalog", "--retries", "0")
    assert done.status == 1
    assert done.stderr.count("is no name of a repository") == 5
    assert done.stderr.count("is no tag") == 2
    assert here.tags("catalog/good/one") == ["v1"]
    assert not any(".." in path for path in hostile.asked)


def test_a_name_of_the_catalog_that_cannot_be_one_here_does_not_stop_the_others(here: Here, hostile: Hostile) -> None:
    names = ["a" * 250, "good/two"]
    hostile.answers["/v2/_catalog"] = (200, {}, json.dumps({"repositories": names}).encode())
    hostile.answers["/v2/good/two/tags/list"] = (200, {}, b'{"tags":["v1"]}')
    hostile.image("good/two", "v1", b"good")
    done = here.plain(hostile.host, "--to", "longer", "--retries", "0")
    assert done.status == 1
    assert f"{hostile.host}/{names[0]}: invalid repository name" in done.stderr
    assert here.tags("longer/good/two") == ["v1"]


def test_an_index_whose_annotations_are_no_texts(here: Here, hostile: Hostile) -> None:
    children = []
    for name in ("amd64", "arm64"):
        data = hostile.image("odd/index", name, name.encode())
        children.append({**descriptor(data, MANIFEST), "platform": {"os": "linux", "architecture": name}})
    children[1]["annotations"] = {"vnd.docker.reference.digest": []}
    hostile.manifest("odd/index", "v1", make_index(children), INDEX)
    assert here.plain(f"{hostile.host}/odd/index:v1", "--platform", "linux/amd64").status == 0
    assert here.tags("odd/index") == ["v1"]
    assert here.manifest("odd/index", children[0]["digest"]) is not None
    assert here.manifest("odd/index", children[1]["digest"]) is None


def test_a_catalog_that_leads_in_a_circle(here: Here, hostile: Hostile) -> None:
    headers = {"Link": '</v2/_catalog?last=a&n=1>; rel="next"'}
    hostile.answers["/v2/_catalog"] = (200, headers, b'{"repositories":[]}')
    refused(here, hostile, "", "a list that has no end")
    assert len(hostile.asked) <= 6


def test_a_list_of_tags_that_is_a_web_page(here: Here, hostile: Hostile) -> None:
    hostile.answers["/v2/lies/portal/tags/list"] = (200, {"Content-Type": "text/html"}, b"<html>")
    refused(here, hostile, "/lies/portal", "something else answers in its place")


def test_a_size_in_a_manifest_that_what_is_here_has_not(here: Here, hostile: Hostile) -> None:
    image = json.loads(hostile.image("honest", "v1", b"y" * 100))
    assert here.plain(f"{hostile.host}/honest:v1").status == 0
    image["layers"][0]["size"] = 99
    hostile.manifest("honest", "v2", encode(image), MANIFEST)
    done = here.plain(f"{hostile.host}/honest:v2", "--retries", "0")
    assert done.status == 1
    assert "has 99 bytes, and it has 100" in done.stderr
    assert here.tags("honest") == ["v1"]
