"""The client against servers that answer what registries answer, and what stands in their place."""

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
from aiohttp import web

from app.proxy.credentials.login import IDENTITY_TOKEN, Login
from app.proxy.errors import Denied, Failing, Missing, Portal, RateLimited, Unreachable, UpstreamError
from tests.proxy.served import Dialled, Handler, Logins, dial, serve

BLOB = bytes(range(256)) * 4096
DIGEST = "sha256:" + "ab" * 32
MANIFEST = b'{"schemaVersion":2}'
OCI = "application/vnd.oci.image.manifest.v1+json"


def always(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


async def taken(dialled: Dialled, start: int = 0, repository: str = "app") -> tuple[int, int | None, bytes]:
    """Where the blob's bytes began, its size, and the bytes."""
    async with dialled.client.stream(repository, f"blobs/{DIGEST}", start=start) as stream:
        return stream.start, stream.size, b"".join([chunk async for chunk in stream.chunks()])


async def blob(request: web.Request) -> web.StreamResponse:
    """BLOB, or the range of it."""
    wanted = request.http_range
    if wanted.start is None:
        return web.Response(body=BLOB)
    return web.Response(
        status=206,
        body=BLOB[wanted.start :],
        headers={"Content-Range": f"bytes {wanted.start}-{len(BLOB) - 1}/{len(BLOB)}"},
    )


# Requests


async def test_a_manifest_comes_whole_with_its_headers() -> None:
    handler = always(200, MANIFEST, Content_Type=OCI, Docker_Content_Digest=DIGEST, RateLimit_Remaining="76;w=21600")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        reply = await dialled.client.get("team/app", "manifests/1.0", accept=[OCI, "application/json"])
        head = await dialled.client.head("team/app", "manifests/1.0", [OCI])
        assert (reply.status, reply.body, reply.headers["docker-content-digest"]) == (200, MANIFEST, DIGEST)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(MANIFEST)))
        assert dialled.rates.remaining == 76
    assert upstream.asked == ["GET /v2/team/app/manifests/1.0", "HEAD /v2/team/app/manifests/1.0"]
    first = upstream.requests[0].headers
    assert first["Accept"] == f"{OCI}, application/json"
    assert first["Accept-Encoding"] == "identity"
    assert first["User-Agent"].startswith("edge-registry")
    assert "Authorization" not in first


async def test_an_upstream_without_head_is_asked_with_get() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(body=MANIFEST, headers={"Docker-Content-Digest": DIGEST})

    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        reply = await dialled.client.head("app", "manifests/1")
        assert (reply.status, reply.headers["Docker-Content-Digest"], reply.body) == (200, DIGEST, MANIFEST)
        with pytest.raises(Failing, match="405"):
            await dialled.client.head("app", f"blobs/{DIGEST}")
    assert [request.method for request in upstream.requests] == ["HEAD", "GET", "HEAD"]


async def test_a_query_and_an_etag_are_sent() -> None:
    async with serve(always(304, ETag='"x"')) as upstream, dial(upstream.base) as dialled:
        assert (await dialled.client.get("app", "tags/list", query={"n": "5", "last": "a b"}, etag='"x"')).status == 304
    assert upstream.asked == ["GET /v2/app/tags/list?n=5&last=a+b"]
    assert upstream.requests[0].headers["If-None-Match"] == '"x"'


@pytest.mark.parametrize(
    ("name", "path", "repository", "asked"),
    [
        ("up.test", "", "app", "/v2/app/tags/list"),
        ("up.test", "/project/repo/", "app", "/v2/project/repo/app/tags/list"),
        ("up.test", "/artifactory/api/docker/remote/v2", "team/app", "/artifactory/api/docker/remote/v2/team/app/tags/list"),
        ("up.test", "/v2", "app", "/v2/app/tags/list"),
        ("docker.io", "", "alpine", "/v2/library/alpine/tags/list"),
        ("docker.io", "", "grafana/grafana", "/v2/grafana/grafana/tags/list"),
        ("docker.io", "/hub-proxy", "alpine", "/v2/hub-proxy/library/alpine/tags/list"),
    ],
)  # fmt: skip
async def test_repositories_get_the_upstreams_own_name(name: str, path: str, repository: str, asked: str) -> None:
    async with serve(always(200, b"{}")) as upstream, dial(upstream.base + path, name=name) as dialled:
        await dialled.client.get(repository, "tags/list")
    assert upstream.asked == [f"GET {asked}"]


