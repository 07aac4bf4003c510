"""A registry behind an air gap: what is here of upstreams is served under their names, and nobody is ever dialled."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.errors import StartError
from app.main import open_driver, open_pins
from app.settings import Settings
from storage.memory import MemoryDriver
from tests.services.app import Running, running
from tests.services.client import MANIFEST, descriptor
from tests.transfer.archives import Target, layout, picture, several, tar

NOWHERE: Final = "http://127.0.0.1:1"
UPSTREAMS: Final = [
    {"name": "docker.io", "url": "https://registry-1.docker.io", "tag_ttl": 0, "stale": {"on": [], "max_age": 1}},
    {"name": "quay.io", "url": NOWHERE, "credentials": {"helper": "none-such"}},
]


class Dialled:
    """Every address that this process connects to, or looks up, while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, Any]] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"):
            self.seen.append((event, arguments))


_DIALLED: Final = Dialled()
sys.addaudithook(_DIALLED)


@pytest.fixture
def dialled() -> Iterator[list[tuple[str, Any]]]:
    """What was dialled during the test; anything fails it."""
    _DIALLED.seen.clear()
    _DIALLED.on = True
    yield _DIALLED.seen
    _DIALLED.on = False
    assert _DIALLED.seen == []


def sections(**proxy: Any) -> dict[str, Any]:
    return {
        "storage": {"driver": "memory"},
        "proxy": {"upstreams": UPSTREAMS, "default_upstream": "docker.io", "air_gapped": True, **proxy},
    }


IMAGE, OTHER = picture(b"layer", bytes(200_000)), picture(b"other")
SIGNATURE = picture(b"signed", subject=descriptor(IMAGE.data, MANIFEST))


@pytest.fixture
async def sealed(tmp_path: Path, dialled: object) -> AsyncIterator[Running]:
    """A registry that holds images of two upstreams, of a third registry that is none, and one of its own."""
    store = MemoryDriver()
    target = Target(tmp_path, upstreams=["docker.io", "quay.io"], driver=store)
    names = ("alpine:3", "quay.io/org/app:v1", "gcr.io/org/tool:v1", "localhost/own/app:v1")
    await target.bring(layout(*[(IMAGE, name) for name in names]))
    await target.bring(layout((SIGNATURE, "quay.io/org/app@" + SIGNATURE.digest)))
    async with running(Settings.model_validate(sections()), store.replica()) as service:
        yield service


@pytest.mark.parametrize(
    "target",
    [
        "library/alpine/manifests/{}?ns=docker.io",
        "docker.io/library/alpine/manifests/{}",
        "docker.io/alpine/manifests/{}",
        "library/alpine/manifests/{}",
        "alpine/manifests/{}?ns=index.docker.io",
    ],
)
async def test_an_imported_image_is_pulled_by_every_name_that_it_has(sealed: Running, target: str) -> None:
    for reference in ("3", IMAGE.digest):
        answer = (await sealed.client.get(f"/v2/{target.format(reference)}")).expect(200)
        assert answer.body == IMAGE.data
        assert answer.header("warning") is None
        assert (await sealed.client.head(f"/v2/{target.format(reference)}")).status == 200


async def test_tags_referrers_and_blobs_are_those_that_are_here(sealed: Running) -> None:
    assert (await sealed.client.get("/v2/org/app/tags/list?ns=quay.io")).expect(200).json()["tags"] == ["v1"]
    found = (await sealed.client.get(f"/v2/quay.io/org/app/referrers/{IMAGE.digest}")).expect(200).json()
    assert [item["digest"] for item in found["manifests"]] == [SIGNATURE.digest]
    layer = IMAGE.data.split(b'"digest"')[-1].split(b'"')[1].decode()
    assert (await sealed.client.get(f"/v2/org/app/blobs/{layer}?ns=quay.io")).expect(200).body == bytes(200_000)
    assert (await sealed.client.get("/v2/own/app/manifests/v1")).expect(200).body == IMAGE.data


