"""Import over HTTP: who may, how much, and what is answered."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.auth.htpasswd import add
from app.settings import Settings
from tests.api.conftest import Create
from tests.services.app import ClientAbort, InProcess, Running
from tests.services.client import Client, digest_of
from tests.transfer.archives import chunked, layout, picture, tar

IMAGE = picture(b"layer", bytes(200_000))
ARCHIVE = tar(layout((IMAGE, "docker.io/team/app:v1"), last=True))
PATH = "/api/v1/import"
NOT_HERE = "/api/v1/export?image=team/none:v1"
"""Answered with 404 to those who may ask."""


@pytest.fixture
def users(tmp_path: Path) -> dict[str, Any]:
    """The `auth` section with alice, bob and carol, whose passwords are their names."""
    file = tmp_path / "users"
    for name in ("alice", "bob", "carol"):
        add(file, name, name, cost=4)
    return {"htpasswd": file}


def as_user(name: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{name}".encode()).decode()}


async def test_an_archive_is_imported_and_can_be_pulled(create: Create) -> None:
    service = await create()
    answer = (await service.client.ask("POST", PATH, body=gzip.compress(ARCHIVE))).expect(200)
    assert answer.json() == {
        "images": [
            {
                "image": "docker.io/team/app:v1",
                "name": "team/app:v1",
                "digest": IMAGE.digest,
                "bytes": 200_007,
                "new_bytes": 200_007,
                "left_out": 0,
                "trouble": None,
            }
        ]
    }
    assert (await service.client.get("/v2/team/app/manifests/v1")).expect(200).body == IMAGE.data
    for data in IMAGE.blobs:
        found = await service.client.get(f"/v2/team/app/blobs/{digest_of(data)}")
        assert found.expect(200).body == data


async def test_options_stand_in_the_query(light: Running) -> None:
    await light.client.ask("POST", f"{PATH}?name=here/app:v9", body=ARCHIVE)
    assert (await light.client.get("/v2/here/app/manifests/v9")).status == 200
    dry = (await light.client.ask("POST", f"{PATH}?prefix=site&dry_run=true", body=ARCHIVE)).expect(200)
    assert dry.json()["images"][0]["name"] == "site/team/app:v1"
    assert (await light.client.get("/v2/site/team/app/manifests/v1")).status == 404
    (await light.client.ask("POST", f"{PATH}?keep_host=1", body=ARCHIVE)).expect(200)
    assert (await light.client.get("/v2/docker.io/team/app/manifests/v1")).status == 200
    (await light.client.ask("POST", f"{PATH}?dry_run=maybe", body=ARCHIVE)).expect(400)


async def test_what_cannot_be_imported_is_a_400_with_all_that_was(light: Running) -> None:
    bad = picture(b"missing")
    files = [file for file in layout((bad, "team/bad:v1"), (IMAGE, "team/good:v1")) if file[1] != b"missing"]
    answer = (await light.client.ask("POST", PATH, body=tar(files))).expect(400)
    assert answer.codes == ["ARCHIVE_INVALID"]
    assert [image["trouble"] is None for image in answer.json()["images"]] == [False, True]
    assert (await light.client.get("/v2/team/good/manifests/v1")).status == 200
    refused = (await light.client.ask("POST", PATH, body=b"<html>" * 1000)).expect(400)
    assert refused.json()["errors"][0]["message"] == "this is no archive of images, or it is damaged"
    assert [key for key in await light.store.keys("data/") if "bad" in key] == []


async def test_a_body_above_the_limit_is_refused_however_it_says_its_size(create_light: Create) -> None:
    service = await create_light(transfer={"max_bytes": 1 << 20})
    large = tar(layout((picture(bytes(2 << 20)), "team/app:v1")))
    assert (await service.client.ask("POST", PATH, body=large)).expect(413).codes == ["SIZE_INVALID"]
    assert (await service.client.ask("POST", PATH, body=chunked(large))).expect(400).codes == ["ARCHIVE_INVALID"]
    assert (await service.client.ask("POST", PATH, body=gzip.compress(large))).expect(400)
    assert await service.store.keys() == []


async def test_a_client_that_goes_away_leaves_nothing(light: Running) -> None:
    async def broken() -> Any:
        async for chunk in chunked(ARCHIVE[:100_000]):
            yield chunk
        raise ClientAbort

    with pytest.raises(ClientAbort):
        await light.client.ask("POST", PATH, body=broken())
    assert await light.store.keys() == []


async def test_every_user_may_where_there_are_no_rules_and_nobody_else(
    create_light: Create, users: dict[str, Any]
) -> None:
    for anonymous in ("none", "pull", "push"):
        service = await create_light(auth={**users, "anonymous": anonymous})
        answer = (await service.client.ask("POST", PATH, body=ARCHIVE)).expect(401)
        assert answer.header("www-authenticate") == 'Basic realm="Edge Registry"'
        (await service.client.ask("POST", PATH, headers=as_user("alice"), body=ARCHIVE)).expect(200)


async def test_without_users_everybody_on_this_machine_may_and_nobody_from_elsewhere(create_light: Create) -> None:
    service = await create_light(http={"host": "0.0.0.0"}, auth={"anonymous": "push"})
    (await service.client.ask("POST", PATH, body=ARCHIVE)).expect(403)
    service = await create_light(http={"host": "127.0.0.1"}, auth={"anonymous": "push"})
    (await service.client.ask("POST", PATH, body=ARCHIVE)).expect(200)
    service = await create_light(http={"host": "127.0.0.1"}, auth={"anonymous": "pull"})
    (await service.client.ask("POST", PATH, body=ARCHIVE)).expect(403)


async def test_a_rule_says_who_is_admin_of_what(create_light: Create, users: dict[str, Any]) -> None:
    rules = [
        {"users": ["alice"], "repositories": ["team/**"], "actions": ["admin"]},
        {"users": ["bob"], "repositories": ["**"], "actions": ["push", "delete", "catalog"]},
    ]
    service = await create_light(auth={**users, "rules": rules})
    for name in ("bob", "carol"):
        (await service.client.ask("POST", PATH, headers=as_user(name), body=ARCHIVE)).expect(403)
    elsewhere = await service.client.ask("POST", f"{PATH}?prefix=other", headers=as_user("alice"), body=ARCHIVE)
    assert elsewhere.expect(400).json()["images"][0]["trouble"] == "images may not be imported into other/team/app"
    (await service.client.ask("POST", PATH, headers=as_user("alice"), body=ARCHIVE)).expect(200)
    assert (await service.client.ask("GET", "/v2/team/app/manifests/v1", headers=as_user("alice"))).status == 200


async def test_an_archive_gives_nobody_the_blobs_of_repositories_that_they_may_not_pull(
    create_light: Create, users: dict[str, Any]
) -> None:
    rules = [{"users": ["alice"], "repositories": ["team/**"], "actions": ["admin"]}]
    service = await create_light(
        auth={**users, "rules": [*rules, {**rules[0], "users": ["bob"], "repositories": ["**"]}]}
    )
    secret = picture(bytes(range(256)) * 1000)
    body = tar(layout((secret, "private/app:v1")))
    (await service.client.ask("POST", PATH, headers=as_user("bob"), body=body)).expect(200)
    files = [file for file in layout((secret, "team/thief:v1")) if file[1] not in secret.blobs]
    answer = await service.client.ask("POST", PATH, headers=as_user("alice"), body=tar(files))
    assert "neither in the archive nor here" in answer.expect(400).json()["images"][0]["trouble"]


async def test_a_read_only_listener_takes_nothing(create_light: Create) -> None:
    service = await create_light(registry={"read_only": True})
    (await service.client.ask("POST", PATH, body=ARCHIVE)).expect(405)


async def test_pages_of_other_sites_cannot_import(light: Running) -> None:
    headers = {"host": "localhost:5045", "origin": "https://evil.example", "content-type": "text/plain"}
    (await light.client.ask("POST", PATH, headers=headers, body=ARCHIVE)).expect(403)
    (await light.client.ask("POST", PATH, headers={**headers, "origin": "null"}, body=ARCHIVE)).expect(403)
    own = {**headers, "origin": "http://localhost:5045"}
    (await light.client.ask("POST", PATH, headers=own, body=ARCHIVE)).expect(200)


@pytest.mark.parametrize("host", ["evil.example:5045", "evil.example", "127.0.0.1.evil.example", "192.0.2.1", "[", ""])
async def test_a_page_whose_name_was_made_to_mean_this_machine_can_do_nothing(light: Running, host: str) -> None:
    (await light.client.ask("POST", PATH, headers={"host": host, "origin": f"http://{host}"}, body=ARCHIVE)).expect(403)
    (await light.client.ask("GET", "/api/v1/inventory", headers={"host": host})).expect(403)
    assert await light.store.keys() == []


async def test_this_machine_and_the_public_name_may_be_asked_without_users(create_light: Create) -> None:
    service = await create_light(http={"public_url": "http://registry.example:8080"})
    for host in ("localhost:5045", "LOCALHOST", "127.0.0.1:1", "127.1.2.3", "[::1]:5045", "Registry.example:8080"):
        (await service.client.ask("GET", NOT_HERE, headers={"host": host})).expect(404)


async def test_where_users_log_in_any_name_of_the_server_will_do(create_light: Create, users: dict[str, Any]) -> None:
    service = await create_light(auth=users)
    headers = {"host": "anything.example", **as_user("alice")}
    (await service.client.ask("GET", NOT_HERE, headers=headers)).expect(404)


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 404), ("none", 404)]
)
async def test_pages_of_other_sites_cannot_link_to_what_is_here(light: Running, site: str, status: int) -> None:
    headers = {"host": "localhost:5045", "sec-fetch-site": site}
    (await light.client.ask("GET", NOT_HERE, headers=headers)).expect(status)


async def test_an_origin_that_is_no_url_is_another_site(light: Running) -> None:
    headers = {"host": "localhost:5045", "origin": "http://["}
    (await light.client.ask("POST", PATH, headers=headers, body=ARCHIVE)).expect(403)


async def test_a_fourth_archive_at_once_is_told_to_come_again(create_light: Create) -> None:
    listeners = [{"host": "127.0.0.1", "port": port} for port in (5045, 5046)]
    service = await create_light(listeners=listeners)
    other = Client(InProcess(service.app.on(Settings.model_validate({"listeners": listeners}).listening()[1])))
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.release()
        await end.wait()
        yield ARCHIVE

    running = [asyncio.create_task(client.ask("POST", PATH, body=slow())) for client in (service.client, other, other)]
    for _ in running:
        await begun.acquire()
    for client, path in ((service.client, "/api/v1/inventory"), (other, NOT_HERE)):
        assert int((await client.get(path)).expect(503).header("retry-after") or 0) > 0
    (await service.client.get("/v2/")).expect(200)
    end.set()
    assert [(await answer).status for answer in running] == [200, 200, 200]
    (await service.client.get(NOT_HERE)).expect(404)


async def test_other_paths_and_methods_are_refused(light: Running) -> None:
    (await light.client.get("/api/v1/nothing")).expect(404)
    answer = (await light.client.get(PATH)).expect(405)
    assert answer.header("allow") == "POST"


async def test_an_import_is_logged_with_who_did_it(create_light: Create, users: dict[str, Any]) -> None:
    service = await create_light(auth=users)
    await service.client.ask("POST", PATH, headers=as_user("alice"), body=ARCHIVE)
    line = service.events()[-1]
    assert (line["event"], line["user"], line["path"], line["received"]) == ("request", "alice", PATH, len(ARCHIVE))