async def test_docker_hub_is_dialled_where_its_registry_is() -> None:
    for url in ("https://docker.io", "https://index.docker.io/", "https://registry-1.docker.io"):
        async with dial(url, name="hub.example") as dialled:
            assert str(dialled.client._origin) == "https://registry-1.docker.io"
            assert dialled.client.remote("alpine") == "library/alpine"


async def test_a_client_starts_without_dialling_anybody() -> None:
    async with serve(always(200)) as upstream, dial(upstream.base):
        pass
    assert upstream.requests == []


# What answers mean


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"", Missing),
        (404, b"<html>", Missing),
        (410, b"", Missing),
        (400, b'{"errors":[{"code":"NAME_INVALID"}]}', Missing),
        (400, b'{"errors":[{"code":"UNSUPPORTED"}]}', Failing),
        (400, b'{"errors":"odd"}', Failing),
        (405, b"", Failing),
        (408, b"", Failing),
        (500, b"", Failing),
        (503, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', Failing),
        (429, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', RateLimited),
        (401, b"", Denied),
        (403, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', Denied),
        (416, b"", Portal),
        (511, b"", Portal),
        (204, b"", Portal),
        (304, b"", Portal),
        (300, b"", Portal),
    ],
)
async def test_a_status_has_its_meaning(status: int, body: bytes, kind: type[UpstreamError]) -> None:
    async with serve(always(status, body)) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(UpstreamError) as caught:
            await dialled.client.get("app", "manifests/1")
        assert type(caught.value) is kind
        assert caught.value.reason.startswith("up.test ")
    assert len(upstream.requests) == 1


async def test_a_question_that_the_upstream_refuses_does_not_open_the_breaker() -> None:
    async with serve(always(400)) as upstream, dial(upstream.base) as dialled:
        dialled.breaker._threshold = 1
        for _ in range(3):
            with pytest.raises(Failing):
                await dialled.client.get("app", "manifests/1")
        assert dialled.breaker.state == "closed"


async def test_an_open_breaker_answers_without_a_request() -> None:
    async with serve(always(500)) as upstream, dial(upstream.base) as dialled:
        dialled.breaker._threshold = 2
        for tag in "12":
            with pytest.raises(Failing):
                await dialled.client.head("app", f"manifests/{tag}")
        with pytest.raises(Unreachable):
            await dialled.client.head("app", "manifests/1")
        with pytest.raises(Unreachable):
            await taken(dialled)
    assert len(upstream.requests) == 2


async def test_after_a_429_nobody_is_asked_until_the_time_has_come() -> None:
    async with serve(always(429, Retry_After="30")) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(RateLimited) as first:
            await dialled.client.get("app", "manifests/1")
        assert first.value.retry_after == 30
        with pytest.raises(RateLimited) as second:
            await taken(dialled)
        assert second.value.retry_after is not None
        assert 0 < second.value.retry_after <= 30
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Fri, 31 Dec 1999 23:59:59 GMT", 60.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("99999999999", 21600.0),
        ("-5", None),
        ("soon", None),
    ],
)
async def test_retry_after_is_read_and_bounded(header: str, seconds: float | None) -> None:
    handler = always(503, Retry_After=header, Date="Fri, 31 Dec 1999 23:58:59 GMT")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Failing) as caught:
            await dialled.client.get("app", "manifests/1")
    assert caught.value.retry_after == seconds


async def test_a_web_page_is_no_manifest_and_no_blob() -> None:
    handler = always(200, b"<html>Log in to the WLAN</html>", Content_Type="text/html; charset=utf-8")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        for ask in (dialled.client.get, dialled.client.head):
            with pytest.raises(Portal):
                await ask("app", "manifests/1")
        with pytest.raises(Portal):
            await taken(dialled)
        with pytest.raises(Portal):
            await dialled.client.ping()
        assert dialled.breaker._failures == 3


