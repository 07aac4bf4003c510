"""Fails every single request to the store of a whole push, in every way, and looks at what is visible afterwards."""

from collections.abc import AsyncIterator

import pytest

from app.settings import Settings
from storage import s3_client
from tests.services.app import Running, running
from tests.services.client import Client, digest_of, make_image, noise
from tests.services.faults import BUSY, CUT, LOST, UNTOLD, FaultProxy
from tests.services.minio import MinioServer

pytestmark = pytest.mark.minio

CODED = {400, 404, 416, 503, 507}
MOST = 60
"""More requests than one scenario makes: the sweep ends where the fault was never met."""


@pytest.fixture
async def service(proxy: FaultProxy, minio: MinioServer, bucket: str) -> AsyncIterator[Running]:
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    store = {"driver": "s3", "s3": {"endpoint": proxy.endpoint, "bucket": bucket, **keys}}
    async with running(Settings.model_validate({"storage": store})) as opened:
        yield opened


class Refused(Exception):
    """A step of a push was answered with a coded error."""


async def push(api: Client, repository: str) -> bytes:
    """Docker's stream, containerd's PUT, chunks, a mount, a manifest with a subject and a tag. Returns the manifest."""
    layers = (noise(3000, repository), noise(2000, f"two {repository}"))
    image = make_image(*layers, config=b"{}", subject={"mediaType": "x/y", "digest": digest_of(b"s"), "size": 1})
    location = await step(api, "POST", f"/v2/{repository}/blobs/uploads/", 202)
    location = await step(api, "PATCH", location, 202, layers[0])
    await step(api, "PUT", f"{location}&digest={digest_of(layers[0])}", 201)
    location = await step(api, "POST", f"/v2/{repository}/blobs/uploads/", 202)
    for at in (0, 1000):
        chunk = layers[1][at : at + 1000]
        location = await step(api, "PATCH", location, 202, chunk, {"content-range": f"{at}-{at + 999}"})
    await step(api, "PUT", f"{location}&digest={digest_of(layers[1])}", 201)
    await step(api, "POST", f"/v2/{repository}/blobs/uploads/?mount={digest_of(b'{}')}&from=seed", 201)
    types = {"content-type": image.media_type}
    await step(api, "PUT", f"/v2/{repository}/manifests/t", 201, image.data, types)
    return image.data


async def step(
    api: Client, method: str, target: str, expected: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> str:
    answer = await api.ask(method, target, headers, body)
    if answer.status == expected:
        return answer.location
    # a mount that cannot be is a 202, and then an upload
    assert answer.status in CODED or (answer.status == 202 and "mount=" in target), answer
    assert answer.status != 503 or answer.header("retry-after")
    raise Refused(f"{method} {target}: {answer.status}")


async def check(api: Client, repository: str, data: bytes, *, acknowledged: bool) -> None:
    """A manifest that is visible is whole; one that was acknowledged is visible."""
    by_tag = await api.get(f"/v2/{repository}/manifests/t")
    by_digest = await api.get(f"/v2/{repository}/manifests/{digest_of(data)}")
    assert by_tag.status in (200, 404)
    assert by_digest.status in (200, 404)
    assert by_tag.status == 404 or by_digest.status == 200
    assert not acknowledged or by_tag.status == 200
    listed = (await api.get(f"/v2/{repository}/referrers/{digest_of(b's')}")).expect(200).json()["manifests"]
    assert [entry["digest"] for entry in listed] == ([digest_of(data)] if by_digest.status == 200 else [])
    if by_digest.status == 200:
        assert by_digest.body == data
        for blob in [by_digest.json()["config"], *by_digest.json()["layers"]]:
            got = (await api.get(f"/v2/{repository}/blobs/{blob['digest']}")).expect(200)
            assert digest_of(got.body) == blob["digest"]


async def sweep(service: Running, proxy: FaultProxy, fault: str, name: str) -> list[bool]:
    """Pushes once for each k; says for which the push was acknowledged at once."""
    api, outcomes = service.client, []
    await api.push_blob("seed", b"{}")
    for k in range(1, MOST):
        repository = f"{name}/{k}"
        data = make_data(repository)
        proxy.arm(fault, k)
        try:
            assert await push(api, repository) == data
            acknowledged = True
        except Refused:
            acknowledged = False
        met = proxy.struck.is_set()
        proxy.arm(None)
        await check(api, repository, data, acknowledged=acknowledged)
        if not acknowledged:
            await push(api, repository)
            await check(api, repository, data, acknowledged=True)
        if not met:
            assert acknowledged
            return outcomes
        outcomes.append(acknowledged)
    raise AssertionError("the scenario is longer than the sweep")


def make_data(repository: str) -> bytes:
    layers = (noise(3000, repository), noise(2000, f"two {repository}"))
    subject = {"mediaType": "x/y", "digest": digest_of(b"s"), "size": 1}
    return make_image(*layers, config=b"{}", subject=subject).data


@pytest.mark.parametrize("fault", [BUSY, UNTOLD, CUT])
async def test_one_failed_request_to_the_store_is_not_noticed(service: Running, proxy: FaultProxy, fault: str) -> None:
    """Every operation is safe to repeat, so a passing fault costs a retry and nothing else."""
    outcomes = await sweep(service, proxy, fault, "passing")
    assert len(outcomes) > 20
    assert all(outcomes), [k for k, good in enumerate(outcomes, 1) if not good]


@pytest.mark.parametrize("fault", [BUSY, LOST, UNTOLD, CUT])
async def test_an_operation_that_fails_for_good_leaves_a_push_whole_or_absent(
    service: Running, proxy: FaultProxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the client's own retries each fault reaches the registry, at each step."""
    monkeypatch.setattr(s3_client, "_ATTEMPTS", 1)
    outcomes = await sweep(service, proxy, fault, "lasting")
    assert len(outcomes) > 20
    assert not all(outcomes)
