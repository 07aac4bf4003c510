"""What a collection cannot see for sure keeps everything that may hang on it."""

import resource
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.oci.digests import digest_of
from app.oci.manifests import OCI_MANIFEST
from app.registry import keys
from app.registry.keys import Entry
from app.registry.publishing import bind
from app.upkeep.garbage import garbage, reports
from storage import PAGE, Capabilities, Entry as Listed, Object, Page, Unavailable
from storage.memory import MemoryDriver
from tests.registry.recorded import Recorded
from tests.upkeep.conftest import Pass
from tests.upkeep.yard import AWAY, HERE, HOUR, THERE, Yard, yard

GRACE = 49 * HOUR
"""Two days, and the fences around them."""


class Hiding:
    """A MinIO whose disk lost a few bytes: `hidden` keys are in no listing, and are refused."""

    def __init__(self, driver: MemoryDriver) -> None:
        self.name = driver.name
        self.hidden: set[str] = set()
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        page = await self._driver.list(prefix, after=after, limit=limit)
        return Page([entry for entry in page.entries if entry.key not in self.hidden], page.more)

    async def get(self, key: str) -> Object:
        self._refuse(key)
        return await self._driver.get(key)

    async def stat(self, key: str) -> Listed:
        self._refuse(key)
        return await self._driver.stat(key)

    def _refuse(self, key: str) -> None:
        if key in self.hidden:
            raise Unavailable("503 SlowDown")


@pytest.fixture
def hiding(shelf: MemoryDriver) -> Hiding:
    return Hiding(shelf)


@pytest.fixture
async def damaged(hiding: Hiding, pass_: Pass) -> AsyncIterator[Yard]:
    """A replica on such a store."""
    async with yard(hiding, pass_) as found:
        yield found


async def test_an_image_that_is_deleted_before_it_is_read_and_pushed_again_keeps_its_layers(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    layer = digest_of(b"layer")
    image = await other.image(b"layer")
    await here.pass_(GRACE)

    async def delete() -> None:
        await other.repository().manifests.delete(image)

    async def again() -> None:
        assert await other.publish(layer, tag="v1") == image

    recorded.before("get", keys.manifests(HERE), delete)
    recorded.after("list", keys.DATA, again)
    report = await here.collect()
    assert (report.gone, report.kept) == ({}, {"needed": 1})
    assert await other.read(layer) == b"layer"


async def test_an_image_that_went_between_two_looks_and_comes_again_keeps_its_layers(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    layers = [await here.push(b"%d" % number) for number in range(40)]
    last = max(layers)  # the first batch is of 32, in the order of their keys
    await here.pass_(GRACE)

    async def publish() -> None:
        image = await other.publish(last)

        async def delete() -> None:
            await other.repository().manifests.delete(image)
            recorded.before("put", keys.TOMBSTONES, again)

        recorded.before("get", keys.manifests(HERE), delete)

    async def again() -> None:
        await other.publish(last)

    recorded.before("put", keys.TOMBSTONES, publish)
    report = await here.collect()
    assert (report.gone["copies"].count, report.kept) == (39, {"needed": 1})
    assert await other.read(last) == b"%d" % layers.index(last)


async def test_a_manifest_that_the_store_hides_keeps_its_layers_while_a_tag_names_it(
    damaged: Yard, hiding: Hiding
) -> None:
    image = await damaged.image(b"layer")
    (key,) = await damaged.keys(keys.manifests(HERE))
    hiding.hidden.add(key)
    await damaged.pass_(GRACE)
    report = await damaged.collect()
    assert (report.state, report.unreadable) == ("stopped", [f"{HERE}@{image}"])
    hiding.hidden.clear()
    assert (await damaged.repository().manifests.get(image))[0].digest == image
    assert await damaged.read(digest_of(b"layer")) == b"layer"


async def test_a_referrer_that_the_store_hides_keeps_its_layers(damaged: Yard, hiding: Hiding) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"subject"), "size": 1}
    signature = await damaged.publish(await damaged.push(b"signature"), subject=subject)
    hiding.hidden.update(await damaged.keys(keys.manifests(HERE)))
    await damaged.pass_(GRACE)
    report = await damaged.collect()
    assert (report.state, report.unreadable) == ("stopped", [f"{HERE}@{signature}"])
    hiding.hidden.clear()
    assert await damaged.read(digest_of(b"signature")) == b"signature"


