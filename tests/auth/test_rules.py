"""Rules as clients meet them: over the API, on a whole service."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.auth.htpasswd import add
from app.settings import Settings
from storage.memory import MemoryDriver
from tests.services.app import Running, running
from tests.services.client import Client, digest_of, noise

RULES = [
    {"users": ["alice"], "repositories": ["**"], "actions": ["pull", "push", "delete", "catalog"]},
    {"users": ["bob"], "repositories": ["team/**"], "actions": ["push", "catalog"]},
    {"users": ["anonymous"], "repositories": ["public/*"], "actions": ["pull"]},
]
LAYER = noise(200_000)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    path = tmp_path / "htpasswd"
    for name in ("alice", "bob", "carol"):
        add(path, name, name, cost=4)
    settings = Settings.model_validate({"storage": {"driver": "memory"}, "auth": {"htpasswd": path, "rules": RULES}})
    async with running(settings, MemoryDriver()) as service:
        for name in ("public/a", "secret/a", "team/a"):
            await user(service, "alice").push_image(name, "t", LAYER)
        yield service


def user(service: Running, name: str) -> Client:
    return service.with_headers(authorization="Basic " + base64.b64encode(f"{name}:{name}".encode()).decode())


async def test_each_user_reaches_what_a_rule_names(service: Running) -> None:
    expected = {
        "alice": {"public/a": 200, "secret/a": 200, "team/a": 200},
        "bob": {"public/a": 200, "secret/a": 403, "team/a": 200},
        "carol": {"public/a": 200, "secret/a": 403, "team/a": 403},
    }
    for name, answers in expected.items():
        api = user(service, name)
        found = {repository: (await api.get(f"/v2/{repository}/manifests/t")).status for repository in answers}
        assert found == answers, name
    for repository, status in {"public/a": 200, "secret/a": 401, "team/a": 401}.items():
        assert (await service.client.get(f"/v2/{repository}/manifests/t")).status == status, repository


async def test_a_whole_push_needs_only_the_right_to_push(service: Running) -> None:
    bob = user(service, "bob")
    await bob.push_image("team/b", "t", b"layer")
    (await bob.head(f"/v2/team/b/blobs/{digest_of(b'layer')}")).expect(200)
    (await bob.delete("/v2/team/b/manifests/t")).expect(403)
    (await bob.ask("POST", "/v2/public/a/blobs/uploads/")).expect(403)


async def test_a_refusal_does_not_tell_whether_the_repository_exists(service: Running) -> None:
    bob = user(service, "bob")
    for client in (bob, service.client):
        there, absent = [await client.get(f"/v2/secret/{name}/manifests/t") for name in ("a", "b")]
        assert there.status == absent.status
        assert there.body.replace(b"secret/a", b"secret/b") == absent.body


@pytest.mark.parametrize("origin", ["&from=secret/a", ""], ids=["named", "sought"])
async def test_nothing_is_mounted_out_of_a_repository_that_the_caller_may_not_pull(
    service: Running, origin: str
) -> None:
    secret = noise(150_000, "secret")
    await user(service, "alice").push_blob("secret/a", secret)
    bob = user(service, "bob")
    (await bob.ask("POST", f"/v2/team/b/blobs/uploads/?mount={digest_of(secret)}{origin}")).expect(202)
    (await bob.head(f"/v2/team/b/blobs/{digest_of(secret)}")).expect(404)
    (await bob.ask("POST", f"/v2/team/b/blobs/uploads/?mount={digest_of(LAYER)}&from=team/a")).expect(201)


async def test_the_catalog_lists_what_the_caller_may_pull(service: Running) -> None:
    async def listed(api: Client, query: str = "") -> list[str]:
        found: list[str] = (await api.get(f"/v2/_catalog{query}")).expect(200).json()["repositories"]
        return found

    assert await listed(user(service, "alice")) == ["public/a", "secret/a", "team/a"]
    assert await listed(user(service, "bob")) == ["public/a", "team/a"]
    assert await listed(user(service, "bob"), "?n=1&last=public/a") == ["team/a"]
    (await user(service, "carol").get("/v2/_catalog")).expect(403)
    (await service.client.get("/v2/_catalog")).expect(401)
