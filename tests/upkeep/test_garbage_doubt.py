"""What a collection cannot see for sure keeps everything that may hang on it."""

from app.oci.digests import digest_of
from app.registry import keys
from tests.registry.recorded import Recorded
from tests.upkeep.yard import HERE, HOUR, Yard

GRACE = 49 * HOUR
"""Two days, and the fences around them."""


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
