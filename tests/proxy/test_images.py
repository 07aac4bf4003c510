"""An image comes whole, with its signatures, and it is known what is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unavailable
from app.oci.platforms import choose
from app.proxy.images import survey
from tests.proxy.pinning import Here, named, opened
from tests.services.client import INDEX, MANIFEST, descriptor, digest_of, make_index
from tests.services.front import Fault, Front
from tests.services.pushing import Pusher

BOTH: Final = {"linux/amd64": [20_000], "linux/arm64": [30_000]}


@pytest.fixture
async def here(tmp_path: Path, front: Front) -> AsyncIterator[Here]:
    async with opened(tmp_path, front.url) as found:
        yield found


A, B, C = (digest_of(text) for text in (b"a", b"b", b"c"))


def child(digest: str, platform: str | None) -> dict[str, Any]:
    words = dict(zip(("os", "architecture", "variant"), (platform or "").split("/"), strict=False))
    return {"digest": digest, **({"platform": words} if platform else {})}


@pytest.mark.parametrize(
    ("children", "platforms", "chosen", "absent"),
    [
        ([(A, "linux/amd64"), (B, "linux/arm64")], ["linux/arm64"], [B], []),
        ([(A, "linux/amd64"), (B, "linux/arm64")], ["linux/s390x", "linux/amd64"], [A], ["linux/s390x"]),
        ([(A, "linux/amd64"), (B, "unknown/unknown")], ["all"], [A, B], []),
        ([(A, "linux/amd64"), (B, "unknown/unknown")], ["linux/amd64"], [A], []),
        ([(A, "linux/arm/v6"), (B, "linux/arm/v7")], ["linux/arm/v7"], [B], []),
        ([(A, "linux/arm/v6"), (B, "linux/arm/v7")], ["linux/arm"], [A, B], []),
        ([(A, "linux/arm64"), (B, "linux/arm64/v8")], ["linux/arm64/v8"], [A, B], []),
        ([(A, "linux/arm64/v8")], ["linux/arm64"], [A], []),
        ([(A, None), (B, "linux/arm64")], ["linux/amd64"], [A], []),
    ],
)
def test_of_an_index_the_images_for_the_platforms_are_chosen(
    children: list[tuple[str, str | None]], platforms: list[str], chosen: list[str], absent: list[str]
) -> None:
    assert choose([child(*one) for one in children], platforms) == (chosen, absent)


async def test_only_the_platforms_that_are_wanted_come(here: Here, front: Front, pusher: Pusher) -> None:
    index = pusher.index("a/platforms", "1", BOTH)
    found = await here.bring("a/platforms", "1", ("linux/arm64",))
    assert found.complete
    assert found.size == sum(len(blob) for blob in index.images["linux/arm64"].blobs)
    assert front.sent("*/blobs/*") == found.size
    other = index.images["linux/amd64"].digest
    with pytest.raises(ManifestUnknown):
        await here.repository("a/platforms").manifests.stat(Digest(other))
    both = await survey(here.bucket, named("a/platforms"), Digest(index.digest), ["all"])
    assert both.missing_manifests == [other]


async def test_a_platform_that_an_image_does_not_have_is_missing_not_complete(here: Here, pusher: Pusher) -> None:
    pusher.index("a/absent", "1", BOTH)
    found = await here.bring("a/absent", "1", ("linux/amd64", "linux/riscv64"))
    assert (found.complete, found.absent) == (False, ["linux/riscv64"])
    assert (found.missing_manifests, found.missing_blobs) == ([], [])


async def test_an_index_of_indexes_comes_to_the_bottom(here: Here, pusher: Pusher) -> None:
    inner = pusher.index("a/nested", None, BOTH)
    outer = make_index([descriptor(inner.data, INDEX)])
    pusher.manifest("a/nested", "1", outer, INDEX)
    found = await here.bring("a/nested", "1")
    assert found.complete
    assert set(found.manifests) == {digest_of(outer), inner.digest, inner.images["linux/amd64"].digest}


async def test_signatures_come_along_whatever_they_sign_and_however(here: Here, front: Front, pusher: Pusher) -> None:
    index = pusher.index("a/signed", "1", BOTH)
    image = index.images["linux/amd64"]
    by_tag = pusher.image("a/signed", f"{index.digest.replace(':', '-')}.sig", [300], seed="signature")
    by_reference = pusher.referrer("a/signed", image, content=b"an SBOM")
    of_it = pusher.referrer("a/signed", by_reference, content=b"its signature")
    found = await here.bring("a/signed", "1")
    assert found.complete
    assert {by_tag.digest, by_reference.digest} <= set(found.manifests)
    assert of_it.digest not in found.manifests  # one level: no client asks for more
    front.down()
    for expected in (by_tag, by_reference):
        assert (await here.proxied("a/signed").manifests.get(Digest(expected.digest)))[1] == expected.data
        for blob in expected.blobs:
            assert (await here.repository("a/signed").blobs.stat(Digest(digest_of(blob)))).size == len(blob)
    listed = await here.proxied("a/signed").referrers.list(Digest(image.digest), None, None)
    assert [item["digest"] for item in listed.descriptors] == [by_reference.digest]


async def test_a_signature_that_cannot_be_had_is_told_and_the_image_comes(
    here: Here, front: Front, pusher: Pusher
) -> None:
    image = pusher.image("a/unsure", "1", [500])
    rule = front.on("/v2/a/unsure/manifests/*.sig", Fault(status=403))
    with pytest.raises(Denied, match=r"up\.test"):
        await here.bring("a/unsure", "1")
    assert (await survey(here.bucket, named("a/unsure"), Digest(image.digest), ())).complete
    front.off(rule)
    assert (await here.bring("a/unsure", "1")).complete


async def test_a_signature_whose_bytes_are_gone_is_missing(here: Here, front: Front, pusher: Pusher) -> None:
    image = pusher.image("a/lost", "1", [500])
    signature = pusher.image("a/lost", f"{image.digest.replace(':', '-')}.sig", [300], seed="signature")
    front.on(f"/v2/a/lost/blobs/{digest_of(signature.blobs[1])}", Fault(status=404))
    with pytest.raises(BlobUnknown):
        await here.bring("a/lost", "1")
    found = await survey(here.bucket, named("a/lost"), Digest(image.digest), ())
    assert [blob.digest for blob in found.missing_blobs] == [digest_of(signature.blobs[1])]


async def test_one_blob_that_fails_does_not_stop_the_others(here: Here, front: Front, pusher: Pusher) -> None:
    image = pusher.image("a/holed", "1", [100, 200, 300, 400, 500])
    hole = digest_of(image.blobs[2])
    front.on(f"/v2/a/holed/blobs/{hole}", Fault(status=404))
    with pytest.raises(BlobUnknown, match=r"up\.test"):
        await here.bring("a/holed", "1")
    found = await survey(here.bucket, named("a/holed"), Digest(image.digest), ())
    assert [blob.digest for blob in found.missing_blobs] == [hole]
    assert found.missing_bytes == 200


async def test_a_tag_moves_only_once_all_of_the_new_image_is_here(here: Here, front: Front, pusher: Pusher) -> None:
    old = pusher.image("a/moving", "1", [1000], seed="old")
    await here.bring("a/moving", "1")
    new = pusher.image("a/moving", "1", [2000], seed="new")
    rule = front.on("/v2/a/moving/blobs/*", Fault(status=404))
    with pytest.raises(BlobUnknown):
        await here.bring("a/moving", "1")
    assert await here.tagged("a/moving", "1") == old.digest
    front.off(rule)
    assert (await here.bring("a/moving", "1")).complete
    assert await here.tagged("a/moving", "1") == new.digest


async def test_a_tag_that_was_checked_lately_is_not_asked_for(here: Here, front: Front, pusher: Pusher) -> None:
    pusher.image("a/fresh", "1", [1000])
    await here.bring("a/fresh", "1")
    front.forget()
    assert (await here.bring("a/fresh", "1", max_age=3600)).complete
    assert front.requests == []
    await here.bring("a/fresh", "1")
    assert front.count("/v2/a/fresh/manifests/1", "HEAD") == 1
    assert front.count("/v2/a/fresh/manifests/1", "GET") == front.count("*/blobs/*") == 0


async def test_an_image_by_digest_is_asked_for_once(here: Here, front: Front, pusher: Pusher) -> None:
    image = pusher.image("a/digest", None, [1000])
    assert (await here.bring("a/digest", image.digest)).complete
    front.down()
    assert (await here.bring("a/digest", image.digest)).complete


async def test_progress_follows_the_bytes(here: Here, front: Front, pusher: Pusher) -> None:
    image = pusher.image("a/slow", "1", [2_000_000])
    total = sum(len(blob) for blob in image.blobs)
    front.on("*/blobs/*", Fault(stall=1_000_000))
    seen: list[tuple[int, int]] = []
    half = asyncio.Event()

    def show(come: int, wanted: int) -> None:
        seen.append((come, wanted))
        if 500_000 <= come < total:
            half.set()

    bringing = asyncio.create_task(here.bring("a/slow", "1", progress=show))
    async with asyncio.timeout(30):
        await half.wait()
    front.clear()
    await asyncio.to_thread(front.cut_all)
    assert (await bringing).complete
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert [come for come, _ in seen] == sorted(come for come, _ in seen)
    assert len(seen) < 100


async def test_an_unreachable_upstream_is_said_to_be_so_and_what_is_here_stays(
    here: Here, front: Front, pusher: Pusher
) -> None:
    image = pusher.image("a/away", "1", [1000])
    await here.bring("a/away", "1")
    front.down()
    with pytest.raises(Unavailable, match=r"up\.test"):
        await here.bring("a/away", "1")
    assert await here.tagged("a/away", "1") == image.digest
    assert (await survey(here.bucket, named("a/away"), Digest(image.digest), ())).complete


async def test_blobs_that_another_repository_holds_are_not_fetched_again(
    here: Here, front: Front, pusher: Pusher
) -> None:
    first = pusher.image("a/one", "1", [5000])
    for blob in first.blobs:
        pusher.blob("a/two", blob)
    pusher.manifest("a/two", "1", first.data, MANIFEST)
    await here.bring("a/one", "1")
    front.forget()
    assert (await here.bring("a/two", "1")).complete
    assert front.count("*/blobs/*") == 0
