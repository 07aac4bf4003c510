"""verify finds what is wrong with a store, says nothing of what is right, and writes nothing."""

import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import minio as sdk
import pytest

from app.oci.digests import Digest, digest_of
from app.oci.manifests import MAX_BYTES, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Copy, Entry, adopted
from app.registry.publishing import bind
from app.upkeep.decay.findings import KINDS
from app.upkeep.decay.sample import Sample
from storage import Unavailable
from tests.services.minio import MinioServer
from tests.upkeep.decaying import DRIVERS, HERE, THERE, Decaying, decaying, driver_of, image_of

LARGE = b"0123456789abcdef" * (10 << 10)
"""160 KiB: large enough to be shared between repositories."""


@pytest.fixture(params=DRIVERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Decaying]:
    async with decaying(driver_of(request.param, request, tmp_path)) as found:
        yield found


@pytest.fixture
async def memory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Decaying]:
    async with decaying(driver_of("memory", request, tmp_path)) as found:
        yield found


async def filled(store: Decaying) -> Digest:
    """A bit of everything that clients do; returns a signed image."""
    image = await store.image(b"layer", LARGE)
    other = await store.image(b"layer", LARGE, name=THERE)
    subject = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
    await store.image(b"signature", tag="sig", subject=subject, artifactType="application/y")
    await store.index(image, await store.image(b"arm", tag="arm"))
    gone = await store.image(b"gone", name=Name("team/gone"))
    await store.repository(Name("team/gone")).manifests.delete(gone)
    await store.store.put(keys.tag(HERE, Tag("emptied")), b"")
    assert other == image
    return image


async def test_a_sound_store_has_no_findings_and_is_not_written_to(store: Decaying) -> None:
    await filled(store)
    before = await store.contents()
    store.store.asked.clear()
    account = await store.verify()
    assert (store.told, account.broken, account.document()["sound"]) == ([], 0, True)
    assert store.writes() == []
    assert await store.contents() == before
    assert account.checked["repositories"] == 3
    assert account.checked["tags"] == 6  # the emptied one is none; team/gone's dangles as it should
    assert account.checked["hashed"] == account.checked["copies"]
    assert account.checked["bytes"] == sum(len(data) for key, data in before.items() if key.startswith(keys.DATA))


async def test_a_copy_is_hashed_once_however_many_link_it(store: Decaying) -> None:
    layer = await store.push(LARGE)
    for number in range(5):
        await store.push(LARGE, Name(f"sharing/{number}"))
    store.store.asked.clear()
    account = await store.verify()
    copy = await store.copy(layer)
    assert (account.checked["links"], account.checked["hashed"]) == (6, 1)
    assert store.store.asked.count(("open", keys.data(copy.uuid))) == 1


async def test_a_flipped_bit_is_found_at_every_link(store: Decaying) -> None:
    layer = await store.push(LARGE)
    await store.push(LARGE, THERE)
    key = keys.data((await store.copy(layer)).uuid)
    await store.flip(key)
    account = await store.verify()
    assert store.kinds() == ["copy-garbled", "copy-garbled"]
    assert {finding.name for finding in store.told} == {HERE, THERE}
    assert all(key in finding.why and finding.digest == layer for finding in store.told)
    assert account.broken == 2


async def test_sizes_are_compared_though_nothing_is_hashed(store: Decaying) -> None:
    short, gone = await store.push(b"truncated"), await store.push(b"deleted")
    await store.store.put(keys.data((await store.copy(short)).uuid), b"trunc")
    await store.store.delete(keys.data((await store.copy(gone)).uuid))
    account = await store.verify(sample=Sample(0.0))
    found = {finding.kind: finding for finding in store.told}
    assert found.keys() == {"copy-garbled", "copy-gone"}
    assert "5 bytes, not 9" in found["copy-garbled"].why
    assert found["copy-gone"].digest == gone
    assert account.checked["hashed"] == 0


