"""Who may pull what of an upstream: one rule holds, whatever the repository is called."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.auth.htpasswd import add
from app.settings import Settings
from tests.proxy.pulling import UP, pulling, section, stored
from tests.services.app import InProcess, Running
from tests.services.client import Client, Image, digest_of
from tests.services.front import Front
from tests.services.upstreams import Distribution


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


MAY, MAY_NOT, WRONG = basic("may", "secret-1"), basic("maynot", "secret-2"), basic("may", "guess")
RULES = [
    {"users": ["may"], "repositories": [f"{UP}/**", "team/**"], "actions": ["pull", "push"]},
    {"users": ["maynot"], "repositories": ["team/**", "mine/**", "other.test/**"], "actions": ["pull", "push"]},
]
LISTENERS = [{"port": 32001}, {"port": 32000, "read_only": True, "anonymous": "pull"}]


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [3000])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


@pytest.fixture
async def service(front: Front, tmp_path: Path) -> AsyncIterator[Running]:
    """Its first listener asks who is there, its second one does not."""
    users = tmp_path / "htpasswd"
    add(users, "may", "secret-1", cost=4)
    add(users, "maynot", "secret-2", cost=4)
    given: dict[str, Any] = {"auth": {"htpasswd": users, "rules": RULES}, "listeners": LISTENERS}
    upstreams = [section(front.url, aliases=["u"], tag_ttl=300), section(front.url, "other.test")]
    async with pulling(tmp_path, *upstreams, proxy={"default_upstream": UP}, **given) as service:
        yield service


NAMINGS: list[tuple[str, dict[str, str], str]] = [
    (f"{UP}/team/app", {}, ""),
    ("u/team/app", {}, ""),
    ("UP.TEST/team/app", {}, ""),
    ("team/app", {}, f"?ns={UP}"),
    ("team/app", {}, "?ns=u"),
    (f"{UP}/team/app", {}, f"?ns={UP}"),
    ("team/app", {"X_Registry": UP}, ""),
    (f"other.test/{UP}/team/app", {}, f"?ns={UP}"),
    ("team/app", {}, ""),  # as a plain name, which this caller may pull: but not what stands behind it
]


async def test_who_may_not_pull_of_an_upstream_gets_nothing_by_any_name(
    service: Running, front: Front, image: Image
) -> None:
    layer = digest_of(image.blobs[1])
    whats = ["manifests/1", f"manifests/{image.digest}", f"blobs/{layer}", "tags/list", f"referrers/{image.digest}"]
    allowed, refused = service.with_headers(authorization=MAY), service.with_headers(authorization=MAY_NOT)
    for _ in range(2):  # before it is cached, and after
        for name, headers, query in NAMINGS:
            for what in whats:
                front.forget()
                answer = await refused.get(f"/v2/{name}/{what}{query}", **headers)
                nothing = what.startswith("referrers") and answer.status == 200 and not answer.json()["manifests"]
                assert answer.status in (403, 404) or nothing, (name, headers, query, what)
                assert answer.header("docker-content-digest") is None
                assert front.count() == 0, (name, headers, query, what)
        pulled = (await allowed.get("/v2/team/app/manifests/1")).expect(200)
        assert pulled.body == image.data
        assert (await allowed.get(f"/v2/team/app/blobs/{layer}")).expect(200).body == image.blobs[1]
        await stored(service, f"{UP}/team/app", layer)


async def test_the_same_answer_is_given_to_who_may_not_whether_it_exists_or_not(service: Running, front: Front) -> None:
    refused = service.with_headers(authorization=MAY_NOT)
    for name, headers, query in NAMINGS[:-1]:
        there = await refused.get(f"/v2/{name}/manifests/1{query}", **headers)
        absent = await refused.get(f"/v2/{name}/manifests/none{query}", **headers)
        assert (there.status, there.codes) == (absent.status, absent.codes)
    assert front.count() == 0


async def test_nobody_mounts_or_takes_over_what_he_may_not_pull(service: Running, front: Front, image: Image) -> None:
    layer = digest_of(image.blobs[1])
    allowed, refused = service.with_headers(authorization=MAY), service.with_headers(authorization=MAY_NOT)
    (await allowed.get(f"/v2/{UP}/team/app/manifests/1")).expect(200)
    (await allowed.get(f"/v2/{UP}/team/app/blobs/{layer}")).expect(200)
    await stored(service, f"{UP}/team/app", layer)
    for source in (f"&from={UP}/team/app", "&from=team/app", ""):
        (await refused.ask("POST", f"/v2/mine/app/blobs/uploads/?mount={layer}{source}")).expect(202)
    for repository in ("mine/app", "team/app"):
        unknown = (await refused.put_manifest(repository, "1", image.data)).expect(404)
        assert unknown.codes == ["MANIFEST_BLOB_UNKNOWN"] * 2
    (await allowed.put_manifest("team/app", "1", image.data)).expect(201)


async def test_one_upstream_does_not_stand_in_for_another(service: Running, front: Front, image: Image) -> None:
    """The same registry under a name that the caller may pull of: the rules are about names."""
    refused = service.with_headers(authorization=MAY_NOT)
    assert (await refused.get("/v2/other.test/team/app/manifests/1")).expect(200).body == image.data
    (await refused.get(f"/v2/{UP}/team/app/manifests/1")).expect(403)


async def test_a_read_only_anonymous_listener_asks_nobody_who_he_is(
    service: Running, front: Front, image: Image
) -> None:
    """A mirror that answers 401 is sent the passwords of the registries that it mirrors."""
    reading = Settings.model_validate({"listeners": LISTENERS}).listening()[1]
    for given in ({}, {"authorization": MAY}, {"authorization": WRONG}, {"authorization": "Bearer x"}):
        client = Client(InProcess(service.app.on(reading)), given)
        (await client.get("/v2/")).expect(200)
        for name, headers, query in NAMINGS:
            if not name.startswith("other.test"):
                found = await client.get(f"/v2/{name}/manifests/1{query}", **headers)
                assert found.expect(200).body == image.data
        assert (await client.get("/v2/never/heard/manifests/1")).status == 404
    (await service.client.get("/v2/")).expect(401)
    (await service.with_headers(authorization=WRONG).get("/v2/")).expect(401)


async def test_the_passwords_of_clients_do_not_go_upstream(service: Running, front: Front) -> None:
    allowed = service.with_headers(authorization=MAY)
    (await allowed.get(f"/v2/{UP}/team/app/manifests/1")).expect(200)
    assert front.count() > 0
    assert [one.authorization for one in front.requests] == [None] * front.count()
