"""Input that is wrong, too large or meant to harm: coded answers, no request to the store, nothing left behind."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.services.app import Running
from tests.services.client import CONFIG, INDEX, LAYER, MANIFEST, Answer, Client, digest_of, encode, make_image, noise

HEX = "0" * 64
BAD_NAMES = [
    "..",
    ".", "a/../b",
    "a/..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc", "..%2f..%2fetc", "a%2f..%2fb", "a%00b", "%00",
    "a%0ab", "A", "aB/c", "a//b", "/a", "a/", "-a", "a-", "a__-b", "a..b", "a___b", "_a", "a/_b",
    "%C3%BC", "%f0%9f%92%a9",
    "a b",
    "a%20b", "a%5cb", "a:b", "a@b", "a!b", "a~b",
    "a+b", "a'b", "a%22b", "%ff%fe", "a" * 255, "a/" * 127 + "aa",
    "a" * 5000,
    "%252e%252e", "a%2f%2fb", "{a}", "$(id)", "a;b", "a%7fb", "a%0d%0aSet-Cookie:x",
]  # fmt: skip
BAD_TAGS = [
    ".", "..", ".a", "-a", "a%00", "%2e%2e%2fx", "a%2fb", "a%20b", "%C3%BC", "a" * 129, "a" * 5000, "a!b", "a+b",
    "a%0ab",
    "a~b", "@", "%ff", "a%5cb", "$(id)", "a,b",
]  # fmt: skip
BAD_DIGESTS = [
    "sha256:../../x", "sha256:%2e%2e%2f%2e%2e%2fx", f"sha256:{'A' * 64}", f"SHA256:{HEX}", f"sha256:{HEX}0",
    f"sha256:{HEX[1:]}", "sha256:", ":", "md5:d41d8cd98f00b204e9800998ecf8427e", f"sha512:{HEX}", f"sha1:{HEX[:40]}",
    f"sha256:{HEX}%00", f"sha256:{HEX}%0a", f"sha256:{'g' * 64}", f"sha256+b64:{HEX}", f"sha384:{'0' * 96}",
    f"sha256:{'%D9%A0' * 64}", f"sha256:{HEX}:x", f"sha256:{'0' * 5000}", f"sha256%3A{HEX}%2f..",
]  # fmt: skip


async def refused(service: Running, requests: list[tuple[str, str]]) -> None:
    """Each is 400 or 404, in the specification's form, without one request to the store."""
    service.store.asked.clear()
    for method, target in requests:
        answer = await service.client.ask(method, target, body=b"{}" if method in ("PUT", "PATCH") else None)
        assert answer.status in (400, 404), (method, target, answer)
        assert len(answer.body) < 6000
        assert service.store.asked == [], (method, target)


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda text: text[:20])
async def test_a_bad_name_costs_no_store_request(light: Running, name: str) -> None:
    digest = f"sha256:{HEX}"
    requests = [
        ("GET", f"/v2/{name}/tags/list"),
        ("GET", f"/v2/{name}/manifests/t"),
        ("HEAD", f"/v2/{name}/manifests/{digest}"),
        ("PUT", f"/v2/{name}/manifests/t"),
        ("DELETE", f"/v2/{name}/manifests/t"),
        ("GET", f"/v2/{name}/blobs/{digest}"),
        ("DELETE", f"/v2/{name}/blobs/{digest}"),
        ("POST", f"/v2/{name}/blobs/uploads/"),
        ("POST", f"/v2/{name}/blobs/uploads/?digest={digest}"),
        ("PATCH", f"/v2/{name}/blobs/uploads/id?_state=x"),
        ("PUT", f"/v2/{name}/blobs/uploads/id?_state=x&digest={digest}"),
        ("GET", f"/v2/{name}/referrers/{digest}"),
    ]
    await refused(light, requests)


@pytest.mark.parametrize("tag", BAD_TAGS, ids=lambda text: text[:20])
async def test_a_bad_tag_costs_no_store_request(light: Running, tag: str) -> None:
    await refused(light, [(method, f"/v2/a/manifests/{tag}") for method in ("GET", "HEAD", "PUT", "DELETE")])
    await refused(light, [("GET", f"/v2/a/tags/list?last={tag}")])


@pytest.mark.parametrize("digest", BAD_DIGESTS, ids=lambda text: text[:20])
async def test_a_bad_digest_costs_no_store_request(light: Running, digest: str) -> None:
    requests = [(method, f"/v2/a/blobs/{digest}") for method in ("GET", "HEAD", "DELETE")]
    requests += [(method, f"/v2/a/manifests/{digest}") for method in ("GET", "HEAD", "PUT", "DELETE")]
    requests += [("GET", f"/v2/a/referrers/{digest}"), ("GET", f"/v2/a/referrers/sha256:{HEX}?last={digest}")]
    requests += [("POST", f"/v2/a/blobs/uploads/?{name}={digest}") for name in ("digest", "mount")]
    await refused(light, requests)