async def test_a_flipped_bit_outside_the_sample_is_found_by_the_runs_that_follow(memory: Decaying) -> None:
    layers = [await memory.push(f"layer {number}".encode()) for number in range(40)]
    await memory.flip(keys.data((await memory.copy(layers[7])).uuid))
    start, seen, found = 0.0, 0, 0
    for _ in range(4):
        account = await memory.verify(sample=Sample(0.25, start))
        start = account.sample[1]
        seen += account.checked["hashed"]
        found += account.broken
        assert 0 < account.checked["hashed"] < 40
    assert (start, seen, found) == (0.0, 40, 1)


async def test_a_garbled_manifest_is_found(store: Decaying) -> None:
    image = await store.image(b"layer")
    key = keys.manifest(HERE, await store.entry(image))
    await store.flip(key)
    await store.verify()
    assert [(finding.kind, finding.digest, finding.key) for finding in store.told] == [("manifest-garbled", image, key)]


async def test_what_is_no_manifest_though_it_hashes_right_is_invalid(store: Decaying) -> None:
    nonsense = b"not JSON"
    entry = Entry(digest_of(nonsense), keys.fresh(), OCI_MANIFEST, len(nonsense))
    await store.image(b"layer")
    await store.store.put(keys.manifest(HERE, entry), nonsense)
    await store.verify()
    assert [(finding.kind, finding.digest) for finding in store.told] == [("manifest-invalid", entry.digest)]
    assert "not a JSON document" in store.told[0].why


async def test_a_manifest_above_four_mebibytes_is_never_read_whole(store: Decaying) -> None:
    await store.image(b"layer")
    right = json.dumps(image_of(annotations={"long": "x" * MAX_BYTES})).encode()
    for digest in (digest_of(right), digest_of(b"something else")):
        await store.store.put(keys.manifest(HERE, Entry(digest, keys.fresh(), OCI_MANIFEST, 0)), right)
    store.store.asked.clear()
    await store.verify()
    assert store.kinds() == ["manifest-garbled", "manifest-too-large"]
    assert not [key for action, key in store.store.asked if action == "get" and digest_of(right)[7:] in key]


async def test_what_manifests_name_and_is_not_there_is_missing(store: Decaying) -> None:
    image = await store.image(b"layer", b"kept")
    index = await store.index(image, child := await store.image(b"arm", tag="arm"))
    layer = digest_of(b"layer")
    await store.store.delete(keys.link(HERE, layer, await store.copy(layer)))
    await store.store.delete(keys.manifest(HERE, await store.entry(child)))
    await store.store.delete(keys.tag(HERE, Tag("arm")))
    await store.verify()
    missing = {finding.kind: finding for finding in store.told if finding.broken}
    assert missing.keys() == {"blob-missing", "child-missing"}
    assert (missing["blob-missing"].digest, missing["child-missing"].digest) == (layer, child)
    assert image in missing["blob-missing"].why
    assert index in missing["child-missing"].why


async def test_a_child_that_was_deleted_through_the_api_is_only_noted(memory: Decaying) -> None:
    child = await memory.image(b"arm", tag="arm")
    await memory.index(child)
    await memory.repository().manifests.delete(child)
    account = await memory.verify()
    assert memory.kinds() == ["child-deleted"]
    assert account.broken == 0


async def test_where_manifests_may_be_sparse_nothing_is_missing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with decaying(driver_of("memory", request, tmp_path), allow_sparse=True) as store:
        await store.publish(image_of(digest_of(b"elsewhere")), HERE, "v1")
        await store.index(digest_of(b"a child"))
        assert (await store.verify()).broken == 0


async def test_a_child_may_be_a_blob_as_in_caches_of_buildkit(memory: Decaying) -> None:
    await memory.index(await memory.push(b"cache"))
    await memory.verify()
    assert memory.told == []