async def test_an_encoded_body_is_refused() -> None:
    async with serve(always(200, b"xx", Content_Encoding="gzip")) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Portal, match="encoded"):
            await dialled.client.get("app", "manifests/1")
        with pytest.raises(Portal, match="encoded"):
            await taken(dialled)


async def test_a_manifest_above_the_limit_is_refused() -> None:
    async with serve(always(200, b"x" * 2000)) as upstream, dial(upstream.base) as dialled:
        assert len((await dialled.client.get("app", "manifests/1", limit=2000)).body) == 2000
        with pytest.raises(Portal):
            await dialled.client.get("app", "manifests/1", limit=1999)


# Blobs


async def test_a_blob_comes_whole_and_from_any_byte_on() -> None:
    async with serve(blob) as upstream, dial(upstream.base) as dialled:
        assert await taken(dialled) == (0, len(BLOB), BLOB)
        assert await taken(dialled, 1000) == (1000, len(BLOB), BLOB[1000:])
    assert upstream.requests[1].headers["Range"] == "bytes=1000-"
    assert "Range" not in upstream.requests[0].headers


async def test_an_upstream_that_ignores_ranges_says_where_it_began() -> None:
    async with serve(always(200, BLOB)) as upstream, dial(upstream.base) as dialled:
        assert await taken(dialled, 1000) == (0, len(BLOB), BLOB)


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 999-1998/2000", "bytes 1001-1999/2000", "bytes 1000-1999/1999", "bytes 1000-999/2000",
     "bytes 1000-1998/2000", "items 1000-1999/2000", "bytes */2000"],
)  # fmt: skip
async def test_another_part_than_was_asked_for_is_refused(content_range: str) -> None:
    handler = always(206, b"x" * 1000, Content_Range=content_range)
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Portal):
            await taken(dialled, 1000)


async def test_a_part_that_stops_before_the_blob_does_is_an_early_end() -> None:
    handler = always(206, b"x" * 500, Content_Range="bytes 1000-1499/2000")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Unreachable, match="500 bytes early"):
            await taken(dialled, 1000)


async def test_a_blob_of_unsaid_length_is_read_to_its_end() -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BLOB)
        return response

    async with serve(chunked) as upstream, dial(upstream.base) as dialled:
        assert await taken(dialled) == (0, None, BLOB)


async def test_a_connection_cut_in_a_blob_gives_what_came_and_then_raises() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
        await response.prepare(request)
        await response.write(BLOB[:5000])
        assert request.transport is not None
        request.transport.close()
        return response

    async with serve(cut) as upstream, dial(upstream.base) as dialled:
        came = b""
        async with dialled.client.stream("app", f"blobs/{DIGEST}") as stream:
            with pytest.raises(Unreachable):  # noqa: PT012  (it is the loop that raises)
                async for chunk in stream.chunks():
                    came += chunk
        assert came == BLOB[:5000]
        assert dialled.breaker._failures == 0


async def test_a_stall_ends_after_its_time() -> None:
    over = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
        if "manifests" not in request.path:
            await response.prepare(request)
            await response.write(BLOB[:5000])
        await over.wait()
        return response

    async with serve(stall) as upstream, dial(upstream.base, stall_timeout=0.2) as dialled:
        with pytest.raises(Unreachable, match=r"sent nothing for 0\.2 s"):
            await taken(dialled)
        with pytest.raises(Unreachable, match=r"sent nothing for 0\.2 s"):
            await dialled.client.get("app", "manifests/1")
        over.set()


async def test_a_slow_reader_is_no_stall() -> None:
    large = BLOB * 16
    async with serve(always(200, large)) as upstream, dial(upstream.base, stall_timeout=0.2) as dialled:
        async with dialled.client.stream("app", f"blobs/{DIGEST}") as stream:
            chunks = stream.chunks()
            size = len(await anext(chunks))
            await asyncio.sleep(0.5)  # the time itself is what is tested
            async for chunk in chunks:
                size += len(chunk)
        assert size == len(large)


