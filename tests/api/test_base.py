import pytest

from tests.services.app import Running

ROUTES = {
    "/v2/": {"GET", "HEAD"},
    "/v2": {"GET", "HEAD"},
    "/v2/_catalog": {"GET", "HEAD"},
    "/v2/a/tags/list": {"GET", "HEAD"},
    "/v2/a/manifests/t": {"GET", "HEAD", "PUT", "DELETE"},
    f"/v2/a/blobs/sha256:{'0' * 64}": {"GET", "HEAD", "DELETE"},
    f"/v2/a/referrers/sha256:{'0' * 64}": {"GET", "HEAD"},
    "/v2/a/blobs/uploads/": {"POST"},
    "/v2/a/blobs/uploads": {"POST"},
    "/v2/a/blobs/uploads/id": {"GET", "HEAD", "PATCH", "PUT", "DELETE"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get")


@pytest.mark.parametrize("target", ["/v2/", "/v2"])
async def test_the_base_says_that_this_is_a_registry(light: Running, target: str) -> None:
    answer = (await light.client.get(target)).expect(200)
    assert answer.header("docker-distribution-api-version") == "registry/2.0"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.json() == {}
    (await light.client.head(target)).expect(200)


@pytest.mark.parametrize("target", ROUTES)
async def test_a_method_that_a_path_does_not_have_is_405_with_allow(light: Running, target: str) -> None:
    for method in METHODS:
        if method in ROUTES[target]:
            continue
        answer = (await light.client.ask(method, target)).expect(405)
        if method != "HEAD":
            assert answer.codes == ["UNSUPPORTED"]
        assert set((answer.header("allow") or "").split(", ")) == ROUTES[target], method
    assert light.store.asked == []


@pytest.mark.parametrize("target", ["/v2/_catalog", "/v2/a/tags/list", f"/v2/a/referrers/sha256:{'0' * 64}"])
async def test_head_of_a_list_is_its_get_without_the_body(light: Running, target: str) -> None:
    await light.client.push_image("a", "t", b"layer")
    got, seen = await light.client.get(target), await light.client.head(target)
    assert seen.status == got.status == 200
    for name in ("content-type", "content-length", "link"):
        assert seen.header(name) == got.header(name)


async def test_a_request_id_is_kept_or_made(light: Running) -> None:
    given = await light.client.get("/v2/", x_request_id="abc-1")
    assert given.header("x-request-id") == "abc-1"
    made = {(await light.client.get("/v2/", x_request_id=bad)).header("x-request-id") for bad in ("", "a b", "x" * 65)}
    assert len(made) == 3
    assert made.isdisjoint({"", "a b", "x" * 65})


@pytest.mark.parametrize("target", ["/livez", "/readyz", "/metrics"])
async def test_health_needs_no_credentials_and_no_store_to_live(light: Running, target: str) -> None:
    assert b"ok" in (await light.client.get("/livez")).expect(200).body
    assert light.store.asked == []
    (await light.client.get(target)).expect(200)