async def test_a_tag_dangles_only_where_no_manifest_was_ever_deleted(store: Decaying) -> None:
    image = await store.image(b"layer")
    entry = await store.entry(image)
    await store.store.delete(keys.manifest(HERE, entry))
    await store.verify()
    assert [(finding.kind, finding.tag, finding.digest) for finding in store.told] == [("tag-dangling", "v1", image)]
    await store.store.put(f"{keys.deletions(HERE)}once", b"")
    await store.verify()
    assert store.told == []


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"{}", b'{"digest": "sha256:x", "nonce": "n", "mediaType": "a/b", "size": 1, "time": 0}'],
)
async def test_a_tag_that_says_nothing_sensible_is_found(memory: Decaying, body: bytes) -> None:
    await memory.image(b"layer")
    await memory.store.put(keys.tag(HERE, Tag("v1")), body)
    await memory.verify()
    assert [(finding.kind, finding.tag) for finding in memory.told] == [("tag-unreadable", "v1")]


async def test_derived_keys_that_are_missing_are_found_and_loose_ones_noted_once_they_are_old(
    memory: Decaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await filled(memory)
    (referrer,) = await memory.contents(keys.referrers(HERE, image))
    layer = digest_of(b"layer")
    await memory.store.delete(referrer)
    await memory.store.delete(keys.catalog(THERE))
    await memory.store.delete(keys.holder(layer, await memory.copy(layer), HERE))
    loose = keys.holder(layer, Copy("ab" * 16, 5), Name("nobody"))
    await memory.store.put(loose, b"")
    await memory.store.put(keys.referrer(THERE, image, layer, "nonce"), b"{}")
    await memory.verify()
    assert memory.kinds() == ["catalog-missing", "holder-missing", "referrer-missing"]
    monkeypatch.setattr("app.upkeep.decay.run.Run.now", lambda _: 1e12)
    account = await memory.verify()
    assert memory.kinds() == ["catalog-missing", "holder-loose", "holder-missing", "referrer-loose", "referrer-missing"]
    assert account.broken == 3


async def test_a_descriptor_of_a_referrer_that_cannot_be_read_is_found(memory: Decaying) -> None:
    image = await filled(memory)
    (referrer,) = await memory.contents(keys.referrers(HERE, image))
    for wrong in (b"", b"[]", b'{"mediaType": "a/b"}'):
        await memory.store.put(referrer, wrong)
        await memory.verify()
        assert memory.kinds() == ["referrer-unreadable"]


FOREIGN = [
    "data/readme.txt/more",
    "repositories/README",
    "repositories/Team/App/_tags/v1",
    "repositories/team/app/_blobs/sha256/short/uuid.1",
    f"repositories/team/app/_blobs/sha256/{'a' * 64}/uuid.many",
    f"repositories/team/app/_blobs/sha256/{'a' * 64}/adopted!.1",
    f"repositories/team/app/_manifests/sha256/{'a' * 64}/nonce",
    "repositories/team/app/_notes/mine",
    "repositories/team/app/_tags/v1/inside",
    "repositories/team/app/_referrers/x",
    "blobs/md5/x/y/z",
    "blobs/note",
    "catalog/NOT a name",
]


async def test_what_somebody_put_there_by_hand_is_noted_and_hurts_nothing(memory: Decaying) -> None:
    await filled(memory)
    await memory.store.delete(keys.tag(HERE, Tag("v1")))
    shelf = memory.store.driver._shelf  # type: ignore[attr-defined]
    for key in FOREIGN:
        shelf.put(key, b"mine", 0.0)
    account = await memory.verify()
    assert memory.kinds() == ["foreign"] * len(FOREIGN)
    assert {finding.key for finding in memory.told} == set(FOREIGN)
    assert account.broken == 0


@pytest.mark.minio
async def test_keys_that_are_no_keys_of_ours_at_all_do_not_stop_it(
    request: pytest.FixtureRequest, tmp_path: Path, minio: MinioServer, bucket: str
) -> None:
    async with decaying(driver_of("minio", request, tmp_path)) as store:
        await store.image(b"layer")
        client = sdk.Minio(minio.address, access_key=minio.access_key, secret_key=minio.secret_key, secure=False)
        strange = ["repositories/tä am/_tags/v 1", "repositories/.hidden", "data/ä&b", "catalog/x<y>"]
        for key in strange:
            client.put_object(bucket, key, BytesIO(b"mine"), 4)
        account = await store.verify()
        assert {finding.key for finding in store.told} >= {"repositories/tä am/_tags/v 1", "catalog/x<y>"}
        assert account.broken == 0


async def test_adopted_bytes_are_verified_where_they_lie(store: Decaying) -> None:
    layer = digest_of(b"adopted")
    for root in ("", "old/registry"):
        copy = adopted(layer, 7, root)
        await store.store.put(keys.data(copy.uuid), b"adopted")
        await bind(store.bucket, HERE, layer, copy, store.bucket.driver.fence())
    account = await store.verify()
    assert (store.told, account.checked["hashed"]) == ([], 2)
    await store.store.put(keys.data(adopted(layer, 7, "old/registry").uuid), b"altered")
    await store.verify()
    assert store.kinds() == ["copy-garbled"]
    assert "old/registry/docker/registry/v2/" in store.told[0].why


async def test_some_repositories_can_be_verified_alone(store: Decaying) -> None:
    await store.image(b"layer", LARGE)
    await store.image(b"other", name=THERE)
    await store.image(b"deep", name=Name("team/app/deep"))
    for data, name in ((b"layer", HERE), (b"other", THERE), (b"deep", Name("team/app/deep"))):
        await store.flip(keys.data((await store.copy(digest_of(data), name)).uuid))
    for pattern, expected in (("team/app", {HERE}), ("team/**", {HERE, Name("team/app/deep")}), ("ot*", {THERE})):
        store.store.asked.clear()
        account = await store.verify(repository=pattern)
        assert {finding.name for finding in store.told} == expected
        assert account.broken == len(expected)
        assert ("list", keys.DATA) not in store.store.asked


async def test_a_push_that_runs_meanwhile_is_not_taken_for_decay(memory: Decaying) -> None:
    await memory.image(b"layer")
    pushed = False

    async def push() -> None:
        nonlocal pushed
        pushed = True
        await memory.image(b"new layer", tag="v2")
        await memory.repository().manifests.delete((await memory.repository().manifests.stat_tag(Tag("v1"))).digest)

    inner = memory.store.driver.list

    async def listing(prefix: str, **more: int) -> object:
        page = await inner(prefix, **more)  # type: ignore[arg-type]
        if prefix == keys.REPOSITORIES and not pushed:
            await push()
        return page

    memory.store.driver.list = listing  # type: ignore[method-assign, assignment]
    account = await memory.verify()
    assert pushed
    assert (memory.told, account.broken) == ([], 0)


async def test_bytes_that_the_store_does_not_give_are_neither_gone_nor_garbled(memory: Decaying) -> None:
    layer = await memory.push(b"layer")
    key = keys.data((await memory.copy(layer)).uuid)

    def refuse(action: str, asked: str) -> None:
        if action == "open" and asked == key:
            raise Unavailable("the disk")

    memory.store.refuse = refuse
    await memory.verify()
    assert memory.kinds() == ["copy-unreadable"]
    memory.store.refuse = lambda *_: _away()
    with pytest.raises(Unavailable):
        await memory.verify()


def _away() -> None:
    raise Unavailable("the store is away")


async def test_every_finding_says_what_would_mend_it(memory: Decaying) -> None:
    await memory.flip(keys.data((await memory.copy(await memory.push(b"layer"))).uuid))
    document = (await memory.verify()).document()
    (found,) = document["findings"]
    assert found["remedy"] == KINDS["copy-garbled"][1]
    assert (found["weight"], found["repository"], found["mended"]) == ("broken", HERE, None)
    assert (document["broken"], document["sound"], document["found"]) == (1, False, {"copy-garbled": 1})
    json.dumps(document)


async def test_a_bound_on_the_rate_is_kept(memory: Decaying) -> None:
    for number in range(4):
        await memory.push(bytes([number]) * 50_000)
    account = await memory.verify(rate=1_000_000)
    assert account.checked["bytes"] == 200_000
    assert account.seconds >= 0.19
