"""Exports over HTTP: archives with a length, for those with the admin right, and never a whole one with a wrong byte."""

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from app.api.exchange import CLIENT, Receive, Scope, Send
from app.auth.htpasswd import add
from storage import Object
from tests.api.conftest import Create
from tests.api.test_access import basic
from tests.services.app import CutOff, InProcess, Running
from tests.services.client import Answer, Client, digest_of

IMAGES = "/api/v1/export?image=team/app:v1"


@pytest.fixture
async def service(create_light: Create) -> Running:
    """A service of this machine alone, without users: everybody is its admin."""
    return await create_light()


def files(answer: Answer) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if member.isreg()}
        return {name: file.read() for name, file in found.items() if file}


def names(answer: Answer) -> list[str]:
    entries = json.loads(files(answer)["index.json"])["manifests"]
    return [entry["annotations"]["io.containerd.image.name"] for entry in entries]


async def test_an_archive_is_downloaded_with_its_length(service: Running) -> None:
    image = await service.client.push_image("team/app", "v1", b"base")
    answer = (await service.client.get(IMAGES)).expect(200)
    assert answer.header("content-type") == "application/x-tar"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("content-disposition") == 'attachment; filename="images.tar"'
    found = files(answer)
    assert found[f"blobs/{image.digest.replace(':', '/')}"] == image.data
    assert names(answer) == ["docker.io/team/app:v1"]


async def test_the_options_of_the_command_stand_in_the_query(service: Running) -> None:
    await service.client.push_image("team/app", "v1", b"base")
    await service.client.push_image("team/other", "v1", b"base")
    several = await service.client.get(f"{IMAGES}&image=team/o*:v1&format=oci&host=registry.local")
    assert names(several.expect(200)) == ["registry.local/team/app:v1", "registry.local/team/other:v1"]
    assert "manifest.json" not in files(several)
    (await service.client.get(f"{IMAGES}&format=zip")).expect(400)
    (await service.client.get(f"{IMAGES}&format=oci-dir")).expect(400)
    (await service.client.get(f"{IMAGES}&referrers=maybe")).expect(400)
    (await service.client.get("/api/v1/export")).expect(400)


async def test_what_is_not_here_is_named(service: Running) -> None:
    answer = (await service.client.get(f"{IMAGES}&image=team/none:v2")).expect(404)
    assert "team/app:v1: it is not here\nteam/none:v2: it is not here" in answer.json()["errors"][0]["message"]


async def test_an_inventory_in_the_body_makes_a_delta(service: Running) -> None:
    image = await service.client.push_image("team/app", "v1", b"base", b"more")
    base, more = (f"blobs/{digest_of(layer).replace(':', '/')}" for layer in (b"base", b"more"))
    have = f"# edge-registry inventory 1\n{digest_of(b'base')}\n".encode()
    found = files((await service.client.ask("POST", IMAGES, body=have)).expect(200))
    assert base not in found
    assert {more, f"blobs/{image.digest.replace(':', '/')}"} <= found.keys()
    (await service.client.ask("POST", IMAGES, body=b"no inventory")).expect(400)


async def test_an_inventory_above_the_limit_is_refused(service: Running) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"# edge-registry inventory 1\n"
        while True:
            yield f"{digest_of(b'base')}\n".encode() * 10_000

    (await service.client.ask("POST", IMAGES, body=endless())).expect(413)


async def test_more_than_a_thousand_images_at_once_are_refused(service: Running) -> None:
    image = await service.client.push_image("team/app", None, b"base")
    for start in range(0, 1001, 143):
        query = "&".join(f"tag=v{number}" for number in range(start, start + 143))
        (await service.client.put_manifest("team/app", f"{image.digest}?{query}", image.data)).expect(201)
    answer = (await service.client.get("/api/v1/export?image=team/app:*")).expect(400)
    assert "at most 1000 images" in answer.json()["errors"][0]["message"]
    (await service.client.get("/api/v1/export?image=team/app:v??")).expect(200)


async def test_an_export_ends_when_nobody_waits_for_it_any_more(service: Running) -> None:
    await service.client.push_image("team/app", "v1", b"base")
    begun, ended, left = asyncio.Event(), asyncio.Event(), False

    async def never(_key: str) -> Object:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {CLIENT: {"gone": lambda: left}}
        await service.app(scope, receive, send)

    with patch.object(service.store.driver, "get", never):
        asking = asyncio.create_task(Client(InProcess(application)).get(IMAGES))
        await begun.wait()
        assert not ended.is_set()
        left = True
        async with asyncio.timeout(10):
            await ended.wait()
            await asyncio.gather(asking, return_exceptions=True)
    assert service.events()[-1]["error"] == "the client went away"


async def test_a_blob_that_has_decayed_cuts_the_download(service: Running) -> None:
    await service.client.push_image("team/app", "v1", b"base", b"last")
    data = [key for key in await service.store.keys("data/") if (await service.store.driver.get(key)).data == b"last"]
    await service.store.driver.put(data[0], b"lost")
    with pytest.raises(CutOff) as caught:
        await service.client.get(IMAGES)
    announced = caught.value.answer.header("content-length")
    assert len(caught.value.answer.body) < int(announced or 0)


@pytest.fixture
def users(tmp_path: Path) -> dict[str, Any]:
    """Root administers everything, alice her team, bob nothing."""
    for user in ("root", "alice", "bob"):
        add(tmp_path / "htpasswd", user, f"{user}-secret", cost=4)
    everything = ["pull", "push", "delete", "catalog"]
    rules = [
        {"users": ["root"], "repositories": ["**"], "actions": [*everything, "admin"]},
        {"users": ["alice"], "repositories": ["team/**"], "actions": ["push", "admin"]},
        {"users": ["bob"], "repositories": ["**"], "actions": everything},
    ]
    return {"htpasswd": tmp_path / "htpasswd", "rules": rules, "anonymous": "pull"}


async def test_images_are_exported_by_those_alone_who_administer_them(
    create_light: Create, users: dict[str, Any]
) -> None:
    service = await create_light(auth=users)
    root, alice, bob = (
        service.with_headers(authorization=basic(user, f"{user}-secret")) for user in ("root", "alice", "bob")
    )
    await root.push_image("team/app", "v1", b"base")
    await root.push_image("secret/app", "v1", b"secret")
    seen = ["docker.io/secret/app:v1", "docker.io/team/app:v1"]
    assert names((await root.get("/api/v1/export?image=*:*")).expect(200)) == seen
    assert names((await alice.get("/api/v1/export?image=*:*")).expect(200)) == seen[1:]
    hidden = (await alice.get("/api/v1/export?image=secret/app:v1")).expect(404)
    missing = (await alice.get("/api/v1/export?image=secret/none:v1")).expect(404)
    assert hidden.json()["errors"][0]["message"] == missing.json()["errors"][0]["message"].replace("none", "app")
    for path in (IMAGES, "/api/v1/inventory"):
        (await bob.get(path)).expect(403)
        (await service.client.get(path)).expect(401)
