"""A collection takes what nobody needs, and nothing else; whoever pushes meanwhile loses nothing."""

import asyncio
import json
import time

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUnknown
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Entry
from app.registry.publishing import bind, intent, linked
from app.upkeep.garbage import garbage, reports
from storage import Capabilities, Page
from storage.memory import MemoryDriver
from tests.registry.conftest import stream
from tests.registry.recorded import Clock, Recorded
from tests.upkeep.conftest import Pass
from tests.upkeep.yard import AWAY, DAY, HERE, HOUR, THERE, Killed, Mortal, Rotten, Yard, yard

GRACE = 49 * HOUR
"""Two days, and the fences around them."""
TOMBSTONES, INTENTS = keys.TOMBSTONES, keys.INTENTS
AGED = {"intents", "leases"}
"""What goes by its age alone of a crowd."""


async def test_what_a_deleted_image_alone_needed_goes_on_every_store(anywhere: Yard) -> None:
    base, own = b"base" * 50_000, b"own" * 50_000
    stays = await anywhere.image(base, tag="stays")
    goes = await anywhere.image(base, own, tag="goes")
    await anywhere.image(b"mounted", name=THERE)
    await anywhere.mount(digest_of(b"mounted"), THERE, HERE)
    other = await anywhere.publish(digest_of(b"mounted"), name=HERE)
    uuid = await anywhere.bytes_without_a_link(b"half an upload")
    await anywhere.repository().manifests.delete(goes)
    await anywhere.pass_(GRACE)
    report = await anywhere.collect()
    assert (report.state, report.reason) == ("done", "")
    assert {kind: (gone.count, gone.bytes) for kind, gone in report.gone.items()} == {"copies": (1, len(own))}
    assert (report.suspects.count, report.suspects.bytes) == (1, 14)
    with pytest.raises(BlobUnknown):
        await anywhere.repository().blobs.stat(digest_of(own))
    assert await anywhere.read(digest_of(base)) == base
    assert [(await anywhere.repository().manifests.get(digest))[0].digest for digest in (stays, other)]
    assert await anywhere.keys(keys.holders(digest_of(own))) == []
    assert len(await anywhere.keys(keys.DATA)) == 3
    await anywhere.pass_(GRACE)
    report = await anywhere.collect()
    assert {kind: gone.count for kind, gone in report.gone.items()} == {"orphans": 1, "tombstones": 1}
    assert keys.data(uuid) not in await anywhere.keys(keys.DATA)
    assert await anywhere.read(digest_of(b"mounted")) == await anywhere.read(digest_of(b"mounted"), THERE) == b"mounted"
    assert anywhere.alarms == []


async def test_every_kind_of_garbage_goes_on_every_store_whoever_collects_beside(anywhere: Yard) -> None:
    await _crowd(anywhere)
    async with yard(anywhere.driver, anywhere.pass_) as other:
        first, second = await asyncio.gather(anywhere.collect(), other.collect())
        assert [first.state, second.state] == ["done", "done"]
        assert {"copies", "orphans", "uploads", "intents", "holders", "referrers", "leases"} <= {
            *first.gone,
            *second.gone,
        }
        await _demand_needed(anywhere)
        await anywhere.pass_(GRACE)
        await other.collect()
        await _demand_needed(other)
    left = {_kind(key) for key in await anywhere.keys() if not key.startswith("upkeep/keys/")}
    assert left == {"blobs", "catalog", "data", "repositories", "upkeep/reports"}
    assert (len(await anywhere.keys(keys.DATA)), len(await anywhere.keys(keys.HOLDERS))) == (2, 3)
    assert [key for key in await anywhere.keys("repositories/") if "/_referrers/" in key] == []


async def test_a_layer_without_a_manifest_stays_for_the_grace_period(here: Yard) -> None:
    layer = await here.push(b"layer")
    await here.pass_(47 * HOUR)
    assert (await here.collect()).gone == {}
    assert await here.read(layer) == b"layer"
    await here.pass_(2 * HOUR)
    assert (await here.collect()).gone["copies"].count == 1
    assert await here.keys("repositories/") == await here.keys(keys.DATA) == await here.keys(keys.HOLDERS) == []


