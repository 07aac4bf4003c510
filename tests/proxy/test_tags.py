"""tags/list through the proxy: by every name, in pages of every kind, and while the upstream is away."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.proxy.pulling import UP, pulling, section
from tests.proxy.served import serve
from tests.services.client import Answer, Client
from tests.services.front import Fault, Front, portal, refusal
from tests.services.upstreams import Distribution, need_distribution

TAGS = [f"v{number}" for number in range(7)]
LIST = f"/v2/{UP}/team/app/tags/list"


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        for repository in ("team/app", "library/alpine"):
            for tag in TAGS:
                server.pusher.image(repository, tag, [10])
        yield server


def following(answer: Answer) -> str | None:
    """Where the next page is."""
    link = answer.header("link")
    found = re.fullmatch(r'<(/v2/[^>]+)>; rel="next"', link) if link else None
    assert (link is None) == (found is None), link
    return found[1] if found else None


async def pages(client: Client, target: str | None, most: int = 20) -> list[list[str]]:
    """The tags of every page, by Links alone."""
    found: list[list[str]] = []
    while target is not None:
        answer = (await client.get(target)).expect(200)
        found.append(answer.json()["tags"])
        target = following(answer)
        assert len(found) < most, "the pages have no end"
    return found


async def test_the_list_says_the_name_that_was_asked_for_and_links_to_its_next_page(
    front: Front, tmp_path: Path
) -> None:
    namings: list[tuple[str, dict[str, str], str]] = [
        (f"{UP}/team/app", {}, ""),
        ("team/app", {}, f"&ns={UP}"),
        ("team/app", {"X_Registry": UP}, ""),
        ("u/team/app", {}, ""),
        ("alpine", {}, "&ns=docker.io"),
        ("docker.io/alpine", {}, ""),
        ("team/app", {}, ""),  # by the default upstream
    ]
    upstreams = [section(front.url, aliases=["u"]), section(front.url, "docker.io")]
    async with pulling(tmp_path, *upstreams, proxy={"default_upstream": UP}) as service:
        for name, headers, query in namings:
            first = (await service.client.get(f"/v2/{name}/tags/list?n=3{query}", **headers)).expect(200)
            assert first.json() == {"name": name, "tags": TAGS[:3]}
            for more in ({}, headers):  # clients repeat their headers, or do not
                rest = await pages(service.with_headers(**more), following(first))
                assert rest == [TAGS[3:6], TAGS[6:]], (name, headers, query)


async def test_a_list_is_asked_for_again_when_it_is_old(front: Front, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url, tag_ttl=300)) as service:
        for _ in range(3):
            assert (await service.client.get(LIST)).expect(200).json()["tags"] == TAGS
        assert front.count() == 1
    front.forget()
    async with pulling(tmp_path, section(front.url, tag_ttl=0)) as service:
        for _ in range(3):
            (await service.client.get(LIST)).expect(200)
        assert front.count() == 3


@pytest.mark.parametrize("failure", ["refused", "500", "429", "portal"])
async def test_in_an_outage_the_last_list_is_served_with_a_warning(front: Front, tmp_path: Path, failure: str) -> None:
    breaks: dict[str, Callable[[], object]] = {
        "refused": lambda: front.down(),
        "500": lambda: front.on("*", refusal(500)),
        "429": lambda: front.on("*", refusal(429)),
        "portal": lambda: front.on("*", portal()),
    }
    async with pulling(tmp_path, section(front.url)) as service:
        fresh = (await service.client.get(f"{LIST}?n=3")).expect(200)
        assert fresh.header("warning") is None
        breaks[failure]()
        for _ in range(3):
            stale = (await service.client.get(f"{LIST}?n=3")).expect(200)
            assert (stale.json(), following(stale)) == (fresh.json(), following(fresh))
            assert (stale.header("warning") or "").startswith(f'299 - "{UP}')
        unknown = (await service.client.get(f"/v2/{UP}/never/heard/tags/list")).expect(503)
        assert unknown.header("retry-after") is not None


async def test_without_a_list_the_tags_that_were_pulled_are_served_in_pages(front: Front, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        for tag in ("v5", "v1", "v3"):
            (await service.client.get(f"/v2/{UP}/team/app/manifests/{tag}")).expect(200)
        front.down()
        assert await pages(service.client, f"{LIST}?n=2") == [["v1", "v3"], ["v5"]]


async def test_a_repository_that_is_not_there_has_no_list_and_is_not_asked_for_twice(
    front: Front, tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        for _ in range(3):
            missing = (await service.client.get(f"/v2/{UP}/never/heard/tags/list")).expect(404)
            assert missing.codes == ["NAME_UNKNOWN"]
        assert front.count() == 1


async def test_a_list_that_is_denied_is_denied(front: Front, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(LIST)).expect(200)
        front.on("*", refusal(401))
        assert (await service.client.get(LIST)).expect(403).codes == ["DENIED"]


@pytest.mark.parametrize("body", [b"[]", b"<html>", b'{"tags": ', b'"v1"'])
async def test_what_is_no_list_is_refused(front: Front, tmp_path: Path, body: bytes) -> None:
    front.on("*", Fault(status=200, headers={"Content-Type": "application/json"}, body=body))
    async with pulling(tmp_path, section(front.url)) as service:
        assert "no list" in (await service.client.get(LIST)).expect(503).json()["errors"][0]["message"]


async def test_an_upstream_that_knows_no_pages_is_cut_into_some(tmp_path: Path) -> None:
    """It sends everything, in an order of its own, with some that are no tags."""

    async def everything(_: web.Request) -> web.StreamResponse:
        return web.json_response({"name": "team/app", "tags": ["v4", "v0", "no tag", "v2", "v1", None, "v3"]})

    async with serve(everything) as served, pulling(tmp_path, section(served.base)) as service:
        assert await pages(service.client, f"{LIST}?n=2") == [["v0", "v1"], ["v2", "v3"], ["v4"]]
        assert await pages(service.client, LIST) == [["v0", "v1", "v2", "v3", "v4"]]


async def test_pages_of_an_upstream_with_tokens_of_its_own_have_an_end(tmp_path: Path) -> None:
    """As Quay and Google do: `last` means nothing to it, the token in its Link does. Newest first."""
    newest = [["v6", "v5"], ["v4", "v3"], ["v2"]]

    async def paged(request: web.Request) -> web.StreamResponse:
        number = int(request.query.get("token", "0"))
        link = {"Link": f'</v2/team/app/tags/list?n=2&token={number + 1}>; rel="next"'} if number < 2 else {}
        return web.json_response({"name": "team/app", "tags": newest[number]}, headers=link)

    async with serve(paged) as served, pulling(tmp_path, section(served.base)) as service:
        assert await pages(service.client, f"{LIST}?n=2") == newest


async def test_a_link_of_an_upstream_leads_nowhere_else(tmp_path: Path) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        if "x" in request.query:
            return web.json_response({"name": "team/app", "tags": ["b"]})
        link = '<http://127.0.0.1:1/v2/other/tags/list?x=1>; rel="next"'
        return web.json_response({"name": "team/app", "tags": ["a"]}, headers={"Link": link})

    async with serve(elsewhere) as served, pulling(tmp_path, section(served.base)) as service:
        assert await pages(service.client, f"{LIST}?n=1") == [["a"], ["b"]]
        assert {request.path for request in served.requests} == {"/v2/team/app/tags/list"}
