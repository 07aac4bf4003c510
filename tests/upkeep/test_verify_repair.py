"""verify --repair: what can be had again comes back, what cannot becomes a 404, and nothing garbled is ever deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUnknown, ManifestUnknown
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Copy, adopted
from app.registry.publishing import bind, intent, linked, tombstoned
from app.upkeep.decay.quarantine import Quarantine
from app.upkeep.decay.sample import Sample
from storage import Unavailable
from storage.memory import MemoryDriver
from tests.upkeep.decaying import DRIVERS, HERE, THERE, Decaying, decaying, driver_of, image_of

LARGE = b"0123456789abcdef" * (10 << 10)
"""160 KiB: large enough to be shared between repositories."""


@pytest.fixture(params=DRIVERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Decaying]:
    async with decaying(driver_of(request.param, request, tmp_path)) as found:
        yield found


@pytest.fixture
async def memory() -> AsyncIterator[Decaying]:
    async with decaying(MemoryDriver()) as found:
        yield found


async def garble(store: Decaying, digest: Digest, name: Name = HERE) -> Copy:
    copy = await store.copy(digest, name)
    await store.flip(keys.data(copy.uuid))
    return copy


async def test_a_garbled_layer_comes_back_from_another_repository(store: Decaying) -> None:
    await store.image(b"layer")
    await store.image(b"layer", name=THERE)
    layer = digest_of(b"layer")
    bad = await garble(store, layer)
    account = await store.repair()
    assert [(finding.kind, finding.name, finding.mended) for finding in store.told] == [
        ("copy-garbled", HERE, f"linked to a copy of {THERE}")
    ]
    assert account.broken == 0
    assert await store.read(layer) == b"layer"
    assert await store.copy(layer) == await store.copy(layer, THERE) != bad
    assert (await store.verify()).found.total() == 0


async def test_garbled_bytes_stay_and_say_why(store: Decaying) -> None:
    layer = await store.push(b"layer")
    bad = await garble(store, layer)
    key = keys.data(bad.uuid)
    garbled = (await store.store.get(key)).data
    account = await store.repair()
    assert account.broken == 1
    assert (await store.store.get(key)).data == garbled
    note = json.loads((await store.store.get(keys.quarantine(bad))).data)
    assert (note["digest"], note["size"], note["repositories"]) == (layer, 5, [HERE])
    assert "hashes to" in note["why"]


async def test_a_layer_that_is_lost_everywhere_is_unknown_from_then_on_and_can_be_pushed_again(store: Decaying) -> None:
    await store.image(LARGE)
    await store.image(LARGE, name=THERE)
    layer = digest_of(LARGE)
    bad = await garble(store, layer)
    assert await store.copy(layer, THERE) == bad
    await store.repair()
    assert store.kinds() == ["copy-garbled", "copy-garbled"]
    for name in (HERE, THERE):
        with pytest.raises(BlobUnknown):
            await store.repository(name).blobs.stat(layer)
    assert await store.contents(keys.holders(layer)) == {}
    await store.push(LARGE)
    await store.repair()
    assert [(finding.kind, finding.name, finding.mended) for finding in store.told] == [
        ("blob-missing", THERE, f"linked to a copy of {HERE}")
    ]
    assert (await store.verify()).broken == 0
    assert await store.read(layer, THERE) == LARGE


async def test_a_copy_that_is_gone_is_no_quarantine(store: Decaying) -> None:
    layer = await store.push(b"layer")
    await store.push(b"layer", THERE)
    gone = await store.copy(layer)
    await store.store.delete(keys.data(gone.uuid))
    await store.repair(sample=Sample(0.0))
    assert [finding.mended for finding in store.told] == [f"linked to a copy of {THERE}"]
    assert await store.read(layer) == b"layer"
    assert await store.contents(keys.QUARANTINE) == {}


async def test_a_second_copy_is_hashed_before_anybody_relies_on_it(store: Decaying) -> None:
    layer = await store.push(b"layer")
    for name in (THERE, Name("third")):
        await store.push(b"layer", name)
    await store.store.delete(keys.data((await store.copy(layer)).uuid))
    await garble(store, layer, THERE)
    await store.repair(sample=Sample(0.0))
    third = await store.copy(layer, Name("third"))
    assert await store.copy(layer) == await store.copy(layer, THERE) == third


async def test_a_second_copy_of_the_same_repository_will_do(memory: Decaying) -> None:
    layer = await memory.push(b"layer")
    bad = await garble(memory, layer)
    await memory.push(b"layer")
    await memory.repair()
    assert [finding.mended for finding in memory.told] == ["another copy is linked there"]
    assert await memory.copy(layer) != bad
    assert await memory.read(layer) == b"layer"


async def test_adopted_bytes_that_are_garbled_are_unlinked_and_never_touched(store: Decaying) -> None:
    layer = digest_of(b"adopted")
    copy = adopted(layer, 7)
    await store.store.put(keys.data(copy.uuid), b"altered")
    await bind(store.bucket, HERE, layer, copy, store.bucket.driver.fence())
    await store.repair()
    assert await linked(store.bucket, HERE, layer) == []
    assert (await store.store.get(keys.data(copy.uuid))).data == b"altered"


async def test_a_copy_in_quarantine_is_hashed_in_every_run_and_released_once_it_is_right(memory: Decaying) -> None:
    """As adopt may link it again, and the old registry may have written it anew."""
    layer = digest_of(b"adopted")
    copy = adopted(layer, 7)
    await memory.store.put(keys.data(copy.uuid), b"altered")
    await bind(memory.bucket, HERE, layer, copy, memory.bucket.driver.fence())
    await memory.repair()
    await bind(memory.bucket, HERE, layer, copy, memory.bucket.driver.fence())
    await memory.verify(sample=Sample(0.0))
    assert memory.kinds() == ["copy-garbled"]
    await memory.store.put(keys.data(copy.uuid), b"adopted")
    await memory.repair(sample=Sample(0.0))
    assert memory.told == []
    assert await memory.contents(keys.QUARANTINE) == {}


async def test_notes_of_what_is_gone_or_right_again_go_and_other_objects_there_stay(memory: Decaying) -> None:
    for data in (b"gone", b"right", b"garbled"):
        copy = await garble(memory, await memory.push(data))
        await memory.repair()
        if data == b"right":
            await memory.store.put(keys.data(copy.uuid), data)
        if data == b"gone":
            await memory.store.delete(keys.data(copy.uuid))
    for name in ("list", "object", "text"):
        await memory.store.put(f"{keys.QUARANTINE}{name}", {"list": b"[]", "object": b"{}", "text": b"mine"}[name])
    await memory.repair()
    assert await memory.contents(keys.QUARANTINE) == {
        f"{keys.QUARANTINE}list": b"[]",
        f"{keys.QUARANTINE}object": b"{}",
        f"{keys.QUARANTINE}text": b"mine",
        keys.quarantine(copy): (await memory.store.get(keys.quarantine(copy))).data,
    }


async def test_where_very_many_copies_are_gone_no_link_goes(memory: Decaying) -> None:
    layers = [await memory.push(f"layer {number}".encode()) for number in range(30)]
    for layer in layers[:25]:
        await memory.store.delete(keys.data((await memory.copy(layer)).uuid))
    await memory.push(b"layer 0", THERE)
    account = await memory.repair()
    assert account.refused is not None
    assert "25 of 31 copies" in account.refused
    assert account.broken == 24
    assert len([layer for layer in layers if await linked(memory.bucket, HERE, layer)]) == 30
    account = await memory.repair(force=True)
    assert account.refused is None
    assert len([layer for layer in layers if await linked(memory.bucket, HERE, layer)]) == 6


async def test_bytes_that_the_store_does_not_give_now_are_unlinked_only_where_others_are(memory: Decaying) -> None:
    only, both = await memory.push(b"only"), await memory.push(b"both")
    await memory.push(b"both", THERE)
    copies = {keys.data((await memory.copy(digest)).uuid) for digest in (only, both)}

    def refuse(action: str, key: str) -> None:
        if action == "open" and key in copies:
            raise Unavailable("the disk")

    memory.store.refuse = refuse
    await memory.repair()
    assert {finding.digest: finding.mended for finding in memory.told} == {
        only: None,
        both: f"linked to a copy of {THERE}",
    }
    assert await memory.read(both) == b"both"
    memory.store.refuse = lambda *_: None
    assert await memory.read(only) == b"only"
    assert await memory.contents(keys.QUARANTINE) == {}


async def test_a_garbled_manifest_is_written_anew_where_it_was(store: Decaying) -> None:
    image = await store.image(b"layer")
    assert await store.image(b"layer", name=THERE) == image
    entry = await store.entry(image)
    right = (await store.store.get(keys.manifest(HERE, entry))).data
    await store.flip(keys.manifest(HERE, entry))
    account = await store.repair()
    assert [finding.mended for finding in store.told] == [f"taken from {THERE}"]
    assert account.broken == 0
    assert (await store.store.get(keys.manifest(HERE, entry))).data == right
    assert (await store.repository().manifests.stat_tag(Tag("v1"))).digest == image


async def test_a_garbled_manifest_that_is_nowhere_else_makes_room_for_a_push(store: Decaying) -> None:
    image = await store.image(b"layer")
    entry = await store.entry(image)
    await store.flip(keys.manifest(HERE, entry))
    garbled = (await store.store.get(keys.manifest(HERE, entry))).data
    account = await store.repair()
    assert account.broken == 1
    assert (await store.store.get(keys.quarantined_manifest(entry))).data == garbled
    with pytest.raises(ManifestUnknown):
        await store.repository().manifests.stat_tag(Tag("v1"))
    assert await store.repository().tags.list(10, None) == ([], False)
    assert (await store.verify()).broken == 0
    assert await store.image(b"layer") == image
    assert (await store.repository().manifests.get_tag(Tag("v1")))[0].digest == image


async def test_a_manifest_that_is_pushed_while_it_is_mended_is_not_overwritten(memory: Decaying) -> None:
    """The mend writes only over the very garbled bytes that it read."""
    image = await memory.image(b"layer")
    await memory.image(b"layer", name=THERE)
    key = keys.manifest(HERE, await memory.entry(image))
    await memory.flip(key)
    inner = memory.store.driver.put

    async def deleted_first(asked: str, data: bytes, **more: object) -> None:
        if asked == key:
            await memory.store.driver.delete(key)
        await inner(asked, data, **more)  # type: ignore[arg-type]

    memory.store.driver.put = deleted_first  # type: ignore[method-assign, assignment]
    account = await memory.repair()
    assert account.broken == 1
    assert key not in await memory.contents()


async def test_a_tag_whose_manifest_is_gone_gets_it_back_under_the_same_key(store: Decaying) -> None:
    image = await store.image(b"layer", subject={"mediaType": OCI_MANIFEST, "digest": digest_of(b"s"), "size": 1})
    same = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"s"), "size": 1}
    assert await store.image(b"layer", name=THERE, subject=same) == image
    entry = await store.entry(image)
    before = await store.contents("repositories/")
    await store.store.delete(keys.manifest(HERE, entry))
    for key in await store.contents(keys.referrers(HERE, digest_of(b"s"))):
        await store.store.delete(key)
    await store.repair()
    assert [(finding.kind, finding.mended) for finding in store.told] == [("tag-dangling", f"taken from {THERE}")]
    assert await store.contents("repositories/") == before


async def test_a_child_and_its_layers_come_back_from_another_repository(store: Decaying) -> None:
    child = await store.image(b"arm", tag="arm")
    await store.image(b"arm", tag="arm", name=THERE)
    index = await store.index(child)
    await store.store.delete(keys.manifest(HERE, await store.entry(child)))
    await store.store.delete(keys.tag(HERE, Tag("arm")))
    await store.store.delete(keys.link(HERE, digest_of(b"arm"), await store.copy(digest_of(b"arm"))))
    account = await store.repair()
    assert [(finding.kind, finding.mended) for finding in store.told if finding.broken] == [
        ("child-missing", f"taken from {THERE}")
    ]
    assert account.broken == 0
    assert (await store.repository().manifests.get(child))[0].digest == child
    assert await store.read(digest_of(b"arm")) == b"arm"
    assert index


async def test_derived_keys_are_written_and_the_second_run_has_nothing_to_do(store: Decaying) -> None:
    image = await store.image(b"layer")
    subject = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
    await store.image(b"signature", tag="sig", subject=subject)
    before = await store.contents()
    for prefix in (keys.CATALOG, keys.HOLDERS, keys.referrers(HERE, image)):
        for key in await store.contents(prefix):
            await store.store.delete(key)
    account = await store.repair()
    assert account.broken == 0
    assert account.mended == {"catalog-missing": 1, "holder-missing": 2, "referrer-missing": 1}
    assert await store.contents() == before
    store.store.asked.clear()
    await store.repair()
    assert store.writes() == []


async def test_a_mount_that_found_the_copy_before_does_not_bring_it_back(memory: Decaying) -> None:
    """Its link comes after ours was taken away: its intent says that it may."""
    layer = await memory.push(b"layer")
    bad = await garble(memory, layer)
    fence = memory.bucket.driver.fence()
    ended = asyncio.Event()

    async def mount() -> None:
        async with intent(memory.bucket, [bad]):
            ended.set()
            while await linked(memory.bucket, HERE, layer):
                await asyncio.sleep(0)
            await bind(memory.bucket, THERE, layer, bad, fence)

    mounting = asyncio.create_task(mount())
    await ended.wait()
    await memory.repair()
    await mounting
    assert await linked(memory.bucket, THERE, layer) == []
    assert await tombstoned(memory.bucket, [bad], [THERE]) == {bad}


async def test_a_publication_that_hangs_is_said_to_be_waited_for_in_vain(
    memory: Decaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upkeep.decay.quarantine._PAUSE", 0)
    layer = await memory.push(b"layer")
    copy = await memory.copy(layer)
    async with intent(memory.bucket, [copy]):
        assert not await Quarantine(memory.bucket).take(layer, copy, [HERE], "garbled", "why")
    await memory.bucket.close()
    assert await Quarantine(memory.bucket).take(layer, copy, [HERE], "garbled", "why")


async def test_a_repair_that_is_killed_at_any_request_is_finished_by_the_next(tmp_path: Path) -> None:
    """However far it came, no repository that had a whole copy in reach ends without one."""
    for at in range(1, 60):
        async with decaying(MemoryDriver()) as store:
            layer = await store.push(b"layer")
            await store.push(b"layer", THERE)
            await garble(store, layer)
            writes = 0

            def kill(action: str, key: str, at: int = at) -> None:
                nonlocal writes
                writes += action in ("put", "delete", "copy")
                if writes == at:
                    raise asyncio.CancelledError

            store.store.refuse = kill
            try:
                await store.repair()
            except asyncio.CancelledError:
                ended = False
            else:
                ended = True
            store.store.refuse = lambda *_: None
            await store.repair()
            assert await store.read(layer) == b"layer"
            assert (await store.verify()).broken == 0
            if ended:
                assert at > 5
                return
    pytest.fail("it never ended by itself")


async def test_two_repairs_at_once_end_as_one_does(memory: Decaying) -> None:
    await memory.image(b"layer")
    await memory.image(b"layer", name=THERE)
    await garble(memory, digest_of(b"layer"))
    async with decaying(memory.store.driver) as other:
        await asyncio.gather(memory.repair(), other.repair())
    assert await memory.read(digest_of(b"layer")) == b"layer"
    assert (await memory.verify()).found.total() == 0


async def test_an_image_that_lacks_a_layer_takes_it_from_a_garbled_copy_never(memory: Decaying) -> None:
    layer = digest_of(b"layer")
    await memory.push(b"layer", THERE)
    await memory.push(b"layer")
    await memory.publish(image_of(layer), HERE, "v1")
    await memory.store.delete(keys.link(HERE, layer, await memory.copy(layer)))
    await garble(memory, layer, THERE)
    await memory.repair(repository=str(HERE))
    assert [(finding.kind, finding.mended) for finding in memory.told] == [("blob-missing", None)]
