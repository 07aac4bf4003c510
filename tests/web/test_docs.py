"""The pages of the documentation, over HTTP."""

import gzip
import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.api.description import Site
from app.api.health import Readiness
from app.main import create_site
from app.telemetry.metrics import Metrics
from app.web.docs import docs


@pytest.fixture
def client() -> Iterator[TestClient]:
    site = Site(title="Edge Registry", docs_url=None, redoc_url=None, openapi_url=None)
    site.include_router(docs(site))
    with TestClient(site, follow_redirects=False) as client:
        yield client


def linked(client: TestClient) -> list[str]:
    return re.findall(r'(?:src|href)="(/docs/[^"]+)"', client.get("/docs").text)


def test_a_browser_is_led_to_the_documentation_and_a_probe_gets_a_line(client: TestClient) -> None:
    browser = client.get("/", headers={"Accept": "text/html,application/xhtml+xml;q=0.9"})
    assert (browser.status_code, browser.headers["location"]) == (307, "/docs")
    probe = client.get("/", headers={"Accept": "*/*"})
    assert (probe.status_code, probe.text.count("\n")) == (200, 1)
    assert client.head("/").status_code == 200
    assert browser.headers["vary"] == probe.headers["vary"] == "Accept"


def test_the_page_allows_no_script_inside_it_and_has_none(client: TestClient) -> None:
    page = client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert "script-src" not in policy
    assert "style-src" not in policy
    assert "unsafe" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon[a-z]+=|style=", page.text)


def test_everything_that_the_page_names_is_served_here_and_may_be_kept_for_ever(client: TestClient) -> None:
    names = linked(client)
    assert sorted(name.rpartition("/")[2] for name in names) == [
        "docs.js",
        "favicon.png",
        "swagger-ui.css",
        "swagger-ui.js",
    ]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', client.get("/docs").text)
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.head(name).headers["content-length"] == answer.headers["content-length"]


def test_a_large_asset_travels_compressed_to_those_who_take_it(client: TestClient) -> None:
    name = next(name for name in linked(client) if name.endswith("swagger-ui.js"))
    plain = client.get(name, headers={"Accept-Encoding": "identity"})
    with client.stream("GET", name, headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 2
    assert plain.headers["vary"] == "Accept-Encoding"


def test_an_asset_of_another_version_is_not_kept(client: TestClient) -> None:
    assert client.get("/docs/assets/0000000000000000/docs.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["..%2fdocs.py", "docs.html", "%2e%2e/docs.py", "swagger-ui.js.map", "x"])
def test_only_the_assets_of_the_page_can_be_fetched(client: TestClient, name: str) -> None:
    version = linked(client)[0].split("/")[3]
    assert client.get(f"/docs/assets/{version}/{name}").status_code == 404


def test_the_server_serves_the_description_of_the_whole_api() -> None:
    async def ready() -> None:
        return

    with TestClient(create_site(Readiness(ready), Metrics())) as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {
        "/v2/",
        "/v2/{name}/blobs/{digest}",
        "/api/v1/import",
        "/api/v1/export",
        "/livez",
        "/readyz",
        "/metrics",
    } <= set(paths)
    assert "/docs" not in paths
