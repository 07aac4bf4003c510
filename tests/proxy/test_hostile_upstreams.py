"""Upstreams that answer nonsense, for ever, or in somebody else's place: bounded, refused in our words, never believed."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from app.proxy.errors import Unreachable
from tests.proxy.pulling import UP, pulling, section, upstream_of
from tests.proxy.served import Served, dial, serve
from tests.services.app import CutOff, Running
from tests.services.client import MANIFEST, Answer, digest_of, make_image

TAGGED: Final = f"/v2/{UP}/app/manifests/1"
TAGS: Final = f"/v2/{UP}/app/tags/list"
IMAGE: Final = make_image(b"layer one", b"layer two")
SECRET: Final = "x9SecretSignature"
EVIL: Final = "evil-marker"
KEY: Final = re.compile(r"[A-Za-z0-9._:!/@+=,~%-]+")
LIMIT: Final = 20.0
"""Seconds within which everything here must be over; without a bound, nothing ever is."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def good(request: web.Request) -> web.StreamResponse:
    """A registry that holds IMAGE as every tag of every repository."""
    tail = request.path.rpartition("/")[2]
    if "/manifests/" in request.path:
        return web.Response(body=IMAGE.data, headers={"Content-Type": MANIFEST, "Docker-Content-Digest": IMAGE.digest})
    blobs = {digest_of(data): data for data in IMAGE.blobs}
    return web.Response(body=blobs[tail]) if tail in blobs else web.Response(status=404)


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


def with_headers(**headers: str) -> Handler:
    """The good registry, with these headers in the place of its own."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = await good(request)
        for name, value in headers.items():
            answer.headers[name.replace("_", "-")] = value
        return answer

    return handler


@asynccontextmanager
async def before(handler: Handler, folder: Path, **fields: Any) -> AsyncIterator[tuple[Running, Served]]:
    """The service behind such an upstream. Whatever that did, no request failed unexpectedly and no odd key is left."""
    async with serve(handler) as served, pulling(folder, section(served.base, **fields)) as service:
        async with asyncio.timeout(LIMIT):
            yield service, served
        await check(service)


Talk = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]
"""Says to a request, of which it gets the head, what it likes."""


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """The URL of a server that does so, on connections that it keeps open."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await talk(writer, await reader.readuntil(b"\r\n\r\n"))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(lambda r, w: tasks.add(asyncio.ensure_future(serve_one(r, w))), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round


@asynccontextmanager
async def raw(folder: Path, talk: Talk) -> AsyncIterator[Running]:
    """The service behind such a server, with little patience."""
    async with talking(talk) as url, pulling(folder, section(url, stall_timeout=0.3, connect_timeout=1)) as service:
        async with asyncio.timeout(LIMIT):
            yield service
        await check(service)


def undaunted(service: Running) -> Running:
    """The service, whose breaker never opens: one for many failures."""
    upstream_of(service).breaker._threshold = 1 << 30
    return service


def tagged(case: object) -> str:
    """A tag of the repository that stands for one case."""
    return f"/v2/{UP}/case{case}/manifests/1"


def case_of(path: str) -> int:
    return int(path.split("/")[2].removeprefix("case"))


