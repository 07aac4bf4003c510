"""A cache above its size loses what was least recently pulled, and nothing else loses anything."""

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUnknown, ManifestUnknown, Unavailable
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.eviction import Evictor, Report, Signs
from app.proxy.pulls import Pulls
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Copy, Entry
from app.registry.registry import Registry
from app.registry.settings import RegistrySettings
from storage import Capabilities, Driver, StorageError
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.registry.conftest import manifest_of, stream
from tests.registry.recorded import Clock, Recorded
from tests.services.minio import MinioServer

A, B, HOSTED = Name("docker.io/library/a"), Name("docker.io/library/b"), Name("team/app")
MIB = 1 << 20
DAY = 86_400.0


class Cache:
    """One replica with a cache of docker.io, and what its wiring would tell the evictor."""

    def __init__(self, driver: Driver, clock: Callable[[], float]) -> None:
        self.driver = driver
        self.clock = clock
        self.bucket = Bucket(driver, RegistrySettings(), Capabilities(), lambda _event, _fields: None)
        self.registry = Registry(self.bucket)
        self.pulls = Pulls(self.bucket, clock=clock)
        self.pins: set[tuple[Name, Digest]] = set()
        self.busy: set[Digest] = set()
        self.online = True
        self.freed = 0

    async def blob(self, data: bytes, name: Name = A) -> Digest:
        """Stores a blob."""
        digest = digest_of(data)
        await self.registry.repository(name).uploads.put(digest, stream(data))
        return digest

    async def image(
        self, *digests: Digest, name: Name = A, by: str | None = None, tagged: bool = True, **more: Any
    ) -> Digest:
        """Stores a manifest of these blobs, with a tag of its own."""
        return await self._put(manifest_of(*digests, **more), OCI_MANIFEST, name, by, tagged)

    async def index(self, *digests: Digest, name: Name = A) -> Digest:
        """Stores an index of these images, with a tag of its own."""
        children = [{"mediaType": OCI_MANIFEST, "digest": digest, "size": 1} for digest in digests]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return await self._put(json.dumps(document).encode(), OCI_INDEX, name, None, True)

    async def _put(self, data: bytes, media_type: str, name: Name, by: str | None, tagged: bool) -> Digest:
        tags = [Tag(f"t{digest_of(data)[7:20]}")] if tagged else []
        put = self.registry.repository(name).manifests.put
        return (await put(data, media_type, digest=None, tagged=tags, by=by)).digest

    async def pull(self, digest: Digest, name: Name = A) -> None:
        """Notes a pull."""
        self.pulls.note(name, digest)
        await self.bucket.close()

    async def evict(self, limit: int, **signs: Any) -> Report:
        """One run."""
        return await self.evictor(limit, **signs).run()

    def evictor(self, limit: int, **signs: Any) -> Evictor:
        async def pinned() -> set[tuple[Name, Digest]]:
            return self.pins

        def evicted(size: int) -> None:
            self.freed += size

        return Evictor(
            self.bucket,
            "docker.io",
            "docker.io",
            limit,
            pinned=pinned,
            busy=lambda: self.busy,
            reachable=lambda: self.online,
            evicted=evicted,
            signs=Signs(**{"pulls": self.pulls, "clock": self.clock, **signs}),
        )

    async def has(self, digest: Digest, name: Name = A) -> bool:
        """Whether a manifest is there."""
        try:
            await self.registry.repository(name).manifests.stat(digest)
        except ManifestUnknown:
            return False
        return True

    async def holds(self, digest: Digest, name: Name = A) -> bool:
        """Whether a blob is there."""
        try:
            await self.registry.repository(name).blobs.stat(digest)
        except BlobUnknown:
            return False
        return True

    async def read(self, digest: Digest, name: Name = HOSTED) -> bytes:
        """Pulls a blob."""
        blobs = self.registry.repository(name).blobs
        async with blobs.open(await blobs.stat(digest)) as reader:
            return b"".join([chunk async for chunk in reader])

    async def mount(self, digest: Digest, source: Name, name: Name) -> None:
        """Links the copy that another repository holds."""
        assert await self.registry.repository(name).blobs.mount(digest, source, lambda _: True)

    async def keys(self, prefix: str = "") -> list[str]:
        """What the store holds."""
        found: list[str] = []
        more = True
        while more:
            page = await self.driver.list(prefix, after=found[-1] if found else "")
            found += [entry.key for entry in page.entries]
            more = page.more
        return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(clock: Clock) -> MemoryDriver:
    return MemoryDriver(clock)


