"""Pins: what they mean, that they are kept fresh, and that nothing evicts them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import storage
from app.cli.fetching import fetch
from app.oci.digests import Digest
from app.oci.errors import (
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RegistryError,
    TagInvalid,
    Unavailable,
)
from app.proxy.eviction import Evictor, Signs
from app.proxy.manifests import writer
from app.proxy.pins import Pin, own_platform
from app.registry import keys
from app.registry.leases import Leases, Other
from storage import NotFound
from storage.memory import MemoryDriver
from tests.proxy.pinning import Here, eventually, named, opened
from tests.services.client import digest_of
from tests.services.front import Fault, Front
from tests.services.minio import free_port
from tests.services.pushing import Pusher

OWN = own_platform()


@pytest.fixture
async def here(tmp_path: Path, front: Front) -> AsyncIterator[Here]:
    async with opened(tmp_path, front.url) as found:
        yield found


NOBODY = [
    {"name": "docker.io", "url": "http://127.0.0.1:9"},
    {"name": "registry.example:5000", "url": "http://127.0.0.1:9"},
]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("grafana/grafana:11", "docker.io/grafana/grafana:11"),
        ("docker.io/alpine:3.20", "docker.io/library/alpine:3.20"),
        ("index.docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20"),
        ("Registry-1.docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20"),
        ("registry.example:5000/team/app:v1", "registry.example:5000/team/app:v1"),
        ("registry.example_5000/team/app:v1", "registry.example:5000/team/app:v1"),
        ("registry.example:5000/app", "registry.example:5000/app:latest"),
        (" up.test/a:V1.*  ", "up.test/a:V1.*"),
        ("up.test/org/*:[0-9]?", "up.test/org/*:[0-9]?"),
        (f"up.test/a:v1@sha256:{'0' * 64}", f"up.test/a@sha256:{'0' * 64}"),
    ],
)
async def test_every_spelling_of_an_image_is_one_pin(tmp_path: Path, text: str, meant: str) -> None:
    async with opened(tmp_path, "http://127.0.0.1:9", *NOBODY, default_upstream="docker.io") as here:
        assert str(here.pins.parse(text)) == meant
        assert str(here.pins.parse(meant)) == meant
        assert (await here.pins.add(text, ["linux/amd64"])).reference == meant
        await here.pins.add(meant, ["linux/arm64"])
        assert await here.pins.all() == [Pin(meant, ("linux/amd64", "linux/arm64"))]
        assert await here.pins.remove(text)
        assert not await here.pins.remove(text)
        assert await here.pins.all() == []
        assert await here.store.keys("upkeep/pins/") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("quay.io/a/b:1", NameUnknown),
        ("localhost/a:1", NameUnknown),
        ("localhost:5000/a:1", NameUnknown),
        ("up.test", NameUnknown),
        ("up.test/A:1", NameInvalid),
        ("up.test/a:-1", TagInvalid),
        ("up.test/a:1 2*", TagInvalid),
        ("up.test/A*:1", NameInvalid),
        ("up.test/a@sha256:12", DigestInvalid),
        (f"up.test/a*@sha256:{'0' * 64}", NameInvalid),
        ("", NameInvalid),
        (":1", NameInvalid),
    ],
)
async def test_what_names_no_image_is_refused(tmp_path: Path, text: str, error: type[RegistryError]) -> None:
    async with opened(tmp_path, "http://127.0.0.1:9", *NOBODY, default_upstream="docker.io") as here:
        with pytest.raises(error):
            await here.pins.add(text, [])
        assert await here.pins.all() == []


async def test_platforms_add_up_and_all_is_all(here: Here) -> None:
    assert (await here.pins.add("up.test/a", [])).platforms == (OWN,)
    assert (await here.pins.add("up.test/a", ["linux/s390x"])).platforms == (OWN, "linux/s390x")
    assert (await here.pins.add("up.test/a", [])).platforms == (OWN, "linux/s390x")
    assert (await here.pins.add("up.test/a", ["all"])).platforms == ("all",)


async def test_a_pattern_of_tags_means_what_the_upstream_lists_without_signatures(
    here: Here, front: Front, pusher: Pusher
) -> None:
    for tag in ("v1.0", "v1.1", "v2.0"):
        image = pusher.image("b/many", tag, [100], seed=tag)
    pusher.image("b/many", f"{image.digest.replace(':', '-')}.sig", [100])
    pin = await here.pins.add("up.test/b/many:v1.*", ["linux/amd64"])
    assert [str(image) for image in await here.pins.images(pin)] == ["up.test/b/many:v1.0", "up.test/b/many:v1.1"]
    everything = await here.pins.add("up.test/b/many:*", ["linux/amd64"])
    assert len(await here.pins.images(everything)) == 3


async def test_a_pattern_whose_fetching_broke_off_is_not_called_complete(
    here: Here, front: Front, pusher: Pusher
) -> None:
    pusher.image("b/part", "v1.0", [100], seed="0")
    pusher.image("b/part", "v1.1", [100], seed="1")
    pin = await here.pins.add("up.test/b/part:v1.*", ["linux/amd64"])
    front.on("/v2/b/part/manifests/v1.1", Fault(status=404))
    assert not await fetch(here.pins, [pin])
    front.down()
    assert await here.troubles(pin) == [("up.test/b/part:v1.0", True), ("up.test/b/part:v1.1", False)]


async def test_while_the_upstream_is_away_a_pattern_means_what_it_meant(
    tmp_path: Path, front: Front, pusher: Pusher
) -> None:
    for tag in ("1", "2"):
        pusher.image("b/kept", tag, [100], seed=tag)
    shelf = MemoryDriver()
    async with opened(tmp_path, front.url, driver=shelf.replica()) as before:
        pin = await before.pins.add("up.test/b/kept:*", ["linux/amd64"])
        assert len(await before.pins.images(pin)) == 2
        await before.bring("b/kept", "1")
    front.down()
    async with opened(tmp_path, front.url, driver=shelf.replica()) as here:
        for ask in (True, False):
            assert len(await here.pins.images(pin, ask=ask)) == 2


async def test_a_pattern_of_repositories_means_those_that_are_cached_and_have_the_tag(
    here: Here, front: Front, pusher: Pusher
) -> None:
    for path in ("c/one", "c/two", "c/three"):
        pusher.image(path, "1", [100], seed=path)
    pusher.image("c/two", "2", [100], seed="other")
    for path in ("c/one", "c/two"):
        await here.bring(path, "1")
    front.on("/v2/c/one/tags/list", Fault(status=404))  # deleted upstream, and cached
    pin = await here.pins.add("up.test/c/*:2", ["linux/amd64"])
    assert [str(image) for image in await here.pins.images(pin)] == ["up.test/c/two:2"]


async def test_pins_are_fetched_without_anybody_asking_and_again_when_they_move(
    tmp_path: Path, front: Front, pusher: Pusher
) -> None:
    first = pusher.image("d/moving", "1", [1000], seed="first")
    async with opened(tmp_path, front.url, alone=False, pin_interval=0.2) as here:
        pin = await here.pins.add("up.test/d/moving:1", ["linux/amd64"])
        await eventually(lambda: _is_whole(here, pin, first.digest))
        second = pusher.image("d/moving", "1", [2000], seed="second")
        signature = pusher.image("d/moving", f"{second.digest.replace(':', '-')}.sig", [100], seed="signature")
        await eventually(lambda: _is_whole(here, pin, second.digest))
        await eventually(lambda: _has(here, "d/moving", signature.digest))


async def _is_whole(here: Here, pin: Pin, digest: str) -> bool:
    (image,) = await here.pins.images(pin, ask=False)
    found = await here.pins.status(image)
    return found is not None and found.complete and found.manifests[0] == digest


async def _has(here: Here, path: str, digest: str) -> bool:
    try:
        await here.repository(path).manifests.stat(Digest(digest))
    except ManifestUnknown:
        return False
    return True


async def test_an_upstream_that_is_away_does_not_end_the_rounds_nor_harm_other_pins(
    tmp_path: Path, front: Front, pusher: Pusher
) -> None:
    image = pusher.image("d/steady", "1", [1000])
    gone = {"name": "gone.test", "url": f"http://127.0.0.1:{free_port()}"}
    front.down()
    async with opened(tmp_path, front.url, gone, alone=False, pin_interval=0.2) as here:
        await here.pins.add("gone.test/a:1", ["linux/amd64"])
        pin = await here.pins.add("up.test/d/steady:1", ["linux/amd64"])
        await eventually(lambda: _reports(here, "gone.test/a:1", pin.reference))
        front.up()
        await eventually(lambda: _is_whole(here, pin, image.digest))


async def _reports(here: Here, *references: str) -> bool:
    lines = [json.loads(line) for line in here.log.getvalue().splitlines()]
    return set(references) <= {line["image"] for line in lines if line["event"] == "pin not fresh"}


async def test_a_store_that_fails_does_not_end_the_rounds(tmp_path: Path, front: Front, pusher: Pusher) -> None:
    image = pusher.image("d/stored", "1", [1000])
    async with opened(tmp_path, front.url, alone=False, pin_interval=0.2) as here:
        pin = await here.pins.add("up.test/d/stored:1", ["linux/amd64"])
        failed = asyncio.Event()

        def refuse(operation: str, key: str) -> None:
            if operation == "list" and key == keys.PINS:
                failed.set()
                raise _away()

        here.store.refuse = refuse
        async with asyncio.timeout(30):
            await failed.wait()
        here.store.refuse = lambda _operation, _key: None
        await eventually(lambda: _is_whole(here, pin, image.digest))


def _away() -> Exception:
    return storage.Unavailable("the store is away")


async def test_a_round_of_another_replica_is_left_to_it(tmp_path: Path, front: Front, pusher: Pusher) -> None:
    image = pusher.image("d/leased", "1", [1000])
    shelf = MemoryDriver()
    other = Leases(shelf.replica(), supported=True)
    lease = await other.take(f"{keys.LEASES}pins", {})
    assert not isinstance(lease, Other)
    async with opened(tmp_path, front.url, driver=shelf.replica(), alone=False, pin_interval=0.05) as here:
        async with lease:
            pin = await here.pins.add("up.test/d/leased:1", ["linux/amd64"])
            here.store.asked.clear()
            await eventually(lambda: _looked(here, 3))
            assert front.requests == []
        await eventually(lambda: _is_whole(here, pin, image.digest))


async def _looked(here: Here, times: int) -> bool:
    return here.store.asked.count(("get", f"{keys.LEASES}pins")) >= times


async def test_a_pin_whose_upstream_left_the_configuration_harms_no_other(
    tmp_path: Path, front: Front, pusher: Pusher
) -> None:
    image = pusher.image("d/left", "1", [1000])
    shelf = MemoryDriver()
    async with opened(tmp_path, front.url, {"name": "a.test", "url": front.url}, driver=shelf.replica()) as before:
        await before.pins.add("a.test/d/left:1", ["linux/amd64"])
    async with opened(tmp_path, front.url, driver=shelf.replica()) as here:
        await here.pins.add("up.test/d/left:1", ["linux/amd64"])
        trouble: dict[str, str | None] = {}
        await here.pins.refresh(trouble.__setitem__)
        assert trouble["up.test/d/left:1"] is None
        assert "no upstream's name" in (trouble["a.test/d/left:1"] or "")
        assert set(await here.pins.digests()) == {(named("d/left"), image.digest)}
        assert await here.pins.remove("a.test/d/left:1")


async def test_pulls_that_are_kept_for_people_are_not_spent_on_pins(here: Here, front: Front, pusher: Pusher) -> None:
    pusher.image("d/dear", "1", [1000])
    await here.pins.add("up.test/d/dear:1", ["linux/amd64"])
    here.upstream.rates.observe({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "3;w=21600"})
    trouble: dict[str, str | None] = {}
    await here.pins.refresh(trouble.__setitem__)
    assert "for people" in (trouble["up.test/d/dear:1"] or "")
    assert front.requests == []


async def test_eviction_leaves_pinned_images_their_platforms_and_signatures(here: Here, pusher: Pusher) -> None:
    index = pusher.index("e/pinned", "1", {"linux/amd64": [200_000], "linux/arm64": [200_000]})
    child = index.images["linux/amd64"]
    by_tag = pusher.image("e/pinned", f"{child.digest.replace(':', '-')}.sig", [300], seed="signature")
    by_reference = pusher.referrer("e/pinned", index, content=b"an SBOM of it")
    loose = pusher.image("e/loose", "1", [500_000])
    pin = await here.pins.add("up.test/e/pinned:1", ["linux/amd64"])
    assert await fetch(here.pins, [pin])
    await here.bring("e/loose", "1")
    await here.bring("e/pinned", "1", ("linux/arm64",))  # somebody else pulls it

    report = await Evictor(
        here.bucket,
        "up.test",
        here.upstream.prefix,
        1,
        pinned=here.pins.digests,
        busy=list,
        reachable=lambda: True,
        evicted=lambda _size: None,
        signs=Signs(writer=writer(here.upstream), recent=-60.0),
    ).run()
    assert report.manifests >= 1
    assert not await _has(here, "e/loose", loose.digest)
    assert await here.troubles(pin) == [("up.test/e/pinned:1", True)]
    for image in (child, by_tag, by_reference):
        assert await _has(here, "e/pinned", image.digest)
        for blob in image.blobs:
            assert await here.repository("e/pinned").blobs.stat(Digest(digest_of(blob)))


async def test_a_pattern_that_means_nothing_yet_lets_eviction_go_on(here: Here) -> None:
    await here.pins.add("up.test/never/seen:*", ["linux/amd64"])
    await here.pins.add("up.test/never/seen:1", ["linux/amd64"])
    assert list(await here.pins.digests()) == []


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b"[]", b'{"reference": "a", "platforms": 5}'])
async def test_a_pin_that_cannot_be_read_stops_eviction_rather_than_be_forgotten(here: Here, body: bytes) -> None:
    await here.store.driver.put(f"{keys.PINS}garbled", body)
    with pytest.raises(Unavailable, match="upkeep/pins/"):
        await here.pins.digests()


async def test_a_pin_that_vanishes_while_they_are_listed_is_no_failure(here: Here) -> None:
    await here.pins.add("up.test/a:1", ["linux/amd64"])
    (key,) = await here.store.keys(keys.PINS)
    await here.pins.add("up.test/b:1", ["linux/amd64"])

    def vanish(operation: str, asked: str) -> None:
        if (operation, asked) == ("get", key):
            raise NotFound(asked)

    here.store.refuse = vanish
    assert [pin.reference for pin in await here.pins.all()] == ["up.test/b:1"]


async def test_an_image_that_fails_takes_no_other_with_it(
    here: Here, front: Front, pusher: Pusher, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's errors open the breaker, behind which the other image waits for its turn."""
    for path in ("f/bad", "f/good", "f/fine"):
        pusher.image(path, "1", [1000, 2000], seed=path)
    front.on("/v2/f/bad/blobs/*", Fault(status=500))
    front.on("/v2/f/good/*", Fault(delay=0.3))
    pins = [await here.pins.add(f"up.test/{path}:1", ["linux/amd64"]) for path in ("f/bad", "f/good", "f/fine")]
    assert not await fetch(here.pins, pins)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "2 of 3 images complete"
    assert [line.split(": ")[1] for line in said.err.splitlines() if line.startswith("edge-registry")] == [
        "up.test/f/bad:1"
    ]
