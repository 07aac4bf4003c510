from collections.abc import Callable

import pytest

from storage import AccessDenied, Corrupt, OutcomeUnknown, StorageError, StoreFull, Unavailable
from tests.api.conftest import Create
from tests.services.app import Running
from tests.services.client import Answer, Client, digest_of, make_image

FAILURES = [
    (StoreFull("full"), 507),
    (Unavailable("gone"), 503),
    (OutcomeUnknown("lost"), 503),
    (AccessDenied("no"), 503),
    (Corrupt("short"), 503),
    (StorageError("other"), 503),
]


def failing(error: StorageError) -> Callable[[str, str], None]:
    def refuse(_operation: str, _key: str) -> None:
        raise error

    return refuse


@pytest.mark.parametrize(("error", "status"), FAILURES, ids=lambda value: type(value).__name__)
async def test_a_store_that_fails_is_a_coded_answer_on_every_endpoint(
    light: Running, error: StorageError, status: int
) -> None:
    api = light.client
    image = await api.push_image("a", "t", b"layer")
    started = (await api.patch(await api.begin("a"), b"x", 0)).expect(202).location
    fresh = await api.begin("a")
    blob, manifest = digest_of(b"layer"), f"/v2/a/manifests/{image.digest}"
    light.store.refuse = failing(error)
    answers = [
        await api.get(f"/v2/a/blobs/{blob}"),
        await api.delete(f"/v2/a/blobs/{blob}"),
        await api.get("/v2/a/manifests/t"),
        await api.get(manifest),
        await api.put_manifest("a", "t", image.data),
        await api.delete("/v2/a/manifests/t"),
        await api.delete(manifest),
        await api.get("/v2/a/tags/list"),
        await api.get(f"/v2/a/referrers/{blob}"),
        await api.get("/v2/_catalog"),
        await api.get(started),
        await api.patch(started, b"y", 1),
        await api.finish(started, digest_of(b"x")),
        await api.patch(fresh, b"x"),
        await api.finish(fresh, digest_of(b"x"), b"x"),
        await api.ask("POST", f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}", body=b"x"),
        await api.ask("POST", f"/v2/b/blobs/uploads/?mount={blob}&from=a"),
        await api.delete(started),
    ]
    assert [answer.status for answer in answers] == [status] * len(answers)
    for answer in answers:
        assert answer.codes == ["UNAVAILABLE"]
        assert status != 503 or int(answer.header("retry-after") or 0) > 0
        assert "Traceback" not in answer.body.decode()
    (await api.get("/v2/")).expect(200)
    light.store.refuse = lambda _operation, _key: None
    assert (await api.get("/v2/a/manifests/t")).expect(200).body == image.data


@pytest.mark.parametrize("step", range(14))
async def test_a_manifest_push_that_fails_at_any_step_is_whole_or_absent(create: Create, step: int) -> None:
    """The k-th request to the store fails and is not applied; a retry succeeds."""
    service = await create()
    api, image = service.client, make_image(b"layer", subject={"mediaType": "x/y", "digest": digest_of(b""), "size": 0})
    for data in image.blobs:
        await api.push_blob("a", data)
    asked = 0

    def refuse(_operation: str, _key: str) -> None:
        nonlocal asked
        asked += 1
        if asked == step + 1:
            raise Unavailable("once")

    service.store.refuse = refuse
    answer = await api.put_manifest("a", "t", image.data)
    service.store.refuse = lambda _operation, _key: None
    assert answer.status in (201, 503)
    by_digest, by_tag = await api.get(f"/v2/a/manifests/{image.digest}"), await api.get("/v2/a/manifests/t")
    assert by_tag.status != 200 or by_digest.status == 200
    assert answer.status == 503 or by_tag.status == 200
    listed = (await api.get(f"/v2/a/referrers/{digest_of(b'')}")).expect(200).json()["manifests"]
    assert len(listed) == (by_digest.status == 200)
    (await api.put_manifest("a", "t", image.data)).expect(201)
    await whole(api, "a", "t", image.data)


async def whole(api: Client, repository: str, tag: str, data: bytes) -> None:
    got = (await api.get(f"/v2/{repository}/manifests/{tag}")).expect(200)
    assert got.body == data


async def test_a_program_error_is_a_500_without_its_text(light: Running) -> None:
    def refuse(_operation: str, _key: str) -> None:
        raise RuntimeError("the canary sings")

    light.store.refuse = refuse
    answer: Answer = (await light.client.get("/v2/_catalog")).expect(500)
    assert answer.codes == ["UNKNOWN"]
    assert "canary" not in answer.body.decode()
    assert any(event["event"] == "failed" for event in light.events())


async def test_readiness_follows_the_store(light: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.health._REMEMBERED", 0.0)
    (await light.client.get("/readyz")).expect(200)

    async def ready() -> None:
        raise Unavailable("the store is gone")

    healthy = light.store.driver.ready

    monkeypatch.setattr(light.store.driver, "ready", ready)
    assert (await Plain(light).status("/readyz")) == 503
    assert (await Plain(light).status("/livez")) == 200
    monkeypatch.setattr(light.store.driver, "ready", healthy)
    assert (await Plain(light).status("/readyz")) == 200


class Plain:
    """Asks what lies outside /v2, whose errors are plain text."""

    def __init__(self, service: Running) -> None:
        self._transport = service.client._transport

    async def status(self, target: str) -> int:
        return (await self._transport.request("GET", target, {}, None)).status