@pytest.fixture
def recorded(shelf: MemoryDriver) -> Recorded:
    return Recorded(shelf.replica())


@pytest.fixture
async def cache(recorded: Recorded, clock: Clock) -> AsyncIterator[Cache]:
    cache = Cache(recorded, clock)
    yield cache
    await cache.bucket.close()


@pytest.fixture
async def other(shelf: MemoryDriver, clock: Clock) -> AsyncIterator[Cache]:
    """A second replica."""
    other = Cache(shelf.replica(), clock)
    yield other
    await other.bucket.close()


async def images(cache: Cache, clock: Clock, count: int, name: Name = A) -> list[Digest]:
    """Images of one MiB each, stored a day apart, the last a day ago."""
    found = []
    for number in range(count):
        found.append(await cache.image(await cache.blob(bytes([number]) * MIB, name), name=name))
        clock.now += DAY
    return found


async def test_below_its_size_a_cache_is_looked_at_and_left(cache: Cache, clock: Clock) -> None:
    await images(cache, clock, 3)
    before = await cache.keys()
    report = await cache.evict(4 * MIB)
    assert await cache.keys() == before
    assert report.before == report.after > 3 * MIB
    assert (report.manifests, report.links, cache.freed) == (0, 0, 0)


async def test_the_least_recently_pulled_goes_first_and_down_to_nine_tenths(cache: Cache, clock: Clock) -> None:
    found = await images(cache, clock, 10)
    for number in (1, 0, 4):
        await cache.pull(found[number])
        clock.now += DAY
    limit = int(9.5 * MIB)
    report = await cache.evict(limit)
    assert [number for number, digest in enumerate(found) if not await cache.has(digest)] == [2, 3]
    assert report.before - report.after == cache.freed > 2 * MIB
    assert report.after <= 0.9 * limit
    assert (report.manifests, report.links) == (2, 2)
    assert (await cache.evict(limit)).before == report.after


async def test_what_was_never_pulled_goes_by_when_it_was_stored(cache: Cache, clock: Clock) -> None:
    first, second = await images(cache, clock, 2)
    await cache.evict(2 * MIB)
    assert (await cache.has(first), await cache.has(second)) == (False, True)


