"""Objects that decayed in the store: what they said is gone, and no request fails because of them."""

import pytest

from app.oci.errors import ManifestUnknown
from app.oci.references import Tag
from app.registry import keys
from app.registry.stored import first_entry
from tests.registry.conftest import HERE, Replica

TAG = Tag("v1")
GARBAGE = [b"\xff\x00", b"[]", b'{"digest": "sha256:short", "nonce": "", "mediaType": "", "size": 1, "time": 1}', b"{}"]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_tag_that_decayed_is_unknown_until_it_is_pushed_again(replica: Replica, garbage: bytes) -> None:
    digest = await replica.publish(await replica.push(b"layer"))
    entry = await first_entry(replica.bucket, HERE, digest)
    assert entry is not None
    _, data = await replica.repository().manifests.get(digest)
    await replica.driver.put(keys.tag(HERE, TAG), garbage)
    with pytest.raises(ManifestUnknown):
        await replica.repository().manifests.get_tag(TAG)
    await replica.repository().manifests.put(data, entry.media_type, digest=None, tagged=[TAG], by=None)
    assert (await replica.repository().manifests.get_tag(TAG))[0].digest == digest


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_referrer_whose_descriptor_decayed_hides_no_other(
    replica: Replica, other: Replica, garbage: bytes
) -> None:
    layer = await replica.push(b"layer")
    subject = {"mediaType": "application/x", "digest": layer, "size": 5}
    first = await replica.publish(layer, subject=subject, annotations={"n": "1"})
    second = await replica.publish(layer, subject=subject, annotations={"n": "2"})
    (key,) = [key for key in await replica.keys(keys.referrers(HERE, layer)) if keys.referring(key)[0] == first]
    await replica.driver.put(key, garbage)
    found = await other.repository().referrers.list(layer, None, None)
    assert [descriptor["digest"] for descriptor in found.descriptors] == [second]


async def test_a_manifest_whose_bytes_decayed_can_be_deleted(replica: Replica, other: Replica) -> None:
    digest = await replica.publish(await replica.push(b"layer"))
    (key,) = await replica.keys(keys.manifests(HERE, digest))
    await replica.driver.put(key, b"decayed")
    await other.repository().manifests.delete(digest)
    with pytest.raises(ManifestUnknown):
        await replica.repository().manifests.stat(digest)