async def test_chunks_are_no_larger_than_they_may_be() -> None:
    async with serve(always(200, BLOB * 8)) as upstream, dial(upstream.base) as dialled:
        async with dialled.client.stream("app", f"blobs/{DIGEST}") as stream:
            sizes = [len(chunk) async for chunk in stream.chunks()]
        assert max(sizes) <= 512 << 10


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(BLOB)
        except ConnectionError:
            gone.set()
        return response

    async with serve(endless) as upstream, dial(upstream.base) as dialled:
        async with dialled.client.stream("app", f"blobs/{DIGEST}") as stream:
            await anext(stream.chunks())
        async with asyncio.timeout(5):
            await gone.wait()


async def test_connections_are_used_again() -> None:
    async with serve(always(404, b"{}")) as upstream, dial(upstream.base) as dialled:
        for _ in range(3):
            with pytest.raises(Missing):
                await dialled.client.get("app", "manifests/1")
        peers = {request.transport.get_extra_info("peername") for request in upstream.requests if request.transport}
        assert len(peers) == 1


async def test_a_kept_connection_that_the_upstream_closed_is_no_failure() -> None:
    async def closing(request: web.Request) -> web.StreamResponse:
        if len(upstream.requests) == 2 and request.transport is not None:
            request.transport.abort()
        return web.Response(body=MANIFEST)

    async with serve(closing) as upstream, dial(upstream.base) as dialled:
        for _ in range(2):
            assert (await dialled.client.get("app", "manifests/1")).body == MANIFEST
    assert len(upstream.requests) == 3


async def test_nobody_there_is_said_at_once() -> None:
    async with serve(always(200)) as upstream:
        pass
    async with dial(upstream.base) as dialled:
        with pytest.raises(Unreachable, match=r"up\.test cannot be reached: Connection refused"):
            await dialled.client.get("app", "manifests/1")
        with pytest.raises(Unreachable):
            await dialled.client.ping()
        assert dialled.breaker._failures == 1


async def test_a_name_that_does_not_resolve_is_said() -> None:
    async with dial("http://no-such-host.invalid") as dialled:
        with pytest.raises(Unreachable, match="name cannot be resolved"):
            await dialled.client.get("app", "manifests/1")


async def test_what_does_not_speak_http_is_said() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server, dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as dialled:
        with pytest.raises(Unreachable, match="does not speak HTTP"):
            await dialled.client.get("app", "manifests/1")


@pytest.mark.parametrize(
    "body",
    [b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
    ids=["nonsense", "cut"],
)
async def test_a_chunked_body_that_is_broken_is_an_early_end(body: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server, dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as dialled:
        with pytest.raises(Unreachable):
            await taken(dialled)
        with pytest.raises(Unreachable):
            await dialled.client.get("app", "manifests/1")


async def test_a_long_signed_address_is_followed() -> None:
    handler = redirecting(307, lambda: "/data?signature=" + "x" * 12_000)
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        assert (await taken(dialled))[2] == BLOB


async def test_what_is_left_of_a_rate_limit_is_read_from_refusals_too() -> None:
    handler = always(404, RateLimit_Limit="100;w=21600", RateLimit_Remaining="3;w=21600")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        for tail, remaining in ((f"blobs/{DIGEST}", None), ("manifests/1", 3)):
            with pytest.raises(Missing):
                await dialled.client.head("app", tail)
            assert dialled.rates.remaining == remaining


# The probe


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, {}), (401, {"WWW-Authenticate": "Basic realm=x"}), (403, {}), (404, {}), (429, {}), (405, {})],
)
async def test_any_answer_of_a_registry_is_a_sign_of_life(status: int, headers: dict[str, str]) -> None:
    async with serve(always(status, b"{}", **headers)) as upstream, dial(upstream.base) as dialled:
        await dialled.client.ping()
    assert upstream.asked == ["GET /v2/"]


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, Portal),
        (404, {"Content-Type": "text/html"}, Portal),
        (511, {}, Portal),
        (503, {}, Failing),
        (302, {"Location": "http://10.0.0.1/login"}, Portal),
    ],
)
async def test_other_answers_are_none(status: int, headers: dict[str, str], kind: type[UpstreamError]) -> None:
    async with serve(always(status, b"", **headers)) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(kind):
            await dialled.client.ping()


