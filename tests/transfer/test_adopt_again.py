"""Taking over again and again: who has the last word, and what a run that was killed leaves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.oci.digests import Digest
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.registry import Repository
from storage import PAGE, Page
from storage.memory import MemoryDriver
from tests.registry.recorded import Recorded
from tests.services.client import DOCKER_LIST, INDEX, Image, descriptor, make_image, make_index
from tests.transfer.adopting import V2, Old, adopt, fingerprints, open_bucket

APP, V1 = Name("team/app"), Tag("v1")


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def old(driver: MemoryDriver) -> Old:
    return Old(driver)


@pytest.fixture
async def bucket(driver: MemoryDriver) -> AsyncIterator[Bucket]:
    """The server beside the runs."""
    found = open_bucket(driver)
    yield found
    await found.close()


@pytest.fixture
def here(bucket: Bucket) -> Repository:
    return Repository(bucket, APP)


async def push(here: Repository, image: Image, *tags: Tag) -> None:
    for blob in image.blobs:

        async def body(data: bytes = blob) -> AsyncIterator[bytes]:
            yield data

        await here.uploads.put(Digest(descriptor(blob, "")["digest"]), body())
    await here.manifests.put(image.data, OCI_MANIFEST, digest=None, tagged=tags, by="alice")


async def named(here: Repository, tag: Tag = V1) -> str:
    return (await here.manifests.stat_tag(tag)).digest


async def tags_of(here: Repository) -> list[str]:
    return list((await here.tags.list(100, None))[0])


async def test_a_tag_that_nobody_moved_here_follows_the_old_one(
    driver: MemoryDriver, old: Old, here: Repository
) -> None:
    await old.image(APP, V1, seed="1")
    await adopt(driver)
    second = await old.image(APP, V1, seed="2")
    report = await adopt(driver)
    assert await named(here) == second.digest
    assert report.done["tags_moved"] == 1
    back = await old.image(APP, V1, seed="1")
    await adopt(driver)
    assert await named(here) == back.digest


async def test_a_tag_that_was_pushed_here_is_never_touched(driver: MemoryDriver, old: Old, here: Repository) -> None:
    first = await old.image(APP, V1, "same", seed="1")
    await adopt(driver)
    mine = await Old(MemoryDriver()).image(APP, seed="mine")
    await push(here, mine, V1, Tag("before"))
    await push(here, first, Tag("same"))
    await old.image(APP, V1, "same", "before", seed="2")
    for _ in range(2):
        report = await adopt(driver)
        assert {tag: await named(here, Tag(tag)) for tag in ("v1", "before", "same")} == {
            "v1": mine.digest,
            "before": mine.digest,
            "same": first.digest,
        }
        assert sorted(note.what for note in report.notes["kept"]) == ["tag before", "tag same", "tag v1"]
        assert report.whole


async def test_a_tag_that_was_deleted_here_does_not_come_back(driver: MemoryDriver, old: Old, here: Repository) -> None:
    await old.image(APP, V1, seed="1")
    await adopt(driver)
    await here.tags.delete(V1)
    await adopt(driver)
    assert await tags_of(here) == []
    await old.image(APP, V1, "v2", seed="2")
    report = await adopt(driver)
    assert await tags_of(here) == ["v2"]
    assert [str(note) for note in report.notes["kept"]] == ["team/app: tag v1: it was deleted here"]


async def test_a_manifest_that_was_deleted_here_does_not_come_back(
    driver: MemoryDriver, old: Old, here: Repository
) -> None:
    image = await old.image(APP, V1)
    await adopt(driver)
    await here.manifests.delete(Digest(image.digest))
    await old.tag(APP, "again", image.digest)
    report = await adopt(driver)
    assert await tags_of(here) == []
    assert report.done["manifests_written"] == 0
    assert [note.what for note in report.notes["kept"]] == ["tag again"]
    newer = await old.image(APP, V1, seed="newer")
    await adopt(driver)
    assert await named(here) == newer.digest


async def test_an_index_that_is_new_there_does_not_bring_back_a_child_that_was_deleted_here(
    driver: MemoryDriver, old: Old, here: Repository
) -> None:
    child = await old.image(APP)
    await adopt(driver)
    await here.manifests.delete(Digest(child.digest))
    index = make_index([descriptor(child.data, child.media_type)])
    await old.manifest(APP, index, V1)
    report = await adopt(driver)
    assert (await here.manifests.get_tag(V1))[1] == index
    assert [child.digest in note.why for note in report.notes["sparse"]] == [True]


async def test_tags_that_are_gone_there_are_reported_and_pruned_on_demand(
    driver: MemoryDriver, old: Old, here: Repository
) -> None:
    image = await old.image(APP, V1, "moved", "stays")
    await old.image(Name("whole"), "gone")
    await adopt(driver)
    await push(here, image, Tag("moved"))
    for tag in ("v1", "moved"):
        await old.untag(APP, tag)
    for key in await fingerprints(driver, f"{V2}/repositories/whole/"):
        await driver.delete(key)
    report = await adopt(driver)
    assert sorted(f"{note.repository}:{note.what}" for note in report.notes["gone"]) == [
        "team/app:tag v1",
        "whole:tag gone",
    ]
    assert await tags_of(here) == ["moved", "stays", "v1"]
    assert (await adopt(driver, prune=True, dry=True)).notes["gone"][0].why == "would be pruned"
    report = await adopt(driver, prune=True)
    assert report.done["tags_pruned"] == 2
    assert await tags_of(here) == ["moved", "stays"]
    assert (await adopt(driver, prune=True)).done["tags_pruned"] == 0
    await old.tag(APP, "v1", image.digest)
    await adopt(driver)
    assert await tags_of(here) == ["moved", "stays", "v1"]


async def test_a_tag_that_a_listing_left_out_is_not_pruned(driver: MemoryDriver, old: Old, here: Repository) -> None:
    """Stores have been seen to lose keys from their listings."""
    await old.image(APP, V1)
    await adopt(driver)
    real = driver.list

    async def forgetful(prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        page = await real(prefix, after=after, limit=limit)
        return Page([entry for entry in page.entries if "/_manifests/tags/" not in entry.key], page.more)

    driver.list = forgetful  # type: ignore[method-assign]
    assert (await adopt(driver, prune=True)).done["tags_pruned"] == 0
    driver.list = real  # type: ignore[method-assign]
    assert await tags_of(here) == ["v1"]


async def test_a_push_between_the_look_and_the_write_wins(old: Old, here: Repository, driver: MemoryDriver) -> None:
    await old.image(APP, V1, seed="1")
    await adopt(driver)
    await old.image(APP, V1, seed="2")
    mine = await Old(MemoryDriver()).image(APP, seed="mine")
    recorded = Recorded(driver)

    async def pushes() -> None:
        await push(here, mine, V1)

    recorded.after("get", keys.tag(APP, V1), pushes)
    report = await adopt(recorded)
    assert await named(here) == mine.digest
    assert [note.why for note in report.notes["kept"]] == ["it was pushed here a moment ago"]


async def test_a_store_without_conditions_is_looked_at_once_more(
    old: Old, here: Repository, driver: MemoryDriver
) -> None:
    await old.image(APP, V1, seed="1")
    await adopt(driver, bucket=open_bucket(driver, conditions=False))
    second = await old.image(APP, V1, seed="2")
    await adopt(driver, bucket=open_bucket(driver, conditions=False))
    assert await named(here) == second.digest


async def test_an_immutable_tag_does_not_follow(old: Old, here: Repository, driver: MemoryDriver) -> None:
    first = await old.image(APP, V1, seed="1")
    rules: dict[str, Any] = {"immutable_tags": ["team/*:v*"]}
    await adopt(driver, bucket=open_bucket(driver, **rules))
    await old.image(APP, V1, seed="2")
    report = await adopt(driver, bucket=open_bucket(driver, **rules))
    assert await named(here) == first.digest
    assert [note.why for note in report.notes["kept"]] == ["the tag is immutable"]


async def test_a_glob_takes_over_what_it_means_and_nothing_else(driver: MemoryDriver, old: Old) -> None:
    for name in ("team", "team/app", "team/app/deep", "team-x/app", "other"):
        await old.image(name, V1)
    report = await adopt(driver, names="team/*")
    assert report.repositories == 2
    assert sorted(await fingerprints(driver, keys.CATALOG)) == [
        keys.catalog(Name("team/app")),
        keys.catalog(Name("team/app/deep")),
    ]
    assert (await adopt(driver)).repositories == 5


async def test_names_below_and_beside_each_other_are_joined_right(driver: MemoryDriver, old: Old) -> None:
    """The order of keys is not that of names: `a/1` comes before the files of `a`, `a/b` after them."""
    names = ["a", "a/1", "a/b", "a-b", "a.b", "a0", "a/b/c", "a--b", "a_b", "0", "a/b-c"]
    for name in names:
        await old.image(name, "v1", "v1.0", "v1-0", "v1_0", "V1", "v10")
    first = await adopt(driver)
    assert (first.repositories, first.done["tags_written"]) == (len(names), 6 * len(names))
    again = await adopt(driver, prune=True)
    assert not any(again.done.values()), again.document()
    assert not any(again.counts.values()), again.document()


async def test_a_dry_run_writes_nothing_and_says_what_the_next_run_then_does(driver: MemoryDriver, old: Old) -> None:
    child = await old.image(APP, V1)
    await old.manifest(APP, make_index([descriptor(child.data, child.media_type)]), "multi")
    await old.manifest(APP, b'{"schemaVersion": 1}', "ancient")
    await old.manifest(APP, make_image(b"never pushed").data, "hollow")
    before = await fingerprints(driver, "")
    dry = await adopt(driver, dry=True)
    assert await fingerprints(driver, "") == before
    real = await adopt(driver)
    assert real.done == dry.done
    assert real.counts == dry.counts
    assert {**real.document(), "dry_run": True} == dry.document()


async def test_children_come_before_their_indexes_and_each_once(driver: MemoryDriver, old: Old) -> None:
    children = [await old.image(APP, seed=str(number)) for number in range(6)]
    described = [descriptor(child.data, child.media_type) for child in children]
    nested = make_index(described[:3], DOCKER_LIST)
    await old.manifest(APP, nested)
    top = make_index([*described, descriptor(nested, DOCKER_LIST)], INDEX)
    await old.manifest(APP, top, V1)
    recorded = Recorded(driver)
    report = await adopt(recorded)
    assert report.whole, report.document()
    written = [key.split("/")[-2] for _, key in recorded.log if _ == "put" and f"{APP}/_manifests/" in key]
    put = [hexadecimal for hexadecimal in written if hexadecimal != "sha256"]
    places = {digest: put.index(digest) for digest in put}
    assert len(put) == len(places) == 8
    for index in (nested, top):
        above = places[descriptor(index, "")["digest"].partition(":")[2]]
        for child in [*described[:3]] if index is nested else [*described, descriptor(nested, "")]:
            assert places[child["digest"].partition(":")[2]] < above


@pytest.mark.parametrize("root", ["", "old", "old/registry"])
@pytest.mark.parametrize("name", ["a", "team/app", "a_b/c--d"])
def test_what_was_taken_over_is_remembered_under_keys_that_can_be_read_back(root: str, name: str) -> None:
    digest = Digest("sha512:" + "0a" * 64)
    key = keys.adopted_manifest(root, Name(name), digest)
    assert keys.adoption(key) == (name, digest, "")
    for tag in ("v1", "_x.", "folder__XLDIR__"):
        key = keys.adopted_tag(root, Name(name), Tag(tag), "0f")
        assert keys.adoption(key) == (name, tag, "0f")
        assert key.startswith(keys.adoptions(root))


async def test_two_at_once_do_no_harm(driver: MemoryDriver, old: Old, here: Repository) -> None:
    children = [await old.image(APP, f"v{number}", seed=str(number)) for number in range(8)]
    await old.manifest(APP, make_index([descriptor(child.data, child.media_type) for child in children]), "multi")
    for report in await asyncio.gather(adopt(driver), adopt(driver), adopt(driver)):
        assert report.whole
        assert not report.notes["kept"]
    assert await tags_of(here) == ["multi", *(f"v{number}" for number in range(8))]
    assert not any((await adopt(driver)).done.values())


class Killed(Exception):
    """The process ends here."""


async def test_killed_before_or_after_any_write_the_next_run_ends_as_if_nothing_had_happened(old: Old) -> None:
    """Every write of a run is the last one of some run here; what follows is a new process."""

    async def fill(driver: MemoryDriver) -> None:
        target = Old(driver)
        child = await target.image(APP, V1, seed="1")
        await target.manifest(APP, make_index([descriptor(child.data, child.media_type)]), "multi")
        await target.image("other", "latest", subject=descriptor(child.data, child.media_type))

    def visible(found: dict[str, object]) -> list[str]:
        kinds = ("/_tags/", "/_manifests/", "/_blobs/", "/_referrers/", "catalog/", "blobs/", "upkeep/adoptions/")
        return sorted({_without_nonce(key) for key in found if any(kind in key for kind in kinds)})

    whole = MemoryDriver()
    await fill(whole)
    counted = Recorded(whole)
    await adopt(counted)
    expected = visible(dict(await fingerprints(whole, "")))
    writes = [entry for entry in counted.log if entry[0] in ("put", "delete")]
    assert len(writes) > 15
    for number in range(len(writes)):
        driver = MemoryDriver()
        await fill(driver)
        dying = Dying(driver, number)
        with pytest.raises(Killed):
            await adopt(dying)
        report = await adopt(driver)
        assert report.whole, (number, report.document())
        assert visible(dict(await fingerprints(driver, ""))) == expected, number
        assert await named(Repository(open_bucket(driver), APP)) != ""


class Dying(Recorded):
    """Dies at the write of that number, and refuses everything afterwards."""

    def __init__(self, driver: MemoryDriver, number: int) -> None:
        super().__init__(driver)
        self._left = number

    async def _recorded(self, action: str, key: str, work: Any) -> Any:
        if action in ("put", "delete"):
            self._left -= 1
        if self._left < 0:
            raise Killed
        return await super()._recorded(action, key, work)


def _without_nonce(key: str) -> str:
    folder, _, last = key.rpartition("/")
    if "/_manifests/" in key and not key.startswith(keys.ADOPTIONS):
        return f"{folder}/{last.partition('.')[2]}"
    return f"{folder}/{last.partition('.')[0]}" if "/_referrers/" in key else key