async def test_a_fresh_link_anywhere_keeps_a_copy(here: Yard) -> None:
    layer = await here.push(b"layer")
    await here.pass_(GRACE)
    await here.mount(layer, HERE, THERE)
    assert (await here.collect()).gone == {}
    assert await here.read(layer) == await here.read(layer, THERE) == b"layer"


async def test_what_any_string_of_any_manifest_names_stays(here: Yard) -> None:
    hidden, child = await here.push(b"hidden"), await here.push(b"child")
    await here.publish(annotations={"note": f"see {hidden} for more"})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "x": [{"y": child}]}).encode()
    await here.repository().manifests.put(index, OCI_INDEX, digest=None, tagged=(), by=None)
    await here.pass_(GRACE)
    assert (await here.collect()).gone == {}
    assert (await here.read(hidden), await here.read(child)) == (b"hidden", b"child")


async def test_a_manifest_elsewhere_keeps_nothing_here_but_the_copy_it_shares(here: Yard) -> None:
    shared = await here.push(b"s" * 200_000)
    alone = await here.push(b"alone")
    await here.push(b"alone", THERE)  # small blobs have copies of their own
    await here.mount(shared, HERE, THERE)
    await here.publish(shared, alone, name=THERE)
    await here.pass_(GRACE)
    report = await here.collect()
    assert report.gone["copies"].count == 1
    assert report.loose_links == 1
    assert await here.read(shared) == await here.read(shared, THERE) == b"s" * 200_000
    assert await here.read(alone, THERE) == b"alone"
    with pytest.raises(BlobUnknown):
        await here.read(alone)


async def test_tags_catalog_keys_pins_and_signing_keys_are_never_touched(here: Yard) -> None:
    digest = await here.image(b"layer")
    await here.repository().manifests.delete(digest)  # its tag dangles
    pin = f"{keys.PINS}pin"
    await here.driver.put(pin, b"{}")
    await here.pass_(400 * DAY)
    await here.collect()
    await here.pass_(400 * DAY)
    await here.collect()
    left = set(await here.keys())
    assert {keys.tag(HERE, Tag("v1")), keys.catalog(HERE), pin, *await here.keys(keys.SIGNING_KEYS)} <= left
    assert len(await here.keys(keys.SIGNING_KEYS)) == 1
    assert await here.keys(keys.DATA) == []


async def test_bytes_without_a_link_go_when_they_were_suspected_a_grace_period_before(here: Yard) -> None:
    await here.image(b"layer")
    await here.pass_(300 * DAY)
    uuid = await here.bytes_without_a_link(b"orphan")
    await here.pass_(HOUR)
    assert (await here.collect()).suspects.count == 1
    await here.pass_(47 * HOUR)
    assert (await here.collect()).gone == {}
    assert keys.data(uuid) in await here.keys(keys.DATA)
    await here.pass_(HOUR)
    report = await here.collect()
    assert (report.gone["orphans"].count, report.gone["orphans"].bytes, report.suspects.count) == (1, 6, 0)
    assert keys.data(uuid) not in await here.keys(keys.DATA)
    assert await here.read(digest_of(b"layer")) == b"layer"


async def test_bytes_in_quarantine_stay_until_their_note_goes(here: Yard) -> None:
    uuid = await here.bytes_without_a_link(b"garbled")
    note = keys.quarantine(keys.Copy(uuid, 7))
    await here.driver.put(note, b"{}")
    for _ in range(3):
        await here.pass_(GRACE)
        assert "orphans" not in (await here.collect()).gone
    await here.driver.delete(note)
    for _ in range(2):
        await here.pass_(GRACE)
        await here.collect()
    assert await here.keys(keys.DATA) == []


async def test_bytes_that_look_old_but_are_new_are_never_taken_for_orphans_at_once(here: Yard, clock: Clock) -> None:
    """AWS dates a multipart object by the start of its upload."""
    clock.now -= 300 * DAY
    await here.bytes_without_a_link(b"dated long ago")
    clock.now += 300 * DAY
    assert (await here.collect()).gone == {}
    assert len(await here.keys(keys.DATA)) == 1