async def test_the_probe_passes_an_open_breaker_and_has_little_patience() -> None:
    over = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with serve(silent) as upstream, dial(upstream.base, connect_timeout=0.1) as dialled:
        for _ in range(100):
            dialled.breaker.failed(Unreachable("x"))
        with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            await dialled.client.ping()
        over.set()
        await dialled.client.ping()


# Redirects


def redirecting(status: int, location: Callable[[], str], target: Handler = blob) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v2/"):
            return web.Response(status=status, headers={"Location": location()})
        return await target(request)

    return handler


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_blob_is_followed_to_another_host_with_its_range(status: int) -> None:
    async with serve(blob) as storage:
        handler = redirecting(status, lambda: f"{storage.named}/data?X-Signature=a%2Fb+c&d=%7e")
        async with serve(handler) as upstream, dial(upstream.base, allow_private=True) as dialled:
            assert await taken(dialled, 7) == (7, len(BLOB), BLOB[7:])
            assert (await dialled.client.head("app", "manifests/1")).status == 200
    assert storage.asked == ["GET /data?X-Signature=a%2Fb+c&d=%7e", "HEAD /data?X-Signature=a%2Fb+c&d=%7e"]
    assert storage.requests[0].headers["Range"] == "bytes=7-"


async def test_a_relative_location_is_followed() -> None:
    async with (
        serve(redirecting(302, lambda: "../../../elsewhere/data?x=1")) as upstream,
        dial(upstream.base) as dialled,
    ):
        assert (await taken(dialled))[2] == BLOB
    assert upstream.asked[1] == "GET /elsewhere/data?x=1"


async def test_each_request_starts_at_the_original_address() -> None:
    async with serve(redirecting(307, lambda: "/data")) as upstream, dial(upstream.base) as dialled:
        await taken(dialled)
        await taken(dialled, 9)
    assert [line.split()[1][:4] for line in upstream.asked] == ["/v2/", "/dat", "/v2/", "/dat"]


async def test_a_login_does_not_follow_to_another_host_or_port() -> None:
    """And is not given to who asks for it there."""
    grabbing = always(401, WWW_Authenticate='Basic realm="give"')

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return web.Response(status=307, headers={"Location": target})

    async with serve(grabbing) as thief, serve(handler) as upstream:
        for place in (thief.named, thief.base):
            target = f"{place}/x"
            login = Logins(Login("me", "secret"))
            async with dial(upstream.base, login, allow_private=True) as dialled:
                with pytest.raises(Denied) as caught:
                    await taken(dialled)
                assert "secret" not in caught.value.reason
    assert [request.headers.get("Authorization") for request in thief.requests] == [None, None]