async def test_all_that_speaks_of_an_evicted_image_goes_but_its_tag(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"elsewhere"), "size": 1}
    digest = await cache.image(layer, subject=subject)
    await cache.pull(digest)
    clock.now += DAY
    await cache.evict(MIB // 2)
    left = await cache.keys(f"repositories/{A}/")
    assert [key for key in left if "/_tags/" not in key and "/_deletions/" not in key] == []
    assert await cache.keys("blobs/") == []
    assert await cache.keys("data/") == []
    assert (await cache.registry.repository(A).tags.list(10, None))[0] == []


async def test_hosted_images_that_share_the_bytes_are_untouched(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    await cache.mount(layer, A, HOSTED)
    hosted = await cache.image(layer, name=HOSTED)
    before = await cache.keys(f"repositories/{HOSTED}/")
    clock.now += DAY
    report = await cache.evict(MIB // 2)
    assert (report.manifests, report.links) == (1, 1)
    assert await cache.keys(f"repositories/{HOSTED}/") == before
    assert await cache.has(hosted, HOSTED)
    assert await cache.read(layer) == b"x" * MIB
    assert not await cache.holds(layer)


@pytest.mark.parametrize("name", ["docker.io", "docker.iox/a", "docker", "quay.io/a", "team/docker.io/a"])
async def test_repositories_beside_the_prefix_are_neither_counted_nor_touched(
    cache: Cache, clock: Clock, name: str
) -> None:
    await images(cache, clock, 3, Name(name))
    before = await cache.keys()
    assert (await cache.evict(1)).before == 0
    assert await cache.keys() == before


async def test_a_blob_of_two_images_goes_with_the_second(cache: Cache, clock: Clock) -> None:
    base, own = await cache.blob(b"b" * MIB), await cache.blob(b"o" * MIB)
    first = await cache.image(base, own)
    clock.now += DAY
    second = await cache.image(base)
    clock.now += DAY
    report = await cache.evict(int(1.5 * MIB))
    assert (await cache.has(first), await cache.holds(own), await cache.holds(base)) == (False, False, True)
    assert report.before - report.after == pytest.approx(MIB, rel=0.01)
    await cache.evict(MIB)
    assert (await cache.has(second), await cache.holds(base)) == (False, False)


async def test_bytes_that_two_cached_repositories_link_count_once_and_go_with_the_last_link(
    cache: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    clock.now += DAY
    await cache.mount(layer, A, B)
    await cache.image(layer, name=B)
    clock.now += DAY
    recorded.log.clear()
    await cache.evict(int(1.5 * MIB))
    assert {action for action, _ in recorded.log} == {"list"}
    report = await cache.evict(MIB)
    assert report.before == pytest.approx(MIB, rel=0.01)
    assert (report.manifests, report.links) == (2, 2)
    assert report.after == 0 == report.before - cache.freed


async def test_a_pinned_image_stays_with_its_platforms_blobs_and_signatures(cache: Cache, clock: Clock) -> None:
    layers = [await cache.blob(bytes([number]) * MIB) for number in range(4)]
    children = [await cache.image(layer) for layer in layers[:2]]
    index = await cache.index(*children)
    subject = {"mediaType": OCI_INDEX, "digest": index, "size": 1}
    signature = await cache.image(layers[2], subject=subject)
    loose = await cache.image(layers[3])
    cache.pins = {(A, index)}
    clock.now += DAY
    report = await cache.evict(1)
    assert [await cache.has(digest) for digest in (*children, index, signature)] == [True] * 4
    assert [await cache.holds(layer) for layer in layers] == [True, True, True, False]
    assert not await cache.has(loose)
    assert report.kept["pinned"] == 4


async def test_a_pin_of_one_repository_pins_nothing_in_another(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    digest = await cache.image(layer)
    cache.pins = {(B, digest)}
    clock.now += DAY
    await cache.evict(1)
    assert not await cache.has(digest)


async def test_an_index_stays_while_a_platform_of_it_stays(cache: Cache, clock: Clock) -> None:
    old, new = [await cache.image(await cache.blob(bytes([number]) * MIB)) for number in range(2)]
    index = await cache.index(old, new)
    clock.now += DAY
    middle = await cache.image(await cache.blob(b"m" * MIB))
    clock.now += DAY
    await cache.pull(new)
    clock.now += DAY
    await cache.evict(3 * MIB - 1)
    assert [await cache.has(digest) for digest in (old, new, index, middle)] == [False, True, True, True]
    await cache.evict(2 * MIB - 1)
    assert [await cache.has(digest) for digest in (new, index, middle)] == [True, True, False]
    await cache.evict(1)
    assert [await cache.has(digest) for digest in (new, index)] == [False, False]


async def test_an_index_stays_with_a_platform_that_cannot_go(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    child = await cache.image(layer)
    index = await cache.index(child)
    clock.now += DAY
    cache.busy = {layer}
    report = await cache.evict(1)
    assert [await cache.has(digest) for digest in (child, index)] == [True, True]
    assert report.kept == {"in flight": 1, "children stay": 1}


async def test_an_image_pulled_within_ten_minutes_stays(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    await cache.pull(digest)
    clock.now += 590
    assert (await cache.evict(MIB)).kept == {"recent": 1}
    assert await cache.has(digest)
    clock.now += 20
    await cache.evict(MIB)
    assert not await cache.has(digest)


async def test_an_image_pulled_again_here_stays_though_its_key_is_older(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    await cache.pull(digest)
    clock.now += 1800
    await cache.pull(digest)  # within the grain: no key is written
    clock.now += 60
    assert (await cache.evict(MIB)).kept == {"recent": 1}


async def test_an_image_whose_blob_has_just_arrived_stays(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    digest = await cache.image(layer)
    clock.now += DAY
    for key in await cache.keys(keys.links(A, layer)):
        await cache.driver.delete(key)
    await cache.blob(b"x" * MIB)
    clock.now += 60
    assert (await cache.evict(MIB)).kept == {"recent": 1}
    assert await cache.has(digest)


async def test_a_pull_at_another_replica_after_the_look_is_seen(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    (digest,) = await images(cache, clock, 1)
    recorded.before("stat", keys.pull(A, digest), lambda: other.pull(digest))
    assert (await cache.evict(MIB)).kept == {"recent": 1}
    assert await cache.has(digest)


async def test_a_blob_in_flight_keeps_the_images_that_name_it(cache: Cache, clock: Clock) -> None:
    layer, free = await cache.blob(b"x" * MIB), await cache.blob(b"f" * MIB)
    needs, goes = await cache.image(layer), await cache.image(free)
    clock.now += DAY
    cache.busy = {layer}
    await cache.evict(1)
    assert (await cache.has(needs), await cache.holds(layer)) == (True, True)
    assert (await cache.has(goes), await cache.holds(free)) == (False, False)


async def test_a_blob_in_flight_that_nothing_names_yet_stays(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    clock.now += DAY
    cache.busy = {layer}
    assert (await cache.evict(1)).kept == {"in flight": 1}
    assert await cache.holds(layer)


async def test_nothing_goes_while_it_could_not_be_fetched_again(cache: Cache, recorded: Recorded, clock: Clock) -> None:
    await images(cache, clock, 2)
    await cache.blob(b"nobody's" * MIB)
    clock.now += DAY
    before = await cache.keys()
    cache.online = False
    recorded.log.clear()
    report = await cache.evict(1)
    assert {action for action, _ in recorded.log} == {"list"}
    assert (report.offline, report.manifests, report.links) == (True, 0, 0)
    assert await cache.keys() == before


async def test_eviction_ends_where_the_uplink_does(cache: Cache, recorded: Recorded, clock: Clock) -> None:
    found = await images(cache, clock, 4)

    async def cut() -> None:
        cache.online = False

    recorded.after("delete", f"repositories/{A}/_manifests/", cut)
    report = await cache.evict(1)
    assert report.offline
    assert [await cache.has(digest) for digest in found] == [False, True, True, True]


async def test_what_users_pushed_before_the_upstream_was_configured_stays(cache: Cache, clock: Clock) -> None:
    pushed = await cache.image(await cache.blob(b"p" * MIB), by="alice")
    untagged = await cache.image(await cache.blob(b"u" * MIB), tagged=False)
    cached = await cache.image(await cache.blob(b"c" * MIB, B), name=B)
    clock.now += DAY
    before = await cache.keys(f"repositories/{A}/")
    assert (await cache.evict(1)).kept == {"pushed": 2}
    assert await cache.has(pushed)
    assert await cache.has(untagged)
    assert await cache.keys(f"repositories/{A}/") == before
    assert not await cache.has(cached, B)


async def test_what_is_pushed_after_the_look_stays(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    layers = [await cache.blob(bytes([number]) * MIB) for number in range(2)]
    first, second = [await cache.image(layer) for layer in layers]
    clock.now += DAY

    async def push() -> None:
        put = other.registry.repository(A).manifests.put
        published = await put(manifest_of(layers[1]), OCI_MANIFEST, digest=None, tagged=[Tag("mine")], by="operator")
        assert published.digest == second

    recorded.after("delete", keys.manifests(A, first), push)
    report = await cache.evict(1)
    assert (report.manifests, report.kept) == (1, {"pushed": 1})
    assert (await other.has(first), await other.has(second)) == (False, True)
    assert await other.read(layers[1], A) == bytes([1]) * MIB


async def test_tags_that_the_proxy_moves_meanwhile_keep_nothing(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    (digest,) = await images(cache, clock, 1)
    recorded.before("stat", keys.pull(A, digest), lambda: other.driver.put(keys.tag(A, Tag("new")), b'{"by": null}'))
    assert (await cache.evict(1)).manifests == 1


async def test_what_was_pushed_by_digest_and_never_pulled_through_stays(cache: Cache, clock: Clock) -> None:
    digest = await cache.image(await cache.blob(b"p" * MIB), tagged=False)
    clock.now += DAY
    assert (await cache.evict(1)).kept == {"pushed": 1}
    assert await cache.has(digest)


async def test_anonymous_pushes_stay_where_the_proxy_signs_its_tags(cache: Cache, clock: Clock) -> None:
    pushed = await cache.image(await cache.blob(b"p" * MIB))
    cached = await cache.image(await cache.blob(b"c" * MIB, B), name=B, by="upstream:docker.io")
    clock.now += DAY
    await cache.evict(1, writer="upstream:docker.io")
    assert (await cache.has(pushed), await cache.has(cached, B)) == (True, False)


@pytest.mark.parametrize("body", [b"not json", b"[1]"])
async def test_a_tag_that_cannot_be_understood_is_not_the_proxys(cache: Cache, clock: Clock, body: bytes) -> None:
    (digest,) = await images(cache, clock, 1)
    await cache.driver.put(keys.tag(A, Tag("odd")), body)
    assert (await cache.evict(1)).kept == {"pushed": 1}
    assert await cache.has(digest)


async def test_keys_that_are_not_the_registrys_are_passed_over(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    strange = [f"repositories/{A}/_blobs/x", f"repositories/{A}/_blobs/sha256/y/z", f"repositories/{A}/_pulls/w"]
    for key in strange:
        await cache.driver.put(key, b"")
    await cache.evict(1)
    assert not await cache.has(digest)
    assert set(strange) <= set(await cache.keys())


async def test_the_age_of_a_pull_is_by_the_stores_clock(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    await cache.pull(digest)
    cache.bucket.capabilities = Capabilities(clock_skew=DAY)
    assert (await cache.evict(MIB, pulls=None, clock=lambda: clock.now + DAY)).kept == {"recent": 1}


@pytest.mark.parametrize("body", [b"not json", b"[1]", b""])
async def test_a_manifest_that_cannot_be_understood_keeps_its_repository(
    cache: Cache, clock: Clock, body: bytes
) -> None:
    (digest,) = await images(cache, clock, 1)
    (elsewhere,) = await images(cache, clock, 1, B)
    await cache.driver.put(keys.manifest(A, Entry(digest_of(body), keys.fresh(), "application/x", len(body))), body)
    clock.now += DAY
    before = await cache.keys(f"repositories/{A}/")
    assert (await cache.evict(1)).kept == {"unreadable": 2}
    assert await cache.keys(f"repositories/{A}/") == before
    assert await cache.has(digest)
    assert not await cache.has(elsewhere, B)


async def test_a_manifest_that_went_and_came_again_while_it_was_read_is_whole(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    digest = await cache.image(layer)
    await images(cache, clock, 1, B)
    cold = Cache(recorded, clock)
    (key,) = await cache.keys(keys.manifests(A))

    async def again() -> None:
        assert await other.image(layer) == digest

    recorded.before("get", key, lambda: other.registry.repository(A).manifests.delete(digest))
    recorded.before("put", keys.TOMBSTONES, again)
    await cold.evict(2 * MIB - 10)
    assert await other.has(digest)
    assert await other.read(layer, A) == b"x" * MIB


async def test_a_manifest_is_read_where_one_of_its_copies_has_just_gone(
    cache: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    (key,) = await cache.keys(keys.manifests(A))
    first = f"{keys.manifests(A)}{key.removeprefix(keys.manifests(A)).rpartition('/')[0]}/{'0' * 32}.x,y"
    await cache.driver.put(first, manifest_of(layer))
    clock.now += DAY
    recorded.before("get", first, lambda: cache.driver.delete(first))
    assert (await Cache(recorded, clock).evict(MIB // 2)).links == 1
    assert await cache.keys(keys.DATA) == []


async def test_a_garbled_manifest_keeps_its_repository(cache: Cache, other: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    (key,) = await cache.keys(keys.manifests(A))
    await cache.driver.put(key, b'{"schemaVersion":2}')
    before = await cache.keys(f"repositories/{A}/")
    assert (await other.evict(1)).kept == {"unreadable": 1}
    assert await cache.keys(f"repositories/{A}/") == before
    assert await cache.has(digest)


async def test_links_that_nothing_names_go_after_an_hour(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    old = await cache.blob(b"o" * MIB)
    clock.now += 3000
    new = await cache.blob(b"n" * MIB)
    clock.now += 700
    report = await cache.evict(int(2.5 * MIB))
    assert (await cache.holds(old), await cache.holds(new), await cache.has(digest)) == (False, True, True)
    assert (report.manifests, report.links) == (0, 1)
    assert cache.freed == MIB


async def test_keys_about_manifests_that_are_gone_go_after_an_hour(cache: Cache, clock: Clock) -> None:
    (digest,) = await images(cache, clock, 1)
    gone, subject = digest_of(b"gone"), digest_of(b"subject")
    for name in (gone, digest):
        await cache.driver.put(keys.pull(A, name), b"")
    await cache.driver.put(keys.referrer(A, subject, gone, keys.fresh()), b"{}")
    await cache.blob(b"nobody's" * MIB)
    clock.now += 3601
    await cache.driver.put(keys.referrer(A, subject, digest_of(b"coming"), keys.fresh()), b"{}")
    await cache.evict(2 * MIB)
    assert await cache.keys(f"repositories/{A}/_pulls/") == [keys.pull(A, digest)]
    assert len(await cache.keys(keys.referrers(A, subject))) == 1


async def test_a_manifest_that_comes_while_links_go_keeps_them(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    clock.now += DAY
    new = []

    async def publish() -> None:
        new.append(await other.image(layer, annotations={"second": "yes"}))

    recorded.before("put", keys.TOMBSTONES, publish)
    report = await cache.evict(MIB // 2)
    assert report.kept == {"needed": 1}
    assert await other.has(new[0])
    assert await other.read(layer, A) == b"x" * MIB


@pytest.mark.parametrize("moment", [keys.TOMBSTONES, "delete"])
async def test_a_push_that_mounts_an_evicted_blob_is_whole_or_told_to_send_it(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock, moment: str
) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    clock.now += DAY

    async def push() -> None:
        if await other.registry.repository(HOSTED).blobs.mount(layer, A, lambda _: True) is None:
            await other.blob(b"x" * MIB, HOSTED)
        await other.image(layer, name=HOSTED)

    if moment == "delete":
        recorded.before("delete", keys.links(A, layer), push)
    else:
        recorded.before("put", moment, push)
    await cache.evict(1)
    assert await other.read(layer) == b"x" * MIB


async def test_an_image_that_is_stored_again_while_it_goes_is_whole_or_absent(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    digest = await cache.image(layer)
    clock.now += DAY

    async def again() -> None:
        assert await other.image(layer) == digest

    recorded.after("delete", keys.manifests(A), again)
    await cache.evict(1)
    assert await other.has(digest)
    assert await other.read(layer, A) == b"x" * MIB


async def test_two_evictors_at_once_do_the_work_of_one(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    found = await images(cache, clock, 4)
    reports = []

    async def second() -> None:
        reports.append(await other.evict(3 * MIB))

    recorded.before("delete", keys.manifests(A), second)
    reports.append(await cache.evict(3 * MIB))
    assert [await cache.has(digest) for digest in found] == [False, False, True, True]
    assert len(await cache.keys(f"repositories/{A}/_blobs/")) == 2
    measured = (await cache.evict(4 * MIB)).before
    assert [report.after for report in reports] == [measured, measured]


async def test_far_above_the_limit_the_least_recent_go_however_recent_they_are(cache: Cache, clock: Clock) -> None:
    found = []
    for number in range(20):
        found.append(await cache.image(await cache.blob(bytes([number]) * MIB)))
        clock.now += 1
    report = await cache.evict(8 * MIB)
    assert 7 * MIB < report.after <= 8 * MIB
    assert report.kept == {}
    assert [await cache.has(digest) for digest in found] == [False] * 13 + [True] * 7
    assert len(await cache.keys(keys.DATA)) == 7


async def test_an_index_goes_with_its_platforms_far_above_the_limit(cache: Cache, clock: Clock) -> None:
    children = [await cache.image(await cache.blob(bytes([number]) * MIB)) for number in range(2)]
    index = await cache.index(*children)
    await cache.evict(1)
    assert [await cache.has(digest) for digest in (*children, index)] == [False] * 3


async def test_bytes_that_a_pusher_links_meanwhile_stay(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    """A push needs no manifest yet: its link is enough, and eviction has no grace period."""
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    clock.now += DAY
    recorded.before("put", keys.TOMBSTONES, lambda: other.mount(layer, A, HOSTED))
    report = await cache.evict(1)
    assert (report.manifests, report.links) == (1, 1)
    assert await other.read(layer) == b"x" * MIB
    assert not await cache.holds(layer)


async def test_a_transfer_that_ends_meanwhile_keeps_its_blob(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock
) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    clock.now += DAY

    async def stored_elsewhere() -> None:
        await other.mount(layer, A, B)
        await other.image(layer, name=B)

    recorded.before("put", keys.TOMBSTONES, stored_elsewhere)
    await cache.evict(1)
    assert await other.read(layer, B) == b"x" * MIB


@pytest.mark.parametrize("moment", ["while it is deleted", "while the cache is evicted"])
async def test_an_upload_that_ends_again_keeps_the_bytes_that_a_cache_shares(
    cache: Cache, other: Cache, recorded: Recorded, clock: Clock, moment: str
) -> None:
    uploads, layer = other.registry.repository(HOSTED).uploads, digest_of(b"x" * MIB)
    session = await uploads.append(uploads.begin("sha256"), stream(b"x" * MIB), None)
    await uploads.finish(session, layer, stream(), None)
    await other.mount(layer, HOSTED, A)
    await other.image(layer)
    await other.bucket.close()
    clock.now += DAY / 2

    async def again() -> None:
        await uploads.finish(session, layer, stream(), None)

    if moment == "while it is deleted":
        recorded.after("delete", keys.links(HOSTED, layer), again)
    else:
        recorded.after("delete", keys.links(A, layer), again)
    await cache.registry.repository(HOSTED).blobs.delete(layer)
    assert (await cache.evict(1)).links == 1
    clock.now += DAY * 1.5
    for tombstone in await cache.keys(keys.TOMBSTONES):  # as the collector does by then
        await cache.driver.delete(tombstone)
    hosted = await other.image(layer, name=HOSTED)
    await cache.evict(1)
    assert await other.has(hosted, HOSTED)
    assert await other.read(layer) == b"x" * MIB


async def test_a_left_over_derived_key_does_not_keep_bytes(cache: Cache, clock: Clock) -> None:
    layer = await cache.blob(b"x" * MIB)
    await cache.image(layer)
    (held,) = await cache.keys(keys.HOLDERS)
    await cache.driver.put(keys.holder(layer, keys.holding(held)[0], B), b"")
    clock.now += 3 * DAY
    await cache.evict(1)
    assert await cache.keys(keys.DATA) == await cache.keys(keys.HOLDERS) == []


async def test_where_the_store_keeps_no_fences_links_go_and_bytes_stay(cache: Cache, clock: Clock) -> None:
    cache.bucket.capabilities = Capabilities(fences=False)
    await images(cache, clock, 2)
    report = await cache.evict(1)
    assert (report.manifests, report.links) == (2, 2)
    assert len(await cache.keys(keys.DATA)) == 2


async def test_manifests_of_a_repository_are_listed_for_many_blobs_at_once(
    cache: Cache, recorded: Recorded, clock: Clock
) -> None:
    for number in range(16):
        await cache.image(*[await cache.blob(f"{number} {layer}".encode() * 1000) for layer in range(4)])
    clock.now += DAY
    recorded.log.clear()
    report = await cache.evict(1)
    assert report.links == 64
    assert len(recorded.places("list", f"repositories/{A}/_manifests/")) <= 16 + 2
    assert not [key for action, key in recorded.log if action == "get" and "/_manifests/" in key]


class Mortal:
    """A driver whose process is killed before its n-th write."""

    name = "memory"

    def __init__(self, driver: MemoryDriver, writes: float) -> None:
        self._driver = driver
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def _spend(self) -> None:
        if self._left <= 0:
            raise StorageError("killed")
        self._left -= 1

    async def put(self, key: str, data: bytes, **given: Any) -> None:
        self._spend()
        await self._driver.put(key, data, **given)

    async def delete(self, key: str, **given: Any) -> None:
        self._spend()
        await self._driver.delete(key, **given)

    async def delete_many(self, keys: Sequence[str], **given: Any) -> None:
        for key in keys:
            await self.delete(key, **given)


async def crowd(cache: Cache, clock: Clock) -> tuple[Digest, Digest]:
    """A cache with an index, a signature and shared blobs, and a hosted image of the same bytes."""
    base = await cache.blob(b"b" * MIB)
    children = [await cache.image(base, await cache.blob(bytes([number]) * MIB)) for number in range(2)]
    index = await cache.index(*children)
    await cache.image(base, subject={"mediaType": OCI_INDEX, "digest": index, "size": 1})
    await cache.pull(index)
    await cache.mount(base, A, HOSTED)
    return base, await cache.image(base, name=HOSTED)


async def test_killed_before_any_write_the_next_run_finishes_and_hosted_images_never_suffer(clock: Clock) -> None:
    async def left(writes: float) -> tuple[bool, list[str]]:
        """What is left when a run with so many writes was followed by a whole one; whether the first was killed."""
        store = MemoryDriver(clock)
        base, hosted = await crowd(Cache(store, clock), clock)
        clock.now += DAY
        killed = False
        try:
            await Cache(Mortal(store, writes), clock).evict(1)
        except Unavailable:
            killed = True
        after = Cache(store, clock)
        assert await after.has(hosted, HOSTED)
        assert await after.read(base) == b"b" * MIB
        await after.evict(1)
        assert await after.read(base) == b"b" * MIB
        return killed, [key for key in await after.keys(f"repositories/{A}/") if "/_deletions/" not in key]

    whole = (await left(float("inf")))[1]
    assert whole
    assert all("/_tags/" in key for key in whole)
    writes, killed = 0, True
    while killed:
        killed, found = await left(writes)
        assert found == whole, writes
        writes += 1
    assert writes > 15


async def test_a_cache_of_a_hundred_thousand_keys_is_evicted_in_seconds(
    cache: Cache, shelf: MemoryDriver, clock: Clock
) -> None:
    """A timing that fails where a run becomes quadratic: it takes about two seconds of one core."""

    def put(key: str, data: bytes = b"") -> None:
        shelf._shelf.put(key, data, clock())

    for number in range(1_250):
        name, size = Name(f"docker.io/library/r{number:05}"), MIB * (10 if number < 20 else 1)
        for image in range(8):
            layers = [digest_of(f"{number} {image} {layer}".encode()) for layer in range(7)]
            for layer in layers:
                put(keys.link(name, layer, Copy(keys.fresh(), size)))
            data = manifest_of(*layers)
            entry = Entry(digest_of(data), keys.fresh(), OCI_MANIFEST, len(data))
            put(keys.manifest(name, entry), data)
            put(keys.pull(name, entry.digest))
            put(keys.tag(name, Tag(f"t{image}")), b'{"by": null}')
            clock.now += 1
    clock.now += DAY
    begin = time.process_time()
    report = await cache.evict(80_000 * MIB)
    took = time.process_time() - begin
    assert report.before > 80_000 * MIB
    assert 71_900 * MIB < report.after <= 72_000 * MIB
    assert report.manifests < 200
    assert took < 20


@pytest.fixture(params=["filesystem", pytest.param("s3", marks=pytest.mark.minio)])
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    """A store whose clock is the world's."""
    driver: Driver = FilesystemDriver(tmp_path / "store")
    if request.param == "s3":
        server: MinioServer = request.getfixturevalue("minio")
        named = {"bucket": request.getfixturevalue("bucket"), "buffer_bytes": 48 << 20}
        logins = {"access_key": server.access_key, "secret_key": server.secret_key}
        driver = S3Driver(S3Settings.model_validate({"endpoint": server.endpoint, **named, **logins}))
    await driver.start()
    yield driver
    await driver.close()


async def test_on_a_real_store_the_order_is_that_of_the_pulls(real: Driver) -> None:
    cache = Cache(real, lambda: time.time() + DAY)
    first, second = [await cache.image(await cache.blob(bytes([number]) * MIB)) for number in range(2)]
    third = await cache.image(await cache.blob(b"3" * MIB, B), name=B)
    await cache.pull(second)
    await cache.pull(third, B)
    await cache.pull(first)
    layer = digest_of(bytes([1]) * MIB)
    await cache.mount(layer, A, HOSTED)
    await cache.image(layer, name=HOSTED)
    report = await cache.evict(int(2.5 * MIB), pulls=None)
    assert [await cache.has(first), await cache.has(second), await cache.has(third, B)] == [True, False, True]
    assert (report.manifests, report.links) == (1, 1)
    assert await cache.read(layer) == bytes([1]) * MIB
    await cache.evict(1, pulls=None)
    assert [await cache.has(first), await cache.has(third, B)] == [False, False]
    assert [key for key in await cache.keys("repositories/docker.io/") if "/_blobs/" in key] == []
    assert await cache.read(layer) == bytes([1]) * MIB
    await cache.bucket.close()
