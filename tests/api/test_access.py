import base64
import itertools
from pathlib import Path
from typing import Any

import pytest

from app.auth.htpasswd import add
from tests.api.conftest import Create
from tests.services.app import Running
from tests.services.client import MANIFEST, Client, descriptor, digest_of, make_image

ROUTES = [
    ("GET", "/v2/_catalog", "pull"),
    ("GET", "/v2/a/tags/list", "pull"),
    ("GET", "/v2/a/manifests/t", "pull"),
    ("HEAD", "/v2/a/manifests/t", "pull"),
    ("PUT", "/v2/a/manifests/t", "push"),
    ("DELETE", "/v2/a/manifests/t", "delete"),
    ("DELETE", "/v2/a/manifests/{manifest}", "delete"),
    ("GET", "/v2/a/blobs/{blob}", "pull"),
    ("HEAD", "/v2/a/blobs/{blob}", "pull"),
    ("DELETE", "/v2/a/blobs/{blob}", "delete"),
    ("POST", "/v2/a/blobs/uploads/", "push"),
    ("POST", "/v2/a/blobs/uploads/?digest={blob}", "push"),
    ("POST", "/v2/b/blobs/uploads/?mount={blob}&from=a", "push"),
    ("GET", "{upload}", "push"),
    ("PATCH", "{upload}", "push"),
    ("PUT", "{upload}&digest={blob}", "push"),
    ("DELETE", "{upload}", "push"),
    ("GET", "/v2/a/referrers/{manifest}", "pull"),
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


ALICE, BOB = basic("alice", "secret-canary"), basic("bob", "hunter2")


@pytest.fixture
def users(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "htpasswd"
    add(path, "alice", "secret-canary", cost=4)
    add(path, "bob", "hunter2", cost=4)
    return {"htpasswd": path}


async def seeded(service: Running, **headers: str) -> dict[str, str]:
    """An image under a:t; fills the routes' holes."""
    api = service.with_headers(**headers)
    image = await api.push_image("a", "t", b"layer")
    upload = await api.begin("a")
    return {"manifest": image.digest, "blob": digest_of(b"layer"), "upload": upload}


@pytest.mark.parametrize("anonymous", ["none", "pull", "push", None])
async def test_every_route_without_credentials(
    create_light: Create, users: dict[str, Any], anonymous: str | None
) -> None:
    service = await create_light(auth={**users, "anonymous": anonymous})
    holes = await seeded(service, authorization=ALICE)
    granted = {"none": set(), None: set(), "pull": {"pull"}, "push": {"pull", "push"}}[anonymous]
    for method, target, action in ROUTES:
        service.store.asked.clear()
        answer = await service.client.ask(method, target.format(**holes))
        if action in granted:
            assert answer.status not in (401, 403), (method, target)
            continue
        assert answer.status == 401, (method, target)
        assert (answer.header("www-authenticate") or "").startswith('Basic realm="')
        assert service.store.asked == []
        if method != "HEAD":
            assert answer.codes == ["UNAUTHORIZED"]


async def test_the_base_challenges_even_where_pulling_is_free(create_light: Create, users: dict[str, Any]) -> None:
    """Docker and podman look for the challenge only here, and send no password later if there was none."""
    service = await create_light(auth={**users, "anonymous": "pull"})
    answer = (await service.client.get("/v2/")).expect(401)
    assert answer.header("docker-distribution-api-version") == "registry/2.0"
    (await service.with_headers(authorization=ALICE).get("/v2/")).expect(200)
    (await service.with_headers(authorization="Basic Og==").get("/v2/")).expect(401)


@pytest.mark.parametrize(
    "text",
    [
        basic("alice", "wrong"),
        basic("nobody", "x"),
        basic("alice", ""),
        "Bearer x",
        "Basic ?",
        "Basic",
        "",
        "Basic AAA=",
    ],
)
async def test_wrong_credentials_are_401_everywhere(create_light: Create, users: dict[str, Any], text: str) -> None:
    service = await create_light(auth=users)
    service.store.asked.clear()
    bad = service.with_headers(authorization=text)
    for target in ("/v2/", "/v2/_catalog", "/v2/a/manifests/t", "/v2/nowhere/tags/list"):
        assert (await bad.get(target)).status in (401, 429), target
    assert service.store.asked == []


async def test_the_answer_does_not_tell_whether_a_repository_exists(
    create_light: Create, users: dict[str, Any]
) -> None:
    service = await create_light(auth=users)
    await seeded(service, authorization=ALICE)
    there, absent = [await service.client.get(f"/v2/{name}/manifests/t") for name in ("a", "nowhere")]
    assert (there.status, there.body) == (absent.status, absent.body)


async def test_an_upload_belongs_to_its_user(create: Create, users: dict[str, Any]) -> None:
    service = await create(auth=users)
    alice, bob = service.with_headers(authorization=ALICE), service.with_headers(authorization=BOB)
    for chunk in (None, 0):
        location = (await alice.patch(await alice.begin("a"), b"x", chunk)).expect(202).location
        for answer in (
            await bob.get(location),
            await bob.patch(location, b"y", 1),
            await bob.finish(location, digest_of(b"x")),
            await bob.delete(location),
        ):
            assert answer.expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]
        (await alice.finish(location, digest_of(b"x"))).expect(201)


WRITES = [route for route in ROUTES if route[2] != "pull"]


async def test_a_read_only_registry_refuses_every_write(create: Create) -> None:
    service = await create()
    holes = await seeded(service)
    before = await service.store.keys()
    other = await create(registry={"read_only": True})
    for method, target, _ in WRITES:
        assert (await other.client.ask(method, target.format(**holes))).expect(405).codes == ["UNSUPPORTED"], target
    for method, target, action in ROUTES:
        if action == "pull":
            (await other.client.ask(method, target.format(**holes))).expect(200)
    assert await service.store.keys() == before


async def test_deletes_that_are_switched_off_are_405_on_every_route(create_light: Create) -> None:
    """CVE-2026-41888 of Distribution forgot tags. Cancelling an upload is no delete."""
    service = await create_light(registry={"delete": False})
    holes = await seeded(service)
    before = await service.store.keys()
    for method, target, action in ROUTES:
        if action == "delete":
            assert (await service.client.ask(method, target.format(**holes))).expect(405).codes == ["UNSUPPORTED"]
    assert await service.store.keys() == before
    (await service.client.delete(holes["upload"])).expect(204)


async def test_every_route_of_the_api_stands_in_the_table() -> None:
    """A new endpoint without a row in ROUTES fails here."""
    from app.api.paths import parse_path
    from app.api.v2 import ENDPOINTS

    holes = {"manifest": digest_of(b""), "blob": digest_of(b""), "upload": "/v2/a/blobs/uploads/id?x=y"}
    rows = set()
    for method, target, action in ROUTES:
        path = parse_path(target.format(**holes).partition("?")[0])
        assert path is not None, target
        rows.add((path.kind, method, action))
    table = {
        (kind, method, endpoint.action.value)
        for kind, methods in ENDPOINTS.items()
        for method, endpoint in methods.items()
    }
    lists = {(kind, "HEAD", "pull") for kind in ("tags", "referrers")}
    assert table - lists <= rows


async def test_a_push_that_looks_like_another_users_gets_no_more(create_light: Create, users: dict[str, Any]) -> None:
    service = await create_light(auth=users)
    alice, bob = service.with_headers(authorization=ALICE), service.with_headers(authorization=BOB)
    image = make_image(b"x")
    for client, data in itertools.product((alice, bob), image.blobs):
        await client.push_blob("a", data)
    (await bob.put_manifest("a", "t", image.data)).expect(201)
    (key,) = await service.store.keys("repositories/a/_tags/")
    assert b'"bob"' in (await service.store.driver.get(key)).data


async def test_no_secret_reaches_the_log_the_metrics_or_an_answer(create_light: Create, users: dict[str, Any]) -> None:
    service = await create_light(auth=users)
    alice: Client = service.with_headers(authorization=ALICE)
    location = (await alice.patch(await alice.begin("a"), b"x", 0)).expect(202).location
    (await alice.finish(location, digest_of(b"wrong"))).expect(400)
    (await alice.get(location)).expect(404)
    image = await alice.push_image("a", "t", b"layer")
    (await alice.put_manifest("a", "i", make_image(b"no").data)).expect(404)
    (await service.with_headers(authorization=basic("alice", "wrong-canary")).get("/v2/")).expect(401)
    (await service.with_headers(authorization="Bearer token-canary").get("/v2/")).expect(401)
    metrics = (await service.client.get("/metrics")).expect(200).body.decode()
    state = location.partition("_state=")[2]
    encoded = ALICE.removeprefix("Basic ")
    for text in (service.log.getvalue(), metrics):
        for secret in ("canary", encoded, state, state.split(".")[2], "_state"):
            assert secret not in text
    assert descriptor(image.data, MANIFEST)["digest"] not in metrics