@pytest.mark.parametrize("list_", ["/v2/_catalog", "/v2/a/tags/list"])
@pytest.mark.parametrize("n", ["-1", "abc", "1e3", "0x10", "1.5", "%D9%A3", "%00", "", " 1", "9" * 20, "+1"])
async def test_a_bad_page_size_is_400(light: Running, list_: str, n: str) -> None:
    await light.client.push_image("a", "t", b"x")
    light.store.asked.clear()
    answer = await light.client.get(f"{list_}?n={n}")
    assert answer.expect(400).codes == ["PAGINATION_NUMBER_INVALID"]
    assert light.store.asked == []


@pytest.mark.parametrize("list_", ["/v2/_catalog", "/v2/a/tags/list"])
async def test_a_huge_page_size_is_capped(light: Running, list_: str) -> None:
    """CVE-2023-2253 of Distribution allocated what `n` said."""
    await light.client.push_image("a", "t", b"x")
    before = time.perf_counter()
    for n in ("1000000000", "9" * 19):
        answer = (await light.client.get(f"{list_}?n={n}")).expect(200)
        assert len(answer.body) < 200
    assert time.perf_counter() - before < 0.5


@pytest.mark.parametrize("last", ["..", "%00", "A B", "a//b", "x" * 400])
async def test_a_bad_catalog_cursor_costs_no_store_request(light: Running, last: str) -> None:
    await refused(light, [("GET", f"/v2/_catalog?last={last}")])


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "without"])
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_a_manifest_that_is_too_large_is_413(light: Running, by: str, length: bool) -> None:
    data = noise((4 << 20) + 1)
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for at in range(0, len(data), 65_536):
            taken += 65_536
            yield data[at : at + 65_536]

    reference = "t" if by == "tag" else digest_of(data)
    headers = {"content-type": MANIFEST} | ({"content-length": str(len(data))} if length else {})
    answer = await light.client.ask("PUT", f"/v2/a/manifests/{reference}", headers, body())
    assert answer.expect(413).codes == ["SIZE_INVALID"]
    assert taken <= len(data) + 65_536
    assert light.store.asked == []


async def test_a_manifest_that_says_it_is_huge_is_not_even_read(light: Running) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": MANIFEST, "content-length": str(10**9)}
    assert (await light.client.ask("PUT", "/v2/a/manifests/t", headers, body())).expect(413).codes == ["SIZE_INVALID"]


def manifest(**fields: Any) -> bytes:
    return encode({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], **fields})


def described(media_type: str = LAYER, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{HEX}", "size": 1, **fields}


BAD_MANIFESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", MANIFEST),
    "no json": (b"{", MANIFEST),
    "binary": (bytes(range(256)), MANIFEST),
    "utf-16": ('{"schemaVersion":2}'.encode("utf-16"), MANIFEST),
    "a list": (b"[]", MANIFEST),
    "a string": (b'"x"', MANIFEST),
    "null": (b"null", MANIFEST),
    "deep nesting": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, MANIFEST),
    "deep lists": (b'{"layers":' + b"[" * 200_000 + b"]" * 200_000 + b"}", MANIFEST),
    "duplicate keys": (b'{"schemaVersion":2,"layers":[],"layers":[]}', MANIFEST),
    "duplicate keys inside": (b'{"schemaVersion":2,"layers":[],"x":{"a":1,"a":2}}', MANIFEST),
    "layers and manifests": (manifest(manifests=[]), MANIFEST),
    "config and manifests": (encode({"schemaVersion": 2, "config": described(CONFIG), "manifests": []}), INDEX),
    "another type": (manifest(), INDEX),
    "type in the document differs": (manifest(mediaType=INDEX), MANIFEST),
    "type is no string": (manifest(mediaType=1), MANIFEST),
    "an index without manifests": (encode({"schemaVersion": 2}), INDEX),
    "layers are no list": (manifest(layers={}), MANIFEST),
    "a layer is a string": (manifest(layers=["x"]), MANIFEST),
    "no digest": (manifest(layers=[{"mediaType": LAYER, "size": 1}]), MANIFEST),
    "a path as digest": (manifest(layers=[described(digest="sha256:../../../x")]), MANIFEST),
    "md5": (manifest(layers=[described(digest="md5:0")]), MANIFEST),
    "no size": (manifest(layers=[{"mediaType": LAYER, "digest": f"sha256:{HEX}"}]), MANIFEST),
    "negative size": (manifest(layers=[described(size=-1)]), MANIFEST),
    "size is a bool": (manifest(layers=[described(size=True)]), MANIFEST),
    "size is a float": (manifest(layers=[described(size=1.5)]), MANIFEST),
    "size is a text": (manifest(layers=[described(size="1")]), MANIFEST),
    "a bad subject": (manifest(subject={"digest": "x"}), MANIFEST),
    "subject is a text": (manifest(subject="x"), MANIFEST),
    "annotations of numbers": (manifest(annotations={"a": 1}), MANIFEST),
    "a number of 5000 digits": (b'{"schemaVersion":' + b"9" * 5000 + b"}", MANIFEST),
    "a bad content type": (manifest(), "application/../x"),
    "an empty content type": (manifest(), ";"),
    "a long content type": (manifest(), "application/" + "x" * 300),
    "a lone surrogate": (b'{"schemaVersion":2,"mediaType":"\\ud800","layers":[]}', MANIFEST),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