async def test_a_manifest_that_is_in_no_listing_and_can_be_read_is_learnt_from_its_tag(
    damaged: Yard, hiding: Hiding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await damaged.image(b"layer")
    hiding.hidden.update(await damaged.keys(keys.manifests(HERE)))
    monkeypatch.setattr(hiding, "_refuse", lambda _key: None)
    await damaged.pass_(GRACE)
    report = await damaged.collect()
    assert (report.state, report.gone, report.kept) == ("done", {}, {"needed": 1})


async def test_a_tag_that_cannot_be_read_stops_a_collection_of_its_repository_alone(
    damaged: Yard, hiding: Hiding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await damaged.image(b"layer")
    (tag,) = await damaged.keys(keys.tags(HERE))
    hidden = hiding._refuse
    monkeypatch.setattr(hiding, "_refuse", lambda key: hidden(key) if key != tag else _refused())
    await damaged.push(b"free", THERE)
    await damaged.pass_(GRACE)
    assert (await damaged.collect()).gone["copies"].count == 1
    await damaged.push(b"free")
    await damaged.pass_(GRACE)
    report = await damaged.collect()
    assert report.state == "stopped"
    assert tag in report.reason
    assert await damaged.read(digest_of(b"free")) == b"free"


async def test_a_tag_of_a_deleted_manifest_keeps_nothing(here: Yard) -> None:
    image = await here.image(b"layer")
    await here.collect()  # which remembers what it names
    await here.repository().manifests.delete(image)
    await here.pass_(GRACE)
    assert (await here.collect()).gone["copies"].count == 1


async def test_bytes_whose_link_the_store_hides_stay_and_everything_else_goes(damaged: Yard, hiding: Hiding) -> None:
    await damaged.image(b"layer")
    hiding.hidden.update(await damaged.keys(keys.links(HERE)))
    await damaged.bytes_without_a_link(b"orphan")
    freed = 0
    for _ in range(4):
        await damaged.pass_(GRACE)
        report = await damaged.collect()
        assert report.state == "done"
        freed += report.freed
    assert freed == len(b"orphan")
    hiding.hidden.clear()
    assert await damaged.read(digest_of(b"layer")) == b"layer"


async def test_a_hidden_link_of_another_repository_is_a_link(damaged: Yard, hiding: Hiding) -> None:
    layer = await damaged.push(b"l" * 200_000)
    await damaged.mount(layer, HERE, AWAY)
    await damaged.publish(layer, name=AWAY)
    hiding.hidden.update(await damaged.keys(keys.links(AWAY)))
    await damaged.pass_(GRACE)
    report = await damaged.collect()
    assert (report.state, report.gone, report.kept) == ("done", {}, {"needed": 1})


async def test_collections_that_are_stopped_leave_no_pile(here: Yard) -> None:
    for number in range(5):
        await here.bytes_without_a_link(b"%d" % number)
    await here.pass_(HOUR)
    await here.collect()
    bad = Entry(digest_of(b"bad"), keys.fresh(), "application/x", 3)
    await here.driver.put(keys.manifest(HERE, bad), b"bad")
    await here.pass_(GRACE)
    for _ in range(20):
        await here.pass_(5 * HOUR)
        await here.dead_intent()
        assert (await here.collect()).state == "stopped"
        assert 5 <= len(await here.keys(keys.TOMBSTONES)) <= 2 * 5
        assert len(await here.keys(keys.INTENTS)) == 1
    await here.driver.delete(keys.manifest(HERE, bad))
    assert (await here.collect()).gone["orphans"].count == 5


async def test_a_tombstone_that_would_end_too_soon_is_not_relied_on(here: Yard, recorded: Recorded) -> None:
    uuid = await here.bytes_without_a_link(b"orphan")
    await here.pass_(HOUR)
    await here.collect()
    await here.pass_(GRACE)
    old = keys.tombstone(keys.Copy(uuid, 6), keys.EVERYWHERE)
    await here.driver.put(old, b"")
    await here.pass_(11 * HOUR)

    async def dawdle() -> None:  # the survey takes half a day
        await here.pass_(12.7 * HOUR)

    recorded.before("list", keys.DATA, dawdle)
    assert (await here.collect()).kept == {"too late to be safe": 1}
    assert keys.data(uuid) in await here.keys(keys.DATA)


@pytest.mark.parametrize("room", [0, 4096, 100_000])
async def test_a_full_folder_for_temporary_files_ends_it_with_a_report(
    here: Yard, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for number in range(700):
        await here.driver.put(keys.link(HERE, digest_of(b"%d" % number), keys.Copy(keys.fresh(), 1)), b"")
    before = await here.content()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        report = await here.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (report.state, report.gone) == ("failed", {})
    assert "temporary files" in report.reason
    assert await here.content() == before
    assert not list(tmp_path.glob("edge-registry-*.sqlite"))
    assert len(await here.keys(keys.reports(reports.UNFINISHED))) == 1
    await here.pass_(GRACE)
    assert (await here.collect()).gone["copies"].count == 700


async def test_without_a_folder_for_temporary_files_it_fails_with_a_report(
    here: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unmounted"))
    assert (await here.collect()).state == "failed"
    assert len(await here.keys(keys.reports(reports.UNFINISHED))) == 1


async def test_where_what_is_written_is_not_listed_at_once_nothing_is_collected(
    shelf: MemoryDriver, pass_: Pass
) -> None:
    async with yard(shelf, pass_, capabilities=Capabilities(list_after_write=False)) as here:
        await here.push(b"layer")
        await pass_(GRACE)
        report = await here.collect()
        assert (report.state, report.gone) == ("stopped", {})
        assert "does not list at once" in report.reason


async def test_adopted_copies_are_no_share_of_what_would_go(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "FLOOR", 0)
    copy = keys.adopted(digest_of(b"theirs"), 100_000)
    await bind(here.bucket, HERE, digest_of(b"theirs"), copy, here.bucket.driver.fence())
    await here.image(b"ours")
    await here.pass_(GRACE)
    report = await here.collect(0.5)
    assert (report.state, report.wanted, report.gone["copies"].count) == ("done", 0, 1)


def _refused() -> None:
    raise Unavailable("503 SlowDown")
