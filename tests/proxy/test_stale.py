"""What is answered when an upstream does not: known tags with a warning, by policy, and clear errors for the rest."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app.proxy import manifests
from storage.memory import MemoryDriver
from tests.proxy.pulling import UP, impatient, pulling, section, stored, upstream_of
from tests.services.app import Running
from tests.services.client import Answer, Image, digest_of
from tests.services.front import Front, portal, refusal
from tests.services.pushing import Index
from tests.services.upstreams import Distribution

TAGGED = f"/v2/{UP}/team/app/manifests/1"
UNKNOWN = f"/v2/{UP}/team/app/manifests/unknown"


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [100, 200])


@pytest.fixture(scope="module")
def index(upstream: Distribution) -> Index:
    return upstream.pusher.index("team/many", "1", {"linux/amd64": [100], "linux/arm64": [200]})


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


Break = Callable[[Front], object]
OUTAGES: dict[str, Break] = {
    "refused": lambda front: front.down("refused"),
    "black hole": lambda front: front.down("blackhole"),
    "500": lambda front: front.on("*", refusal(500)),
    "503": lambda front: front.on("*", refusal(503, retry_after=7)),
    "429": lambda front: front.on("*", refusal(429, retry_after=77)),
    "429 without a time": lambda front: front.on("*", refusal(429)),
    "portal": lambda front: front.on("*", portal()),
}
DENIALS: dict[str, Break] = {
    "401": lambda front: front.on("*", refusal(401)),
    "403": lambda front: front.on("*", refusal(403)),
}


def check_stale(answer: Answer, data: bytes) -> None:
    assert answer.expect(200).body == data
    assert re.fullmatch(rf'299 - "{UP}[^"]*checked \d+ s ago"', answer.header("warning") or ""), answer.headers
    assert int(answer.header("age") or "-1") >= 0


def check_later(answer: Answer) -> None:
    assert answer.expect(503).codes == ["UNAVAILABLE"]
    assert answer.json()["errors"][0]["message"].startswith(UP)
    assert 1 <= int(answer.header("retry-after") or "0") <= 3600
    assert answer.header("age") is None


@pytest.mark.parametrize("outage", list(OUTAGES))
async def test_in_an_outage_known_tags_are_served_with_a_warning_and_others_later(
    front: Front, image: Image, tmp_path: Path, outage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_CHECK", 1.0)
    async with pulling(tmp_path, section(front.url, connect_timeout=0.3)) as service:
        (await service.client.get(TAGGED)).expect(200)
        OUTAGES[outage](front)
        for _ in range(3):  # before and after the breaker opens
            check_stale(await service.client.get(TAGGED), image.data)
            check_later(await service.client.get(UNKNOWN))
        assert (await service.client.head(TAGGED)).expect(200).header("docker-content-digest") == image.digest
        exact = (await service.client.get(f"/v2/{UP}/team/app/manifests/{image.digest}")).expect(200)
        assert exact.header("warning") is None


@pytest.mark.parametrize("denial", list(DENIALS))
async def test_a_denial_is_403_for_known_tags_too(front: Front, image: Image, tmp_path: Path, denial: str) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED)).expect(200)
        DENIALS[denial](front)
        for path in (TAGGED, UNKNOWN):
            refused = (await service.client.get(path)).expect(403)
            assert refused.codes == ["DENIED"]
            assert refused.header("www-authenticate") is None
            assert refused.header("age") is None


@pytest.mark.parametrize("failure", ["refused", "500", "429", "portal", "401", "404"])
async def test_the_policy_says_in_which_failures_a_tag_is_served_stale(
    front: Front, image: Image, tmp_path: Path, failure: str
) -> None:
    kinds = {
        "refused": ("network", 503),
        "500": ("server_error", 503),
        "429": ("rate_limited", 503),
        "portal": ("captive_portal", 503),
        "401": ("denied", 403),
        "404": ("missing", 404),
    }
    kind, status = kinds[failure]
    others = [other for other, _ in kinds.values() if other != kind]
    breaks: dict[str, Break] = {**OUTAGES, **DENIALS, "404": lambda front: front.on("*", refusal(404))}
    for on, expected in ((others, status), ([kind], 200)):
        async with pulling(tmp_path, section(front.url, stale={"on": on})) as service:
            (await service.client.get(TAGGED)).expect(200)
            breaks[failure](front)
            assert (await service.client.get(TAGGED)).status == expected
        front.clear()
        front.up()


async def test_a_tag_is_not_served_stale_for_ever_where_the_policy_names_an_end(
    front: Front, image: Image, tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url, stale={"max_age": 0, "missing_for": 0})) as service:
        (await service.client.get(TAGGED)).expect(200)
        await asyncio.sleep(0.01)  # let it be older than nothing
        gone = front.on("*", refusal(404))
        (await service.client.get(TAGGED)).expect(404)
        front.off(gone)
        upstream_of(service).misses.forget((f"{UP}/team/app", "1"))
        front.on("*", refusal(500))
        check_later(await service.client.get(TAGGED))


async def test_a_tag_deleted_upstream_is_served_for_a_while_and_asked_for_seldom(
    front: Front, image: Image, tmp_path: Path
) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED)).expect(200)
        gone = front.on("*", refusal(404))
        for _ in range(3):
            check_stale(await service.client.get(TAGGED), image.data)
        assert gone.taken == 1
        front.off(gone)
        pass_minute(service)
        assert (await service.client.get(TAGGED)).expect(200).header("warning") is None


async def test_a_black_hole_costs_seconds_once_and_then_nothing(
    front: Front, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manifests._CHECK <= 5
    monkeypatch.setattr(manifests, "_CHECK", 1.0)
    async with pulling(tmp_path, section(front.url, connect_timeout=1)) as service:
        (await service.client.get(TAGGED)).expect(200)
        front.down("blackhole")
        began = time.monotonic()
        check_stale(await service.client.get(TAGGED), image.data)  # over a connection that was open
        assert time.monotonic() - began < 4
        began = time.monotonic()
        check_stale(await service.client.get(TAGGED), image.data)
        assert time.monotonic() - began < 0.5
        check_later(await service.client.get(UNKNOWN))  # over a new one
        assert upstream_of(service).breaker.state == "open"
        checks: tuple[Callable[[], Awaitable[Answer]], ...] = (
            lambda: service.client.get(UNKNOWN),
            lambda: service.client.get(f"/v2/{UP}/team/app/manifests/{digest_of(b'never')}"),
            lambda: service.client.get(f"/v2/{UP}/team/app/blobs/{digest_of(b'never')}"),
            lambda: service.client.head(f"/v2/{UP}/never/heard/of/blobs/{digest_of(b'never')}"),
        )
        for check in checks:
            began = time.monotonic()
            assert (await check()).status == 503
            assert time.monotonic() - began < 0.5
        began = time.monotonic()
        check_stale(await service.client.get(TAGGED), image.data)
        assert time.monotonic() - began < 0.5


async def test_an_upstream_that_says_nothing_does_not_keep_a_known_tag(
    front: Front, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_CHECK", 0.2)
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED)).expect(200)
        front.down("silent")
        began = time.monotonic()
        check_stale(await service.client.get(TAGGED), image.data)
        assert time.monotonic() - began < 8  # the upstream itself is given up after 15 s


async def test_when_the_uplink_is_back_tags_are_fresh_again(
    upstream: Distribution, front: Front, tmp_path: Path
) -> None:
    old = upstream.pusher.image("back", "1", [10], seed="old")
    path = f"/v2/{UP}/back/manifests/1"
    async with pulling(tmp_path, section(front.url)) as service:
        breaker = impatient(service).breaker
        (await service.client.get(path)).expect(200)
        front.down()
        for _ in range(2):
            check_stale(await service.client.get(path), old.data)
        assert breaker.state != "closed"
        new = upstream.pusher.image("back", "1", [10], seed="new")
        front.up()
        async with asyncio.timeout(20):
            await breaker._closed.wait()
        fresh = (await service.client.get(path)).expect(200)
        assert fresh.body == new.data
        assert fresh.header("warning") is None


async def test_a_server_starts_and_serves_what_it_has_without_an_uplink(
    front: Front, image: Image, tmp_path: Path
) -> None:
    memory = MemoryDriver()
    layer = digest_of(image.blobs[1])
    async with pulling(tmp_path, section(front.url), driver=memory.replica()) as service:
        (await service.client.get(TAGGED)).expect(200)
        (await service.client.get(f"/v2/{UP}/team/app/blobs/{layer}")).expect(200)
        await stored(service, f"{UP}/team/app", layer)
    front.down()
    async with pulling(tmp_path, section(front.url), driver=memory.replica()) as service:
        check_stale(await service.client.get(TAGGED), image.data)
        assert (await service.client.get(f"/v2/{UP}/team/app/blobs/{layer}")).expect(200).body == image.blobs[1]
        tags = (await service.client.get(f"/v2/{UP}/team/app/tags/list")).expect(200)
        assert tags.json()["tags"] == ["1"]
        assert tags.header("warning") is not None


async def test_a_definite_no_is_not_asked_for_twice_until_it_is_old(
    upstream: Distribution, front: Front, image: Image, tmp_path: Path
) -> None:
    digest = digest_of(b"never")
    async with pulling(tmp_path, section(front.url)) as service:
        for what, code in (
            ("manifests/later", "MANIFEST_UNKNOWN"),
            (f"manifests/{digest}", "MANIFEST_UNKNOWN"),
            (f"blobs/{digest}", "BLOB_UNKNOWN"),
        ):
            target = f"/v2/{UP}/team/app/{what}"
            assert (await service.client.get(target)).expect(404).codes == [code]
            front.forget()
            for _ in range(3):
                (await service.client.get(target)).expect(404)
                (await service.client.head(target)).expect(404)
            assert front.count() == 0, what
        pushed = upstream.pusher.image("team/app", "later", [5])
        (await service.client.get(f"/v2/{UP}/team/app/manifests/later")).expect(404)
        pass_minute(service)
        found = (await service.client.get(f"/v2/{UP}/team/app/manifests/later")).expect(200)
        assert found.body == pushed.data


async def test_an_outage_is_not_remembered_as_a_no(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        ill = front.on("*", refusal(500), times=1, method="HEAD")
        worse = front.on("*", refusal(502), times=1, method="GET")
        check_later(await service.client.get(TAGGED))
        assert (ill.taken, worse.taken) == (1, 1)
        upstream_of(service).breaker.succeeded()
        (await service.client.get(TAGGED)).expect(200)


async def test_what_is_said_after_a_429_holds_without_asking_again(front: Front, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(front.url)) as service:
        front.on("*", refusal(429, retry_after=77), times=1)
        first = (await service.client.get(UNKNOWN)).expect(503)
        assert first.header("retry-after") == "77"
        again = (await service.client.get(UNKNOWN)).expect(503)
        assert 60 <= int(again.header("retry-after") or "0") <= 77
        assert front.count() == 1


PODMAN = {"User_Agent": "containers/5.34 (github.com/containers/image)"}
CAREFUL = ["containers/5.34 (github.com/containers/image)", "skopeo/1.18", "Buildah/1.39", "cri-o/1.33", "libpod/5.4"]


async def test_clients_that_choose_one_mirror_get_no_half_image_while_offline(
    front: Front, image: Image, tmp_path: Path
) -> None:
    exact = f"/v2/{UP}/team/app/manifests/{image.digest}"
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED, **PODMAN)).expect(200)
        front.down()
        for agent in CAREFUL:  # the first of them finds out that it is down
            refused = (await service.client.get(TAGGED, User_Agent=agent)).expect(503)
            assert "not here in whole" in refused.json()["errors"][0]["message"]
            assert refused.header("retry-after") is not None
        check_stale(await service.client.get(TAGGED, User_Agent="containerd/v2.1"), image.data)
        (await service.client.get(exact, **PODMAN)).expect(503)
        (await service.client.head(TAGGED)).expect(200)
        front.up()
        upstream_of(service).breaker.succeeded()
        await pull_blobs(service, "team/app", image)
        front.down()
        for _ in range(3):
            check_stale(await service.client.get(TAGGED, **PODMAN), image.data)
        (await service.client.get(exact, **PODMAN)).expect(200)


async def test_an_index_with_one_whole_image_is_served_offline(front: Front, index: Index, tmp_path: Path) -> None:
    path = f"/v2/{UP}/team/many/manifests/1"
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(path)).expect(200)
        arm = index.images["linux/arm64"]
        (await service.client.get(f"/v2/{UP}/team/many/manifests/{arm.digest}")).expect(200)
        front.down()
        (await service.client.get(path, **PODMAN)).expect(503)
        front.up()
        upstream_of(service).breaker.succeeded()
        await pull_blobs(service, "team/many", arm)
        front.down()
        check_stale(await service.client.get(path, **PODMAN), index.data)


async def test_a_careful_client_is_served_while_the_upstream_can_give_the_rest(
    front: Front, image: Image, tmp_path: Path
) -> None:
    """A tag that is gone upstream says nothing against the blobs of what it named."""
    async with pulling(tmp_path, section(front.url)) as service:
        (await service.client.get(TAGGED)).expect(200)
        front.on("*/manifests/1", refusal(404))
        check_stale(await service.client.get(TAGGED, **PODMAN), image.data)
        await pull_blobs(service, "team/app", image)


async def test_another_upstream_answers_where_the_first_one_fails(
    upstream: Distribution, front: Front, image: Image, tmp_path: Path
) -> None:
    elsewhere = upstream.pusher.image("only/second", "1", [10])
    with Front(upstream.url) as second:
        first = section(front.url, fallbacks=["second.test"])
        async with pulling(tmp_path, first, section(second.url, "second.test")) as service:
            front.on("/v2/only/*", refusal(404))
            found = (await service.client.get(f"/v2/{UP}/only/second/manifests/1")).expect(200)
            assert found.body == elsewhere.data
            front.down()
            found = (await service.client.get(TAGGED, **PODMAN)).expect(200)
            assert found.body == image.data
            assert found.header("warning") is None
            second.down()
            check_later(await service.client.get(UNKNOWN))


async def pull_blobs(service: Running, repository: str, image: Image) -> None:
    for data in image.blobs:
        digest = digest_of(data)
        assert (await service.client.get(f"/v2/{UP}/{repository}/blobs/{digest}")).expect(200).body == data
        await stored(service, f"{UP}/{repository}", digest)


def pass_minute(service: Running) -> None:
    """Lets what was said to be missing be asked for again."""
    upstream_of(service).misses._clock = lambda: time.monotonic() + 61