async def test_a_registry_that_is_no_upstream_is_served_under_plain_names(sealed: Running) -> None:
    assert (await sealed.client.get("/v2/org/tool/manifests/v1?ns=gcr.io")).expect(200).body == IMAGE.data
    assert (await sealed.client.get("/v2/org/tool/manifests/v1")).expect(200).body == IMAGE.data


async def test_what_is_not_here_is_a_404_at_once(sealed: Running) -> None:
    for path in (
        "library/none/manifests/1?ns=docker.io",
        "quay.io/org/app/manifests/v2",
        f"quay.io/org/app/manifests/{OTHER.digest}",
        f"quay.io/org/app/blobs/{OTHER.digest}",
        "quay.io/org/none/tags/list",
        "plain/manifests/v1",
    ):
        (await sealed.client.get(f"/v2/{path}")).expect(404)


async def test_an_image_that_comes_later_is_there_at_once(sealed: Running, tmp_path: Path) -> None:
    (await sealed.client.get("/v2/library/late/manifests/1?ns=docker.io")).expect(404)
    store = sealed.store.driver.replica()  # type: ignore[attr-defined]
    await Target(tmp_path, upstreams=["docker.io"], driver=store).bring(layout((OTHER, "late:1")))
    assert (await sealed.client.get("/v2/library/late/manifests/1?ns=docker.io")).expect(200).body == OTHER.data


async def test_nothing_is_pushed_into_an_upstreams_names(sealed: Running) -> None:
    (await sealed.client.ask("POST", "/v2/docker.io/library/alpine/blobs/uploads/")).expect(405)
    (await sealed.client.put_manifest("quay.io/org/app", "v9", IMAGE.data)).expect(405)
    pushed = await sealed.client.push_image("library/alpine", "mine", b"own layer")
    assert (await sealed.client.get("/v2/library/alpine/manifests/mine")).expect(200).body == pushed.data


async def test_an_index_of_which_one_image_is_here_serves_that_one(tmp_path: Path, dialled: object) -> None:
    store = MemoryDriver()
    one, two = picture(b"amd"), picture(b"arm")
    files = several(("amd64", one), ("arm64", two), here=["arm64"])
    await Target(tmp_path, upstreams=["docker.io"], driver=store).bring(files)
    async with running(Settings.model_validate(sections()), store.replica()) as service:
        assert (await service.client.get("/v2/team/many/manifests/v1?ns=docker.io")).expect(200).body == files[2][1]
        assert (await service.client.get(f"/v2/docker.io/team/many/manifests/{two.digest}")).status == 200
        (await service.client.get(f"/v2/docker.io/team/many/manifests/{one.digest}")).expect(404)


async def test_the_server_imports_into_the_names_of_its_upstreams(dialled: object) -> None:
    async with running(Settings.model_validate(sections())) as service:
        body = tar(layout((IMAGE, "alpine:3")))
        (await service.client.ask("POST", "/api/v1/import", body=body)).expect(200)
        assert (await service.client.get("/v2/library/alpine/manifests/3?ns=docker.io")).expect(200).body == IMAGE.data


async def test_without_the_air_gap_the_same_requests_are_heard(dialled: list[tuple[str, Any]]) -> None:
    open_gap = sections(air_gapped=False, upstreams=[{"name": "docker.io", "url": NOWHERE}])
    async with running(Settings.model_validate(open_gap)) as service:
        (await service.client.get("/v2/team/app/manifests/v1?ns=docker.io")).expect(503)
    assert dialled != []
    dialled.clear()


async def test_pins_are_refused_because_they_would_have_to_be_fetched() -> None:
    with pytest.raises(StartError, match=r"proxy\.air_gapped is set"):
        async with open_pins(Settings.model_validate({**sections(), "storage": {"driver": "filesystem"}})):
            pass


def test_keys_of_the_store_must_not_be_asked_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store = {"driver": "s3", "s3": {"endpoint": NOWHERE}}
    with pytest.raises(StartError, match=r"storage\.s3\.access_key"):
        open_driver(Settings.model_validate({**sections(), "storage": store}))
    store["s3"] = {"endpoint": NOWHERE, "access_key": "a", "secret_key": "b"}
    open_driver(Settings.model_validate({**sections(), "storage": store}))