async def test_a_bad_manifest_is_400_and_touches_no_store(light: Running, case: str) -> None:
    data, media_type = BAD_MANIFESTS[case]
    answer = await light.client.put_manifest("a", "t", data, media_type)
    assert answer.expect(400).codes == ["MANIFEST_INVALID"]
    assert light.store.asked == []


async def test_a_manifest_of_very_many_descriptors_is_bounded(light: Running) -> None:
    """4 MiB hold some 27,000 layers: all missing, each named, in seconds and without a request each at once."""
    layers = [{"mediaType": "a/b", "size": 1, "digest": f"sha256:{i:064x}"} for i in range(27_000)]
    data = json.dumps({"schemaVersion": 2, "layers": layers}, separators=(",", ":")).encode()
    assert len(data) < 4 << 20
    before = time.perf_counter()
    answer = await light.client.put_manifest("a", "t", data)
    assert answer.status in (400, 404)
    assert time.perf_counter() - before < 15
    assert (await light.client.get("/v2/a/manifests/t")).status == 404


async def test_one_layer_named_very_often_is_looked_for_once(light: Running) -> None:
    await light.client.push_blob("a", b"x")
    same = {"mediaType": "a/b", "digest": digest_of(b"x"), "size": 1}
    light.store.asked.clear()
    data = encode({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [same] * 10_000})
    (await light.client.put_manifest("a", "t", data)).expect(201)
    assert len(light.store.asked) < 20


async def test_encoded_manifests_are_415(light: Running) -> None:
    answer = await light.client.ask(
        "PUT", "/v2/a/manifests/t", {"content-type": MANIFEST, "content-encoding": "gzip"}, make_image().data
    )
    assert answer.expect(415).codes == ["UNSUPPORTED"]


@pytest.mark.parametrize(
    "text", ["bytes=" + ",".join(f"{i}-{i}" for i in range(10_000)), "bytes=" + "9" * 60_000 + "-"]
)
async def test_a_range_of_ten_thousand_parts_is_answered_at_once(light: Running, text: str) -> None:
    """CVE-2025-62727 of Starlette: quadratic time."""
    digest = await light.client.push_blob("a", b"x" * 1000)
    before = time.perf_counter()
    answer = await light.client.get(f"/v2/a/blobs/{digest}", range=text)
    assert time.perf_counter() - before < 0.05
    assert len(answer.expect(200).body) == 1000


@pytest.mark.parametrize("query", ["a=b&" * 50_000, "n=1" * 20_000, "%" * 1000, "&" * 50_000, "mount=%ff%fe&from=%ff"])
async def test_a_wild_query_is_answered_with_a_code(light: Running, query: str) -> None:
    before = time.perf_counter()
    for method, target in (("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/"), ("GET", "/v2/a/tags/list")):
        answer = await light.client.ask(method, f"{target}?{query}")
        assert answer.status in (200, 202, 400, 404), answer
    assert time.perf_counter() - before < 0.5


async def test_wild_headers_are_answered_with_a_code(light: Running) -> None:
    digest = await light.client.push_blob("a", b"x")
    for headers in (
        {"content-length": "-1"},
        {"content-length": "x"},
        {"content-length": "9" * 5000},
        {"if-none-match": "\xff" * 100},
        {"range": "bytes=\xff-"},
        {"x-request-id": "\r\n"},
        {"authorization": "\xff"},
    ):
        for method, target in (("GET", f"/v2/a/blobs/{digest}"), ("PUT", "/v2/a/manifests/t")):
            answer: Answer = await light.client.ask(method, target, headers, b"{}" if method == "PUT" else None)
            assert answer.status in (200, 400, 404, 413), (headers, answer)


async def test_newlines_stay_inside_one_log_line(light: Running) -> None:
    client = Client(light.client._transport, {"user-agent": 'x\n{"event":"forged"}\r\n\x1b[31m'})
    (await client.get('/v2/a%0a{"event":"forged"}%0d%0a%1b[31m/tags/list')).expect(400)
    assert {event["event"] for event in light.events()} == {"store", "request"}
    assert "\x1b" not in light.log.getvalue()


async def test_foreign_urls_are_never_dialled(light: Running) -> None:
    dialled = asyncio.Event()

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/layer"
        await light.client.push_blob("a", b"x")
        layer = {"mediaType": LAYER, "digest": digest_of(b"x"), "size": 1, "urls": [url]}
        data = manifest(layers=[layer])
        (await light.client.put_manifest("a", "t", data)).expect(201)
        (await light.client.get("/v2/a/manifests/t")).expect(200)
        (await light.client.delete(f"/v2/a/manifests/{digest_of(data)}")).expect(202)
        assert not dialled.is_set()