async def test_another_host_does_not_lead_back_to_the_login() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/private/blobs/x":
            return web.Response(body=b"private", status=200 if request.headers.get("Authorization") else 401)
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return web.Response(status=307, headers={"Location": other.named})

    async def back(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{upstream.base}/v2/private/blobs/x"})

    async with serve(back) as other, serve(handler) as upstream:
        login = Logins(Login("me", "secret"))
        async with dial(upstream.base, login, allow_private=True) as dialled:
            with pytest.raises(Denied):
                await taken(dialled)
    assert len(other.requests) == 1


async def test_a_login_stays_on_the_same_host() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return await redirecting(307, lambda: "/data")(request)

    async with serve(handler) as upstream, dial(upstream.base, Logins(Login("me", "secret"))) as dialled:
        assert (await taken(dialled))[2] == BLOB


@pytest.mark.parametrize(
    "location",
    ["http://10.1.2.3/x?sig=S3CRET", "http://169.254.169.254/latest/?sig=S3CRET", "http://[::1]/x", "http://localhost/S3CRET",
     "http://[::ffff:127.0.0.1]/x", "http://2130706433/S3CRET", "http://127.1/S3CRET", "ftp://example.com/S3CRET",
     "//S3CRET:x@10.0.0.1/x", "http://a:99999/S3CRET", "", "file:///S3CRET", "http://0/S3CRET"],
)  # fmt: skip
async def test_a_redirect_to_where_nobody_may_go_is_refused(location: str) -> None:
    async with serve(redirecting(307, lambda: location)) as upstream, dial(upstream.base) as dialled:
        with pytest.raises((Portal, Unreachable)) as caught:
            await taken(dialled)
        assert "S3CRET" not in caught.value.reason
        assert isinstance(caught.value, Portal) or "resolved" in caught.value.reason
    assert len(upstream.requests) == 1


async def test_a_login_in_a_location_is_not_sent() -> None:
    handler = redirecting(307, lambda: f"http://me:pass@127.0.0.1:{upstream.port}/data")
    async with serve(handler) as upstream, dial(upstream.base) as dialled:
        assert (await taken(dialled))[2] == BLOB
    assert upstream.requests[1].headers.get("Authorization") is None


async def test_redirects_end() -> None:
    async with serve(redirecting(307, lambda: "/v2/again")) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Portal, match="more than 5 times"):
            await taken(dialled)
    assert len(upstream.requests) == 6


async def test_a_manifest_behind_a_redirect_with_an_anonymous_token_of_its_own() -> None:
    """As registry.k8s.io sends to a regional registry."""

    async def regional(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "anyone"})
        if request.headers.get("Authorization") == "Bearer anyone":
            return web.Response(body=MANIFEST)
        challenge = f'Bearer realm="{region.named}/token",service="r",scope="repository:k8s/pause:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with serve(regional) as region:
        handler = redirecting(307, lambda: f"{region.named}/v2/k8s/pause/manifests/3.9")
        login = Logins(Login("me", "secret"))
        async with serve(handler) as upstream, dial(upstream.base, login, allow_private=True) as dialled:
            for _ in range(2):
                assert (await dialled.client.get("pause", "manifests/3.9")).body == MANIFEST
    assert login.asked == []
    assert region.asked[1] == "GET /token?service=r&scope=repository:k8s/pause:pull"
    assert region.authorizations("/v2/") == [None, "Bearer anyone", "Bearer anyone"]


# Secrets


async def test_no_secret_is_in_what_people_see(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = Login("me", "S3CRET")
    texts = [repr(login)]
    answers: list[web.Response] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(body=json.dumps({"token": "S3CRET-token"}))
        return answers.pop(0)

    async with serve(handler) as upstream:
        challenge = {"WWW-Authenticate": f'Bearer realm="{upstream.base}/token?S3CRET=1",service="s"'}
        for last in (
            web.Response(status=500),
            web.Response(status=403),
            web.Response(status=307, headers={"Location": "http://127.0.0.1:1/x?S3CRET"}),
            web.Response(status=307, headers={"Location": "http://10.0.0.1/x?S3CRET"}),
            web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="https://evil.example/S3CRET"'}),
        ):
            answers[:] = [web.Response(status=401, headers=challenge), last, web.Response(status=403)]
            async with dial(upstream.base, Logins(login, Login("me", "S3CRET2"))) as dialled:
                with pytest.raises(UpstreamError) as caught:
                    await dialled.client.get("app", "manifests/1")
                texts += [caught.value.reason, str(caught.value), repr(caught.value), str(dialled.reports)]
                known = dialled.client._authorization._known._known
                texts += [repr(dialled.client._tokens._kept._known), repr(list(known))]
    assert "S3CRET" not in "".join(texts).replace("/token?S3CRET=1", "") + caplog.text


async def test_an_identity_token_is_no_password() -> None:
    handler = always(401, WWW_Authenticate="Basic realm=x")
    async with serve(handler) as upstream, dial(upstream.base, Logins(Login(IDENTITY_TOKEN, "t"))) as dialled:
        with pytest.raises(Denied, match="identity token"):
            await dialled.client.get("app", "manifests/1")
    assert len(upstream.requests) == 1