async def test_bytes_that_were_linked_since_they_were_suspected_stay(here: Yard) -> None:
    uuid = await here.bytes_without_a_link(b"late")
    await here.pass_(HOUR)
    assert (await here.collect()).suspects.count == 1
    digest = digest_of(b"late")
    await bind(here.bucket, HERE, digest, keys.Copy(uuid, 4), here.bucket.driver.fence())
    await here.publish(digest)
    await here.pass_(GRACE)
    assert (await here.collect()).gone == {}
    assert await here.read(digest) == b"late"


async def test_a_mount_while_its_source_goes_saves_bytes_that_two_surveys_missed(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    """The tombstone is there before the listing: who mounts later uses other bytes, who mounted before is seen."""
    layer = await here.push(b"l" * 200_000, AWAY)
    (copy,) = await linked(here.bucket, AWAY, layer)
    await here.driver.put(keys.report("unlinked", time.time()), f"{copy.uuid}\n".encode())
    await here.pass_(GRACE)

    async def move() -> None:  # from a place that is listed later to one that was listed before
        mounted = await other.repository(HERE).blobs.mount(layer, AWAY, lambda _: True)
        assert mounted is None
        await other.repository(AWAY).blobs.delete(layer)
        assert await other.push(b"l" * 200_000, HERE) == layer
        await other.publish(layer, name=HERE)

    recorded.before("list", keys.REPOSITORIES, move)
    await here.collect()
    assert await other.read(layer, HERE) == b"l" * 200_000


async def test_an_upload_that_was_given_up_goes_with_its_parts_on_every_store(anywhere: Yard) -> None:
    uploads = anywhere.repository().uploads
    old = await uploads.append(uploads.begin("sha256"), stream(b"o" * (9 << 20)), 0)
    await anywhere.pass_(20 * HOUR)
    young = await uploads.append(uploads.begin("sha256"), stream(b"y" * (9 << 20)), 0)
    await anywhere.pass_(HOUR)
    report = await anywhere.collect()
    assert report.gone["uploads"].count == 1
    assert await anywhere.keys(keys.upload(old.id)) == []
    finished = await uploads.finish(young, digest_of(b"y" * (9 << 20)), stream(), None)
    assert await anywhere.read(finished.digest) == b"y" * (9 << 20)


async def test_what_upkeep_leaves_of_itself_goes_when_its_life_ends(here: Yard) -> None:
    copy = keys.Copy(keys.fresh(), 1)
    tombstone, live = keys.tombstone(copy, keys.EVERYWHERE), keys.tombstone(copy, keys.EVERYWHERE)
    dead = [tombstone, await here.dead_intent(copy.uuid), f"{keys.LEASES}dead", f"{keys.PROBES}0/a"]
    for key in dead:
        await here.driver.put(key, b'{"copies": []}')
    await here.pass_(GRACE)
    alive = [live, await here.dead_intent(copy.uuid), f"{keys.LEASES}alive"]
    for key in alive:
        await here.driver.put(key, b'{"copies": []}')
    await here.pass_(0.9 * HOUR)
    report = await here.collect()
    assert {kind: gone.count for kind, gone in report.gone.items()} == dict.fromkeys(
        ("tombstones", "intents", "leases", "probes"), 1
    )
    left = await here.keys("upkeep/")
    assert not set(dead) & set(left)
    assert set(alive) <= set(left)


async def test_derived_keys_that_a_broken_delete_left_go_and_those_with_a_link_stay(here: Yard) -> None:
    layer = await here.push(b"layer")
    await here.publish(layer)
    (copy,) = await linked(here.bucket, HERE, layer)
    loose, subject = keys.holder(layer, copy, THERE), digest_of(b"subject")
    referrer = keys.referrer(HERE, subject, digest_of(b"never published"), keys.fresh())
    signature = await here.publish(subject={"mediaType": OCI_MANIFEST, "digest": subject, "size": 1})
    for key in (loose, referrer):
        await here.driver.put(key, b"{}")
    await here.pass_(GRACE)
    fresh = keys.holder(layer, copy, AWAY)
    await here.driver.put(fresh, b"")
    report = await here.collect()
    assert {kind: gone.count for kind, gone in report.gone.items()} == {"holders": 1, "referrers": 1}
    assert await here.keys(keys.HOLDERS) == sorted([keys.holder(layer, copy, HERE), fresh])
    page = await here.repository().referrers.list(subject, None, None)
    assert [one["digest"] for one in page.descriptors] == [signature]


async def test_a_mount_over_a_left_over_derived_key_keeps_it(here: Yard, other: Yard, recorded: Recorded) -> None:
    layer = await here.push(b"l" * 200_000)
    await here.publish(layer)
    (copy,) = await linked(here.bucket, HERE, layer)
    await here.driver.put(keys.holder(layer, copy, THERE), b"")
    await here.pass_(GRACE)
    recorded.before("put", TOMBSTONES, lambda: other.mount(layer, HERE, THERE))
    await here.collect()
    assert keys.holder(layer, copy, THERE) in await here.keys(keys.HOLDERS)
    assert await here.read(layer, THERE) == b"l" * 200_000


async def test_adopted_bytes_lose_their_links_and_stay(here: Yard) -> None:
    digest = digest_of(b"theirs")
    copy = keys.adopted(digest, 6)
    await here.driver.put(keys.data(copy.uuid), b"theirs")
    await bind(here.bucket, HERE, digest, copy, here.bucket.driver.fence())
    await here.publish(digest)
    await here.pass_(GRACE)
    assert (await here.collect()).gone == {}
    (manifest,) = await here.keys(keys.manifests(HERE))
    await here.driver.delete(manifest)
    report = await here.collect()
    assert (report.gone["copies"].count, report.gone["copies"].bytes) == (1, 0)
    assert await here.keys(keys.links(HERE, digest)) == await here.keys(keys.HOLDERS) == []
    for _ in range(2):
        await here.pass_(GRACE)
        await here.collect()
    assert (await here.driver.get(keys.data(copy.uuid))).data == b"theirs"


async def test_a_push_between_the_looks_keeps_what_it_names(here: Yard, other: Yard, recorded: Recorded) -> None:
    layer = await here.push(b"layer")
    await here.pass_(GRACE)
    recorded.before("put", TOMBSTONES, lambda: _published(other, layer))
    report = await here.collect()
    assert (report.gone, report.kept) == ({}, {"needed": 1})
    assert await other.read(layer) == b"layer"


async def test_a_push_that_runs_between_the_looks_keeps_what_it_names(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    layer = await here.push(b"layer")
    copies = await linked(here.bucket, HERE, layer)
    await here.pass_(GRACE)
    running = intent(other.bucket, copies)

    async def begin() -> None:
        await running.__aenter__()

    recorded.before("put", TOMBSTONES, begin)
    report = await here.collect()
    await running.__aexit__(None, None, None)
    assert (report.gone, report.kept) == ({}, {"intended": 1})


async def test_a_mount_into_a_repository_unknown_to_the_survey_keeps_the_copy(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    layer = await here.push(b"l" * 200_000)
    await here.pass_(GRACE)

    async def mount() -> None:
        await other.mount(layer, HERE, AWAY)
        await other.publish(layer, name=AWAY)

    recorded.before("put", TOMBSTONES, mount)
    report = await here.collect()
    assert (report.gone, report.kept) == ({}, {"fresh": 1})
    await here.pass_(GRACE)
    assert "copies" not in (await here.collect()).gone
    assert await other.read(layer, AWAY) == b"l" * 200_000


async def test_an_old_copy_mounted_between_the_looks_is_needed_by_manifests_that_were_there_before(
    here: Yard, other: Yard, recorded: Recorded, clock: Clock
) -> None:
    """The repository names the digest already, by another copy: only a look at who links this one tells."""
    layer = await here.push(b"l" * 200_000)
    (copy,) = await linked(here.bucket, HERE, layer)
    await here.pass_(GRACE)

    async def mount() -> None:
        await other.publish(name=AWAY, annotations={"x": layer})
        before, clock.now = clock.now, clock.now - 2 * GRACE  # old links too are seen
        await bind(other.bucket, AWAY, layer, copy, other.bucket.driver.fence())
        clock.now = before

    recorded.before("put", TOMBSTONES, mount)
    report = await here.collect()
    assert (report.gone, report.kept) == ({}, {"needed": 1})


@pytest.mark.parametrize("moment", [keys.links(HERE, digest_of(b"l" * 200_000)), keys.HOLDERS, keys.DATA])
async def test_a_push_while_its_layer_goes_is_whole_or_told_to_send_it(
    here: Yard, other: Yard, recorded: Recorded, moment: str
) -> None:
    layer = await here.push(b"l" * 200_000)
    await here.pass_(GRACE)

    async def push() -> None:
        if await other.repository(THERE).blobs.mount(layer, HERE, lambda _: True) is None:
            await other.push(b"l" * 200_000, THERE)
        await other.publish(layer, name=THERE)

    recorded.before("delete", moment, push)
    report = await here.collect()
    assert report.gone["copies"].count == 1
    assert await other.read(layer, THERE) == b"l" * 200_000
    await here.pass_(GRACE)
    await here.collect()
    assert await other.read(layer, THERE) == b"l" * 200_000


async def test_killed_before_any_write_the_next_collections_finish_and_nothing_needed_suffers(
    clock: Clock, pass_: Pass
) -> None:
    async def left(writes: float) -> tuple[bool, list[str]]:
        """What is left when a collection with so many writes was followed by whole ones; whether it was killed."""
        store = MemoryDriver(clock)
        async with yard(store, pass_) as begin:
            await _crowd(begin)
        killed = False
        async with yard(Mortal(store, writes + 1), pass_) as mortal:  # the first write is its signing key's, or none
            try:
                await mortal.collect()
            except Killed:
                killed = True
        async with yard(store, pass_) as after:
            await _demand_needed(after)
            for _ in range(3):  # a derived key goes, and its bytes are suspect; they go; their tombstones go
                await pass_(GRACE)
                await after.collect()
            await _demand_needed(after)
            return killed, sorted(kind for kind in map(_kind, await after.keys()) if kind != "upkeep/reports")

    whole = (await left(float("inf")))[1]
    writes, killed = 0, True
    while killed:
        killed, found = await left(writes)
        assert found == whole, writes
        writes += 1
    assert writes > 15


async def test_two_collections_at_once_lose_nothing_and_leave_nothing(here: Yard, other: Yard) -> None:
    await _crowd(here)
    found = await asyncio.gather(here.collect(), other.collect(), here.collect())
    assert [report.state for report in found] == ["done"] * 3
    await _demand_needed(here)
    for _ in range(2):
        await here.pass_(GRACE)
        await asyncio.gather(here.collect(), other.collect())
    await _demand_needed(here)
    assert len(await here.keys(keys.DATA)) == 2


async def test_a_second_collection_inside_the_first_does_no_harm(here: Yard, other: Yard, recorded: Recorded) -> None:
    await _crowd(here)

    async def second() -> None:
        await other.collect()

    recorded.before("delete", keys.DATA, second)
    await here.collect()
    await _demand_needed(here)


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"a": 1', b""])
async def test_a_manifest_that_cannot_be_understood_stops_it_and_is_named(here: Yard, body: bytes) -> None:
    await _crowd(here)
    entry = Entry(digest_of(body), keys.fresh(), "application/x", len(body))
    await here.driver.put(keys.manifest(AWAY, entry), body)
    before = await here.content()
    report = await here.collect()
    assert (report.state, report.unreadable) == ("stopped", [f"{AWAY}@{entry.digest}"])
    assert str(entry.digest) in report.reason
    assert report.gone.keys() == AGED
    assert _lasting(before) <= _lasting(await here.content())


async def test_a_manifest_that_does_not_hash_to_its_digest_stops_it(shelf: MemoryDriver, pass_: Pass) -> None:
    rotten = Rotten(shelf)
    async with yard(rotten, pass_) as here:
        await _crowd(here)
        key = (await here.keys(keys.manifests(HERE)))[0]
        rotten.instead[key] = b'{"schemaVersion": 2}'
        before = await here.content()
        async with yard(rotten, pass_) as fresh:  # which remembers nothing
            report = await fresh.collect()
        assert report.state == "stopped"
        assert len(report.unreadable) == 1
        assert _lasting(before) <= _lasting(await here.content())


async def test_a_manifest_that_comes_during_it_and_cannot_be_understood_stops_it(
    here: Yard, other: Yard, recorded: Recorded
) -> None:
    layer = await here.push(b"layer")
    await here.pass_(GRACE)

    async def put() -> None:
        entry = Entry(digest_of(b"garbled"), keys.fresh(), "application/x", 7)
        await other.driver.put(keys.manifest(HERE, entry), b"garbled")

    recorded.before("put", TOMBSTONES, put)
    report = await here.collect()
    assert (report.state, report.unreadable) == ("stopped", [f"{HERE}@{digest_of(b'garbled')}"])
    assert await here.read(layer) == b"layer"


async def test_a_listing_that_is_cut_short_ends_it_with_nothing_deleted(
    here: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _crowd(here)
    honest = here.driver.list

    async def short(prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        page = await honest(prefix, after=after, limit=limit)
        return Page([], more=True) if prefix == keys.REPOSITORIES else page

    before = await here.content()
    monkeypatch.setattr(here.driver, "list", short)
    report = await here.collect()
    monkeypatch.undo()
    assert (report.state, report.gone.keys()) == ("failed", AGED)
    assert _lasting(before) <= _lasting(await here.content())


async def test_where_the_store_keeps_no_fences_nothing_is_collected(shelf: MemoryDriver, pass_: Pass) -> None:
    async with yard(shelf, pass_, capabilities=Capabilities(fences=False)) as here:
        await _crowd(here)
        before = await here.content()
        report = await here.collect()
        assert report.state == "stopped"
        assert "it is off" in report.reason
        assert await here.content() == before


@pytest.mark.parametrize("hours", [-5, 5])
async def test_the_clock_of_the_process_does_not_matter(
    here: Yard, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    layer, honest = await here.push(b"layer"), time.time
    copies = await linked(here.bucket, HERE, layer)
    await here.pass_(GRACE)
    await here.dead_intent(copies[0].uuid)
    monkeypatch.setattr(time, "time", lambda: honest() + hours * HOUR)
    await here.pass_(0.5 * HOUR)
    report = await here.collect()
    assert (report.gone, report.kept) == ({}, {"intended": 1})
    await here.pass_(0.6 * HOUR)
    assert (await here.collect()).gone["copies"].count == 1


async def test_a_dry_run_says_what_would_go_and_changes_nothing(here: Yard) -> None:
    await _crowd(here)
    await here.collect(dry_run=True)
    before = {key: (await here.driver.stat(key)).version for key in await here.keys()}
    would = await here.collect(dry_run=True)
    assert {key: (await here.driver.stat(key)).version for key in await here.keys()} == before
    done = await here.collect()
    assert {kind: (gone.count, gone.bytes) for kind, gone in would.gone.items()} == {
        kind: (gone.count, gone.bytes) for kind, gone in done.gone.items()
    }
    assert {"copies", "intents", "uploads", "holders", "referrers"} <= set(would.gone)


async def test_the_report_says_what_went_and_why_and_the_last_twenty_are_kept(here: Yard) -> None:
    await here.image(b"stays")
    layer = await here.push(b"goes away")
    await here.pass_(GRACE)
    await here.collect()
    found = await reports.last(here.bucket)
    assert found is not None
    assert (found["state"], found["freed"], found["blobs"], found["bytes"]) == ("done", 9, 2, 14)
    why = "no manifest of a repository that links it needs it"
    assert found["items"] == [{"what": layer, "why": why, "bytes": 9}]
    for _ in range(25):
        await here.pass_(60)
        await here.collect()
    assert len(await here.keys(keys.reports("gc"))) == 20
    found = await reports.last(here.bucket)
    assert found is not None
    assert found["freed"] == 0


async def test_it_stops_when_more_than_the_share_would_go_unless_that_is_allowed(
    here: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.image(b"s" * 1000)
    await here.push(b"g" * 1001)
    await here.pass_(GRACE)
    before = await here.content()
    monkeypatch.setattr(garbage, "FLOOR", 1000)
    report = await here.collect(0.5)
    assert (report.state, report.wanted) == ("stopped", 1001)
    assert "1.0 kB would go, more than 50% of 2.0 kB" in report.reason
    assert await here.content() == before
    monkeypatch.setattr(garbage, "FLOOR", 1001)
    assert (await here.collect(0.5)).state == "done"


async def test_everything_may_go_where_that_is_allowed(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "FLOOR", 0)
    await here.push(b"g" * 1001)
    await here.pass_(GRACE)
    assert (await here.collect(1.0)).gone["copies"].bytes == 1001


async def test_a_batch_that_slept_past_its_fence_deletes_nothing_and_a_smaller_one_follows(
    here: Yard, recorded: Recorded
) -> None:
    for number in range(40):
        await here.push(b"%d" % number)
    await here.pass_(GRACE)

    async def sleep() -> None:
        await here.pass_(HOUR)
        assert len(await here.keys(keys.DATA)) == 40

    recorded.before("delete", "/_blobs/", sleep)
    report = await here.collect()
    assert (report.state, report.gone["copies"].count) == ("done", 40)
    assert await here.keys(keys.DATA) == []


async def test_a_store_that_is_always_too_slow_ends_it(here: Yard, recorded: Recorded) -> None:
    await here.push(b"layer")
    await here.pass_(GRACE)

    async def sleep() -> None:
        recorded.before("delete", "/_blobs/", sleep)
        await here.pass_(HOUR)

    recorded.before("delete", "/_blobs/", sleep)
    report = await here.collect()
    assert report.state == "failed"
    assert "too slow" in report.reason


async def test_a_copy_of_two_digests_stays(here: Yard) -> None:
    """None is made any more: a collector finds the links of a copy by its digest."""
    layer = await here.push(b"layer")
    (copy,) = await linked(here.bucket, HERE, layer)
    await bind(here.bucket, THERE, digest_of(b"layer", "sha512"), copy, here.bucket.driver.fence())
    await here.pass_(GRACE)
    assert (await here.collect()).gone == {}
    assert await here.read(layer) == b"layer"


async def test_many_blobs_of_many_repositories_go_page_by_page(here: Yard) -> None:
    needed: list[tuple[Digest, str]] = []
    for number in range(30):
        name = keys.Name(f"r{number % 7}/x")
        layers = [await here.push(f"{number} {layer}".encode(), name) for layer in range(50)]
        await here.publish(*layers[::2], name=name)
        needed += [(digest, name) for digest in layers[::2]]
    await here.pass_(GRACE)
    report = await here.collect()
    assert report.gone["copies"].count == 30 * 25
    assert len(report.items) == 750
    assert len(await here.keys(keys.DATA)) == 750
    for digest, name in needed:
        assert await here.repository(keys.Name(name)).blobs.stat(digest)


async def _published(at: Yard, layer: Digest) -> None:
    await at.publish(layer)


async def _crowd(at: Yard) -> None:
    """Some of everything: an image that stays, one whose manifest went, and all kinds of leftovers."""
    await at.image(b"base" * 50_000, b"own")
    gone = await at.publish(await at.push(b"base" * 50_000, THERE), await at.push(b"gone", THERE), name=THERE)
    await at.repository(THERE).manifests.delete(gone)
    await at.bytes_without_a_link(b"orphan")
    uploads = at.repository().uploads
    await uploads.append(uploads.begin("sha256"), stream(b"abandoned"), 0)
    layer = digest_of(b"own")
    (copy,) = await linked(at.bucket, HERE, layer)
    await at.dead_intent(copy.uuid)
    await at.driver.put(keys.holder(layer, copy, AWAY), b"")
    await at.driver.put(keys.referrer(HERE, layer, digest_of(b"nothing"), keys.fresh()), b"{}")
    await at.driver.put(f"{keys.LEASES}dead", b"{}")
    await at.bucket.close()
    await at.pass_(0.5 * HOUR)
    await at.collect()  # suspects the orphan
    await at.pass_(GRACE)


async def _demand_needed(at: Yard) -> None:
    assert await at.read(digest_of(b"own")) == b"own"
    assert await at.read(digest_of(b"base" * 50_000)) == b"base" * 50_000
    assert (await at.repository().manifests.stat_tag(Tag("v1"))).digest


def _lasting(content: dict[str, int]) -> set[str]:
    """Without what goes by its age alone, also in a collection that is stopped."""
    return {key for key in content if not key.startswith((keys.INTENTS, keys.LEASES))}


def _kind(key: str) -> str:
    return "/".join(key.split("/")[: 2 if key.startswith("upkeep/") else 1])