def cases(handlers: Sequence[Handler]) -> Handler:
    """Each handler as a repository."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await handlers[case_of(request.path)](request)

    return handler


async def check(service: Running) -> None:
    written = service.log.getvalue()
    assert "Traceback" not in written
    assert '"status": 500' not in written
    assert SECRET not in written
    for key in await service.store.keys():
        assert KEY.fullmatch(key), key
        assert ".." not in key
        assert EVIL not in key


def refused(answer: Answer) -> str:
    """The reason of a 503: our words, with nothing of what the upstream said."""
    answer.expect(503)
    assert int(answer.header("retry-after") or 0) >= 1
    assert SECRET not in answer.body.decode()
    assert EVIL not in answer.body.decode()
    assert not any(SECRET in value or EVIL in value for _, value in answer.headers)
    reason = str(answer.json()["errors"][0]["message"])
    assert UP in reason
    return reason


PAGE: Final = b"<!DOCTYPE html><title>Welcome to evil-marker</title>"


NO_MANIFESTS: Final[Sequence[tuple[Handler, str]]] = (
    (answering(200, PAGE, Content_Type="text/html"), "web page"),
    (answering(511, PAGE, Content_Type="text/html"), "511"),
    (answering(299, b"{}"), "299"),
    (answering(206, IMAGE.data, Content_Range="bytes 0-9/10"), "206"),
    (answering(200, IMAGE.data, Content_Type=MANIFEST, Content_Encoding="gzip"), "encoded"),
    (answering(200, IMAGE.data, Content_Type=MANIFEST, Content_Encoding=EVIL), "encoded"),
    (answering(200, b"not json", Content_Type=MANIFEST), "not this manifest"),
    (answering(200, b"[" * 100_000, Content_Type=MANIFEST), "not this manifest"),
    (answering(200, b'{"a":' * 100_000, Content_Type=MANIFEST), "not this manifest"),
    (answering(200, b'{"schemaVersion":1,"name":"evil-marker"}', Content_Type=MANIFEST), "not this manifest"),
    (answering(200, b"{}" + b" " * (5 << 20), Content_Type=MANIFEST), "too much"),
    (answering(200, IMAGE.data.replace(b'"digest": "sha256:', b'"digest": "../../', 1)), "not this manifest"),
    (answering(200, b"", Content_Type=MANIFEST), "not this manifest"),
)


async def test_what_is_no_manifest_is_neither_kept_nor_passed_on(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        return await NO_MANIFESTS[case_of(request.path)][0](request)

    async with before(handler, tmp_path) as (service, _):
        for number, (_, reason) in enumerate(NO_MANIFESTS):
            assert reason in refused(await undaunted(service).client.get(tagged(number)))
        assert not [key for key in await service.store.keys() if "_manifests" in key or "_tags" in key]


async def test_a_portal_behind_a_redirect_is_no_registry(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/login":
            return web.Response(body=PAGE, content_type="text/html")
        return web.Response(status=302, headers={"Location": f"/login?next={SECRET}"})

    async with before(handler, tmp_path) as (service, _):
        for path in (TAGGED, TAGS, f"/v2/{UP}/app/blobs/{IMAGE.digest}"):
            refused(await service.client.get(path))


async def test_a_digest_that_is_none_makes_us_look_for_ourselves(tmp_path: Path) -> None:
    long = ("x" * 8000, "sha256:" + "G" * 64)
    digests = ("", "sha256:", "sha256:../../evil-marker", "md5:d41d8cd98f00b204e9800998ecf8427e", *long)
    handler = cases([with_headers(Docker_Content_Digest=digest) for digest in digests])
    async with before(handler, tmp_path) as (service, served):
        for number in range(len(digests)):
            got = (await service.client.get(tagged(number))).expect(200)
            assert (got.body, got.header("docker-content-digest")) == (IMAGE.data, IMAGE.digest)
            assert served.asked[-2:] == [f"{method} /v2/case{number}/manifests/1" for method in ("HEAD", "GET")]


async def test_a_digest_of_something_else_is_not_answered_with_it(tmp_path: Path) -> None:
    other = digest_of(b"something else")
    async with before(with_headers(Docker_Content_Digest=other), tmp_path) as (service, _):
        assert "not this manifest" in refused(await service.client.get(TAGGED))
        asked = await service.client.get(f"/v2/{UP}/app/manifests/{other}")
        refused(asked)


async def test_a_content_type_that_is_none_is_replaced_by_what_the_manifest_says(tmp_path: Path) -> None:
    odd = ("evil-marker", "text/html2; a=b", "a/../../b", "application/" + "x" * 3000, "a/x__XLDIR__", 'a/b"c', "/")
    async with before(cases([with_headers(Content_Type=text) for text in odd]), tmp_path) as (service, _):
        for number in range(len(odd)):
            got = (await service.client.get(tagged(number))).expect(200)
            assert (got.body, got.header("content-type")) == (IMAGE.data, MANIFEST)


def lines(*values: str) -> bytes:
    return ("\r\n".join(values) + "\r\n").encode("latin-1")


ENDLESS: Final = 1 << 30


async def flood(writer: asyncio.StreamWriter, piece: bytes, sent: list[int]) -> None:
    """Sends as much as the other side takes."""
    while sum(sent) < ENDLESS:
        writer.write(piece)
        await writer.drain()
        sent.append(len(piece))


FLOODS: Final = (
    (b"HTTP/1.1 200 OK\r\n", b"X-Evil: evil-marker\r\n" * 1000),
    (b"HTTP/1.1 200 OK\r\nX-Evil: ", b"evil-marker" * 1000),
    (b"HTTP/1.1 200 ", b"evil-marker" * 1000),
    (b"", b"evil-marker" * 1000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 0x1000 + b"\r\n"),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Evil: evil-marker\r\n" * 1000),
    (b"HTTP/1.1 500 Broken\r\nContent-Type: application/json\r\n\r\n", b"[" * 10_000),
    (b"HTTP/1.1 307 There\r\nLocation: /v2/case8/manifests/1\r\n\r\n", b"[" * 10_000),
    (b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\n\r\n", b"[" * 10_000),
)


async def test_an_answer_without_an_end_is_not_taken_for_long(tmp_path: Path) -> None:
    sent: list[int] = []

    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        if request.startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return
        begin, piece = FLOODS[case_of(request.decode())]
        writer.write(begin)
        await flood(writer, piece, sent)

    async with raw(tmp_path, talk) as service:
        for number, (begin, _) in enumerate(FLOODS):
            sent.clear()
            answer = await undaunted(service).client.get(tagged(number))
            assert answer.status in (403, 503), begin
            assert EVIL not in answer.body.decode()
            assert sum(sent) < 64 << 20, begin


DRIPS: Final = (
    b"HTTP/1.1 200 OK\r\nX-Drip: ",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 404 Not\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 503 Not\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 307 There\r\nLocation: /v2/case5/there\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 1",
)


async def test_an_answer_that_drips_does_not_hold_a_request_for_long(tmp_path: Path) -> None:
    """A byte comes more often than a stall would be noticed."""

    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        if request.startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(DRIPS[case_of(request.decode())])
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"0")
            await writer.drain()

    async with raw(tmp_path, talk) as service:
        undaunted(service)
        answers = await asyncio.gather(*(service.client.get(tagged(number)) for number in range(len(DRIPS))))
        assert {answer.status for answer in answers} <= {403, 404, 503}


NO_HTTP: Final = (
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 evil-marker\r\n\r\n",
    b"HTTP/1.1 99 Less\r\n\r\n",
    b"HTTP/1.1 1000 More\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: evil-marker\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nevil-marker\r\n",
    b"HTTP/1.1 200 OK\r\nX: \x00\xff\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil-marker\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded: evil-marker\r\n\r\n",
)


async def test_what_is_no_http_is_said_in_our_words(tmp_path: Path) -> None:
    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(NO_HTTP[case_of(request.decode())])
        writer.close()

    async with raw(tmp_path, talk) as service:
        for number in range(len(NO_HTTP)):
            refused(await undaunted(service).client.get(tagged(number)))
            refused(await service.client.get(f"/v2/{UP}/case{number}/blobs/{IMAGE.digest}"))


HOSTS: Final = (
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://[::1]:1/",
    "http://[fe80::1%25eth0]/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://{label}.example/".format(label="a" * 70),
    "http://a..example/",
    "http://xn--a/",
    "http://xn--n3h.invalid/",
    "http://{long}invalid/".format(long="a." * 200),
    "http://%0d%0aevil-marker.invalid/",
    "http://evil marker/",
    "http://user:password@/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "//",
    "http://",
    "http://127.0.0.1:99999/",
    "\x7f",
    "http://☃.invalid/",
)


async def test_a_redirect_to_where_nobody_may_go_is_refused(tmp_path: Path) -> None:
    handler = cases([answering(307, Location=f"{location}?sig={SECRET}") for location in HOSTS])
    async with before(handler, tmp_path) as (service, _):
        for number in range(len(HOSTS)):
            refused(await undaunted(service).client.get(tagged(number)))
            refused(await service.client.get(f"/v2/{UP}/case{number}/blobs/{IMAGE.digest}"))


async def test_a_token_service_where_nobody_may_go_is_refused(tmp_path: Path) -> None:
    handler = cases([answering(401, WWW_Authenticate=f'Bearer realm="{realm}",service="{SECRET}"') for realm in HOSTS])
    credentials = {"username": "me", "password": SECRET}
    async with before(handler, tmp_path, credentials=credentials) as (service, served):
        for number in range(len(HOSTS)):
            refused(await undaunted(service).client.get(tagged(number)))
        assert set(served.authorizations()) == {None}


async def test_a_warning_of_a_stale_tag_is_plain_text(tmp_path: Path) -> None:
    state: dict[str, Handler] = {"handler": good}

    async def handler(request: web.Request) -> web.StreamResponse:
        return await state["handler"](request)

    async with before(handler, tmp_path) as (service, _):
        (await service.client.get(TAGGED)).expect(200)
        for location in (*HOSTS[:3], "http://xn--n3h.invalid/"):
            state["handler"] = answering(307, Location=location)
            stale = (await service.client.get(TAGGED)).expect(200)
            assert re.fullmatch(r'299 - "[ !#-\[\]-~]+"', stale.header("warning") or "")


async def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    async with before(answering(307, Location="/v2/app/manifests/1"), tmp_path) as (service, served):
        assert "redirects more than" in refused(await service.client.get(TAGGED))
        assert len(served.requests) <= 6


async def test_a_private_host_is_dialled_only_where_that_is_allowed(tmp_path: Path) -> None:
    """`localhost` is another host than the configured 127.0.0.1, and has a private address."""
    async with serve(good) as inner:

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{inner.named}{request.path}"})

        async with before(handler, tmp_path / "1") as (service, _):
            assert "private address" in refused(await service.client.get(TAGGED))
        assert inner.requests == []
        async with before(handler, tmp_path / "2", allow_private=True) as (service, _):
            assert (await service.client.get(TAGGED)).expect(200).body == IMAGE.data


async def test_a_login_is_sent_to_a_token_service_elsewhere_only_where_it_is_listed(tmp_path: Path) -> None:
    async def give(request: web.Request) -> web.StreamResponse:
        return web.json_response({"token": "t"})

    async with serve(give) as service_of_tokens:

        async def handler(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") == "Bearer t":
                return await good(request)
            realm = f'Bearer realm="{service_of_tokens.named}/token",service="s"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})

        credentials = {"username": "me", "password": SECRET}
        async with before(handler, tmp_path / "1", credentials=credentials) as (service, served):
            assert "token_hosts" in refused(await service.client.get(TAGGED))
            assert set(served.authorizations()) == {None}
        assert service_of_tokens.requests == []
        listed = {"credentials": credentials, "token_hosts": ["localhost"]}
        async with before(handler, tmp_path / "2", **listed) as (service, _):
            (await service.client.get(TAGGED)).expect(200)
        assert len(service_of_tokens.requests) == 1


def listing(body: bytes, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert "tags/list" in request.path or "referrers" in request.path
        kept = {name: value for name, value in headers.items() if name != "Link" or "last" not in request.query}
        return web.Response(body=body, headers={"Content-Type": "application/json", **kept})

    return handler


async def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    bodies = (b"", b"[]", b"null", b"[" * 100_000, b'"evil-marker"', b"\xff\xfe", b'{"a":' * 100_000)
    async with before(cases([listing(body) for body in bodies]), tmp_path) as (service, _):
        for number in range(len(bodies)):
            refused(await service.client.get(f"/v2/{UP}/case{number}/tags/list"))
            none = (await service.client.get(f"/v2/{UP}/case{number}/referrers/{IMAGE.digest}")).expect(200)
            assert none.json()["manifests"] == []
            assert (none.header("warning") or "").startswith(f'299 - "{UP} ')


async def test_of_a_list_only_what_can_be_a_tag_is_answered(tmp_path: Path) -> None:
    tags = ["ok", 1, None, [], {"a": 1}, "", "../../evil-marker", "evil marker", "x" * 129, "é", "a\r\nX-Evil: 1", "v1"]
    async with before(listing(json.dumps({"name": EVIL, "tags": tags}).encode()), tmp_path) as (service, _):
        found = (await service.client.get(TAGS)).expect(200)
        assert found.json() == {"name": f"{UP}/app", "tags": ["ok", "v1"]}


async def test_a_list_without_tags_is_an_empty_one(tmp_path: Path) -> None:
    odd = ("null", "{}", '"evil-marker"', "[]")
    bodies = [b'{"tags": %s}' % tags.encode() for tags in odd]
    handler = cases([listing(body, Link='</v2/x?last=y>; rel="next"') for body in bodies])
    async with before(handler, tmp_path) as (service, _):
        for number in range(len(odd)):
            found = (await service.client.get(f"/v2/{UP}/case{number}/tags/list")).expect(200)
            assert (found.json()["tags"], found.header("link")) == ([], None)


async def test_a_list_of_ten_megabytes_is_refused_and_hurts_nobody_else(tmp_path: Path) -> None:
    huge = json.dumps({"tags": ["t" * 100] * 100_000}).encode()
    assert len(huge) > 10_000_000

    async def handler(request: web.Request) -> web.StreamResponse:
        return await (listing(huge) if "tags/list" in request.path else good)(request)

    async with before(handler, tmp_path) as (service, _):
        for _ in range(3):
            assert "too much" in refused(await service.client.get(TAGS))
        assert upstream_of(service).breaker.state == "closed"
        (await service.client.get(TAGGED)).expect(200)


@pytest.mark.parametrize("kind", ["tags", "referrers"])
async def test_a_link_to_another_host_is_not_followed_there(kind: str, tmp_path: Path) -> None:
    async with serve(good) as other:
        link = f'<{other.base}/evil-marker?last=b&n=2>; rel="next"'
        body = json.dumps({"tags": ["a", "b"], "manifests": []}).encode()
        async with before(listing(body, Link=link), tmp_path) as (service, served):
            path = f"{TAGS}?n=2" if kind == "tags" else f"/v2/{UP}/app/referrers/{IMAGE.digest}"
            found = (await service.client.get(path)).expect(200)
            if kind == "tags":
                assert (found.header("link") or "").startswith(f"</v2/{UP}/app/tags/list?")
            else:
                assert len(served.requests) >= 2
            assert all(request.path.startswith("/v2/app/") for request in served.requests)
        assert other.requests == []


async def test_referrers_that_are_nonsense_are_left_out(tmp_path: Path) -> None:
    fine = {"mediaType": MANIFEST, "digest": IMAGE.digest, "size": len(IMAGE.data)}
    items = [fine, None, 7, {}, {**fine, "digest": "../../evil-marker"}, {**fine, "size": -1}, {**fine, "size": "1"}]
    body = json.dumps({"schemaVersion": 2, "manifests": items}).encode()
    async with before(listing(body), tmp_path) as (service, _):
        found = (await service.client.get(f"/v2/{UP}/app/referrers/{digest_of(b'subject')}")).expect(200)
        assert found.json()["manifests"] == [fine]


def blob_server(get: Handler, head: Mapping[str, str]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(headers=dict(head)) if request.method == "HEAD" else await get(request)

    return handler


@pytest.mark.parametrize(("size", "reason"), [("1", "answers with"), ("100000000000000000", "spool.max_bytes")])
async def test_a_blob_of_another_size_than_was_said_is_not_kept(size: str, reason: str, tmp_path: Path) -> None:
    data = IMAGE.blobs[1]

    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        said = size if request.startswith(b"HEAD") else str(len(data))
        body = b"" if request.startswith(b"HEAD") else data
        writer.write(lines("HTTP/1.1 200 OK", f"Content-Length: {said}", "") + body)

    async with raw(tmp_path, talk) as service:
        answer = (await service.client.get(f"/v2/{UP}/app/blobs/{digest_of(data)}")).expect(503)
        assert reason in answer.body.decode()
        assert not [key for key in await service.store.keys() if key.startswith("data/")]


async def test_a_blob_without_an_end_is_cut_where_it_should_have_ended(tmp_path: Path) -> None:
    sent: list[int] = []

    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        if request.startswith(b"HEAD"):
            writer.write(lines("HTTP/1.1 200 OK", "Content-Length: 1000000", ""))
            return
        writer.write(lines("HTTP/1.1 200 OK", ""))
        await flood(writer, b"x" * 10_000, sent)

    async with raw(tmp_path, talk) as service:
        with contextlib.suppress(CutOff):
            refused(await service.client.get(f"/v2/{UP}/app/blobs/{digest_of(b'x' * 1_000_000)}"))
        assert not [key for key in await service.store.keys() if key.startswith("data/")]
    assert sum(sent) < 64 << 20


async def test_a_manifest_that_names_absurd_sizes_breaks_nothing(tmp_path: Path) -> None:
    def sized(size: int) -> Handler:
        document = json.loads(IMAGE.data)
        document["layers"][0]["size"] = size
        data = json.dumps(document).encode()
        headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest_of(data)}

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(body=data, headers=headers) if "/manifests/" in request.path else await good(request)

        return handler

    sizes = (10**30, 2**63, 10**15)
    async with before(cases([sized(size) for size in sizes]), tmp_path, prefetch={"enabled": True}) as (service, _):
        for number in range(len(sizes)):
            assert (await undaunted(service).client.get(tagged(number))).status in (200, 503)
            (await service.client.get(f"/v2/{UP}/case{number}/blobs/{digest_of(IMAGE.blobs[1])}")).expect(503)
            (await service.client.get(f"/v2/{UP}/case{number}/blobs/{digest_of(IMAGE.blobs[2])}")).expect(200)


async def test_cookies_are_not_kept(tmp_path: Path) -> None:
    async with before(with_headers(Set_Cookie="evil=marker; Path=/"), tmp_path) as (service, served):
        (await service.client.get(TAGGED)).expect(200)
        (await service.client.get(TAGGED)).expect(200)
        assert [request.headers.get("Cookie") for request in served.requests] == [None] * len(served.requests)


async def test_nothing_that_a_client_names_is_dialled_unless_it_is_configured(tmp_path: Path) -> None:
    async with serve(good) as inner, before(good, tmp_path) as (service, served):
        host = inner.base.removeprefix("http://")
        names = [host, f"localhost:{inner.port}", inner.base, "169.254.169.254", "", f"{UP}@{host}", f"{UP}/../{host}"]
        names += [f"{UP}:443", f"{UP}.", f"{UP}#@{host}", f"{UP}\\@{host}", "[::1]", "evil-marker"]
        for name in names:
            quoted = name.replace("#", "%23").replace("\\", "%5C")
            for answer in (
                await service.client.get(f"/v2/app/manifests/1?ns={quoted}"),
                await service.client.get("/v2/app/manifests/1", X_Registry=name),
                await service.client.get(f"/v2/{quoted}/app/manifests/1"),
            ):
                assert answer.status in (400, 404), (name, answer)
        assert inner.requests == []
        assert served.requests == []
        (await service.client.get(f"/v2/app/manifests/1?ns={UP}")).expect(200)


async def test_a_path_cannot_leave_the_upstreams_repositories(tmp_path: Path) -> None:
    async with before(good, tmp_path) as (service, served):
        for path in (
            f"/v2/{UP}/../../admin/manifests/1",
            f"/v2/{UP}/%2e%2e/%2e%2e/admin/manifests/1",
            f"/v2/{UP}/app%2f..%2f..%2fadmin/manifests/1",
            f"/v2/{UP}/app/manifests/..%2f..%2fadmin",
            f"/v2/{UP}/app/manifests/1%3Fadmin=1",
            f"/v2/{UP}/app/manifests/1%23admin",
            f"/v2/{UP}/app%0d%0aX-Evil:1/manifests/1",
            f"/v2/{UP}//manifests/1",
            f"/v2/{UP}/app@{UP}/manifests/1",
        ):
            assert (await service.client.get(path)).status in (400, 404), path
        assert served.requests == []


async def test_bytes_that_are_no_content_are_no_progress() -> None:
    """A chunk's extension may be as long as its sender likes, and the connection never falls silent."""

    async def talk(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "") + b"1;")
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"evil-marker")
            await writer.drain()

    async with (
        asyncio.timeout(LIMIT),
        talking(talk) as url,
        dial(url, stall_timeout=0.3) as dialled,
        dialled.client.stream("app", f"blobs/{IMAGE.digest}") as stream,
    ):
        with pytest.raises(Unreachable, match="sent nothing for"):
            assert [chunk async for chunk in stream.chunks()] == []
