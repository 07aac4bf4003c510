"""Decay below the store: what verify says where a disk changes what MinIO keeps on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from app.oci.digests import digest_of
from app.oci.errors import BlobUnknown
from app.oci.manifests import OCI_MANIFEST
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Copy
from app.registry.publishing import bind, linked
from app.upkeep.decay.rebuild import rebuild
from tests.services.minio import MinioServer
from tests.upkeep.decaying import HERE, THERE, Decaying, bucket_on, decaying, driver_of

LARGE = bytes(range(256)) * 4096
"""1 MiB: MinIO keeps it in a file of its own."""

HEADER = 20
Rot = Callable[..., None]

pytestmark = pytest.mark.minio


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Decaying]:
    async with decaying(driver_of("minio", request, tmp_path)) as found:
        yield found


@pytest.fixture
def rot(store: Decaying, minio: MinioServer, bucket: str) -> Iterator[Rot]:
    """Turns a bit of an object around on MinIO's disk: one of the object's own bytes, or, with HEADER, of what MinIO says
    of it, which no request can mend. Undone in the end, for MinIO does not even delete that."""
    undo: list[tuple[Path, bytes]] = []

    def turn(key: str, at: int = -8) -> None:
        folder = minio._folder / "data" / bucket / key
        path = next(folder.rglob("part.1"), folder / "xl.meta")
        data = bytearray(path.read_bytes())
        if at == HEADER:
            undo.append((path, bytes(data)))
        data[at] ^= 1
        path.write_bytes(data)

    yield turn
    for path, data in undo:
        path.write_bytes(data)


async def test_rotten_bytes_are_unreadable_until_another_copy_takes_their_place(store: Decaying, rot: Rot) -> None:
    for data in (b"small", LARGE):
        await store.push(data)
        rot(keys.data((await store.copy(digest_of(data))).uuid))
    await store.verify()
    assert store.kinds() == ["copy-unreadable", "copy-unreadable"]
    account = await store.repair()
    assert account.broken == 2
    for data in (b"small", LARGE):
        assert await linked(store.bucket, HERE, digest_of(data))  # a disk may come back
        await store.push(data, THERE)
        if len(data) == len(LARGE):  # which shared the rotten copy
            copy = Copy(keys.fresh(), len(data))
            await store.store.put(keys.data(copy.uuid), data)
            await bind(store.bucket, THERE, digest_of(data), copy, store.bucket.driver.fence())
    account = await store.repair()
    assert account.broken == 0
    for data in (b"small", LARGE):
        assert await store.read(digest_of(data)) == data
    assert (await store.verify()).found.total() == 0


async def test_rotten_bytes_that_are_nowhere_else_are_given_up_by_force(store: Decaying, rot: Rot) -> None:
    await store.image(LARGE)
    rot(keys.data((await store.copy(digest_of(LARGE))).uuid))
    await store.repair(force=True)
    with pytest.raises(BlobUnknown):
        await store.repository().blobs.stat(digest_of(LARGE))
    await store.push(LARGE)
    assert (await store.verify()).found.total() == 0


async def test_a_rotten_manifest_is_written_anew(store: Decaying, rot: Rot) -> None:
    image = await store.image(b"layer")
    await store.image(b"layer", name=THERE)
    rot(keys.manifest(HERE, await store.entry(image)))
    await store.verify()
    assert store.kinds() == ["manifest-unreadable"]
    account = await store.repair()
    assert account.broken == 0
    store.bucket.manifests._known.clear()
    assert (await store.repository().manifests.get_tag(Tag("v1")))[0].digest == image
    assert (await store.verify()).found.total() == 0


async def test_a_rotten_manifest_that_is_nowhere_else_is_given_up_by_force(store: Decaying, rot: Rot) -> None:
    image = await store.image(b"layer")
    rot(keys.manifest(HERE, await store.entry(image)))
    assert (await store.repair()).broken == 1
    await store.repair(force=True)
    assert await store.image(b"layer") == image
    assert (await store.verify()).found.total() == 0


async def test_rotten_tags_and_derived_keys_do_not_end_the_run(store: Decaying, rot: Rot) -> None:
    image = await store.image(b"layer")
    subject = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
    await store.image(b"signature", tag="sig", subject=subject)
    (referrer,) = await store.contents(keys.referrers(HERE, image))
    rot(keys.tag(HERE, Tag("v1")))
    rot(referrer)
    rot(keys.catalog(HERE), HEADER)
    rot(keys.holder(digest_of(b"layer"), await store.copy(digest_of(b"layer")), HERE), HEADER)
    await store.verify()
    assert store.kinds() == ["catalog-missing", "holder-missing", "referrer-unreadable", "tag-unreadable"]
    assert (await store.repair()).broken == 3
    await store.verify()
    assert store.kinds() == ["catalog-missing", "holder-missing", "tag-unreadable"]
    assert (await rebuild(store.bucket, lambda *_: None)).refused == 2


async def test_a_manifest_that_minio_hides_is_a_dangling_tag_until_it_is_pushed_again(
    store: Decaying, rot: Rot
) -> None:
    image = await store.image(b"layer")
    await store.image(b"layer", name=THERE)
    rot(keys.manifest(HERE, await store.entry(image)), HEADER)
    assert (await store.repair()).broken == 1
    assert store.kinds() == ["tag-dangling"]
    store.bucket = bucket_on(store.store)  # a process that does not remember where the manifest was
    await store.bucket.signing.start()
    assert await store.image(b"layer") == image
    assert (await store.verify()).found.total() == 0
