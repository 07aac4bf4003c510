"""What an upstream fills: it mends what is lost there, and what is merely not here yet is not missing."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.oci.digests import Digest
from app.oci.errors import BlobUnknown
from app.oci.references import Tag
from app.registry import keys
from app.registry.blobs import Blobs
from app.upkeep.decay.sample import Sample
from storage import NotFound, Unavailable
from tests.proxy.pinning import AMD, Here, named, opened
from tests.services.client import Image
from tests.services.front import Fault, Front
from tests.services.pushing import Pusher
from tests.services.upstreams import Distribution, need_distribution
from tests.upkeep.decaying import Decaying

PATH = "team/cached"
NAME = named(PATH)


@pytest.fixture(scope="module")
def pusher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as found:
        yield found.pusher


@pytest.fixture(scope="module")
def image(pusher: Pusher) -> Image:
    return pusher.image(PATH, "1", [50_000, 60_000])


@pytest.fixture
def front(pusher: Pusher) -> Iterator[Front]:
    with Front(f"http://{pusher._parts.netloc}") as found:
        yield found


@pytest.fixture
async def here(tmp_path: Path, front: Front) -> AsyncIterator[Here]:
    async with opened(tmp_path, front.url) as found:
        yield found


@pytest.fixture
async def store(here: Here, image: Image) -> Decaying:
    """The image, here whole."""
    assert (await here.bring(PATH, "1", AMD)).complete
    return Decaying(here.bucket, here.store, here.proxy)


async def layer_of(store: Decaying) -> Digest:
    """The digest of the largest layer."""
    digests = {keys.digest_below(key) for key in await store.contents(keys.REPOSITORIES) if "/_blobs/" in key}
    sizes = {digest: (await store.copy(digest, NAME)).size for digest in digests}
    return max(sizes, key=sizes.__getitem__)


async def test_what_is_cached_whole_is_sound(store: Decaying) -> None:
    assert (await store.verify()).found.total() == 0


async def test_what_is_not_here_yet_is_not_missing(store: Decaying) -> None:
    layer = await layer_of(store)
    copy = await store.copy(layer, NAME)
    await store.store.delete(keys.link(NAME, layer, copy))
    await store.store.delete(keys.holder(layer, copy, NAME))
    assert (await store.verify()).found.total() == 0
    store.proxy = None  # as when the upstream has left the configuration: its tags say whose they are
    assert (await store.verify()).found.total() == 0


async def test_a_lost_and_a_garbled_layer_are_fetched_again(store: Decaying, front: Front) -> None:
    layer = await layer_of(store)
    for spoil in (store.flip, store.store.delete):
        await spoil(keys.data((await store.copy(layer, NAME)).uuid))
        front.forget()
        account = await store.repair()
        assert [finding.mended for finding in store.told] == ["fetched from up.test"]
        assert account.broken == 0
        assert front.count(f"*/blobs/{layer}", "GET") == 1
        assert len(await store.read(layer, NAME)) == (await store.copy(layer, NAME)).size


async def test_without_the_upstream_a_lost_layer_is_fetched_by_the_next_who_wants_it(
    store: Decaying, here: Here, front: Front
) -> None:
    layer = await layer_of(store)
    await store.store.delete(keys.data((await store.copy(layer, NAME)).uuid))
    proxy, store.proxy = store.proxy, None
    account = await store.repair(sample=Sample(0.0))
    assert account.broken == 1
    with pytest.raises(BlobUnknown):
        await Blobs(store.bucket, NAME).stat(layer)
    store.proxy = proxy
    assert (await store.verify()).broken == 0
    proxied = here.proxied(PATH).blobs
    async with proxied.open(await proxied.sought(layer)) as reader:
        assert sum([len(chunk) async for chunk in reader]) > 50_000


async def test_a_garbled_manifest_is_fetched_by_its_digest_and_put_where_it_was(
    store: Decaying, image: Image, front: Front
) -> None:
    entry = await store.entry(Digest(image.digest), NAME)
    key = keys.manifest(NAME, entry)
    right = (await store.store.get(key)).data
    await store.flip(key)
    front.forget()
    account = await store.repair()
    assert [finding.mended for finding in store.told] == ["fetched from up.test"]
    assert account.broken == 0
    assert (await store.store.get(key)).data == right
    assert front.count(f"*/manifests/{image.digest}", "GET") == 1


async def test_what_the_upstream_garbles_too_mends_nothing(store: Decaying, image: Image, front: Front) -> None:
    layer = await layer_of(store)
    entry = await store.entry(Digest(image.digest), NAME)
    await store.flip(keys.manifest(NAME, entry))
    await store.store.delete(keys.data((await store.copy(layer, NAME)).uuid))
    front.on("/v2/*", Fault(corrupt=40))
    account = await store.repair()
    assert store.kinds() == ["copy-gone", "manifest-garbled"]
    assert (account.broken, account.mended.total()) == (2, 0)
    with pytest.raises(NotFound):
        await store.store.get(keys.manifest(NAME, entry))
    front.clear()
    assert (await store.verify()).broken == 0


async def test_a_tag_that_cannot_be_read_is_emptied_so_that_the_next_pull_asks(
    store: Decaying, here: Here, image: Image
) -> None:
    await store.store.put(keys.tag(NAME, Tag("1")), b"{")
    await store.repair()
    assert [(finding.kind, finding.mended is not None) for finding in store.told] == [("tag-unreadable", True)]
    assert (await here.proxied(PATH).manifests.stat_tag(Tag("1"))).digest == image.digest


@pytest.mark.parametrize(("refused", "kinds"), [(1, []), (2, ["tag-unreadable"])])
async def test_a_tag_that_a_restart_of_the_store_refused_for_a_moment_is_not_emptied(
    store: Decaying, image: Image, refused: int, kinds: list[str]
) -> None:
    key, left = keys.tag(NAME, Tag("1")), refused

    def refuse(operation: str, asked: str) -> None:
        nonlocal left
        if (operation, asked) == ("get", key) and left:
            left -= 1
            raise Unavailable("the store gave no answer")

    store.store.refuse = refuse
    await store.repair()
    assert store.kinds() == kinds
    assert image.digest.encode() in (await store.store.get(key)).data


async def test_a_tag_that_the_store_gives_no_more_is_emptied(store: Decaying, here: Here, image: Image) -> None:
    key = keys.tag(NAME, Tag("1"))

    def refuse(operation: str, asked: str) -> None:
        if (operation, asked) == ("get", key):
            raise Unavailable("a disk lost some bytes")

    store.store.refuse = refuse
    await store.repair()
    store.store.refuse = lambda *_: None
    assert [(finding.kind, finding.mended is not None) for finding in store.told] == [("tag-unreadable", True)]
    assert (await here.proxied(PATH).manifests.stat_tag(Tag("1"))).digest == image.digest
