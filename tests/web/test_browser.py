"""The documentation in a real browser: what a person sees, and whom the page talks to."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from app.api.description import PATHS
from tests.services.registry import RegistryServer, filesystem_store

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of opening a page: the document after its scripts ran, the browser's console, the page's requests."""

    dom: str
    console: str
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium: the page of the documentation is not looked at (apt-get install chromium)")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("docs")
    with RegistryServer(folder, filesystem_store(folder / "store")) as server:
        yield server


def visit(browser: str, url: str, folder: Path) -> Visit:
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={folder / 'net.json'}",
            "--virtual-time-budget=8000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = "\n".join(re.findall(r"^.*CONSOLE.*$", done.stderr, re.MULTILINE))
    return Visit(done.stdout, console, _requests(json.loads((folder / "net.json").read_text()), url))


def _requests(log: dict[str, Any], url: str) -> list[str]:
    """What the page asked for, and itself; the browser asks its maker for things too, but those have no origin."""
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in log["events"] if event["type"] == start and "url" in event.get("params", {})]
    return [
        one["url"] for one in asked if one["url"] == url or one.get("initiator", "not an origin") != "not an origin"
    ]


def test_the_page_shows_every_endpoint_and_talks_to_this_server_only(
    browser: str, registry: RegistryServer, tmp_path: Path
) -> None:
    seen = visit(browser, f"{registry.url}/docs", tmp_path)
    for path in PATHS.values():
        assert f'data-path="{path}"' in seen.dom, path
    assert "end-10: 202" in seen.dom
    assert {urlsplit(url).netloc for url in seen.requests} == {registry.host}
    assert f"{registry.url}/openapi.json" in seen.requests
    assert seen.console == ""


def test_an_endpoint_opened_by_its_link_shows_its_parameters_and_errors(
    browser: str, registry: RegistryServer, tmp_path: Path
) -> None:
    seen = visit(browser, f"{registry.url}/docs#/registry/get_blob", tmp_path)
    assert 'data-param-name="If-None-Match"' in seen.dom
    assert "BLOB_UNKNOWN" in seen.dom
    assert "Content Security Policy" not in seen.console
