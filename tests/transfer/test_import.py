"""Imports: what comes in, under which name and digest, and that it is all or nothing."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
from backports import zstd

from app.oci.digests import Digest
from app.oci.errors import Unavailable
from app.oci.manifests import DOCKER_MANIFEST
from app.oci.names import Name
from app.proxy.settings import UpstreamSettings
from app.registry.uploads import SHARED_FROM
from app.transfer.errors import ArchiveRefused
from app.transfer.imports.importing import Wish
from storage.errors import Unavailable as StoreAway
from storage.memory import MemoryDriver
from tests.services.app import Watched
from tests.services.client import INDEX, MANIFEST, descriptor, digest_of, make_index
from tests.transfer.archives import (
    LAYOUT,
    Files,
    How,
    Target,
    blob,
    crane,
    docker_save,
    entry,
    index_json,
    layout,
    picture,
    several,
    tar,
)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


@pytest.fixture(params=["file", "stream"])
def how(request: pytest.FixtureRequest) -> How:
    found: How = request.param
    return found


BIG = bytes(range(256)) * (SHARED_FROM // 256 + 1)


@pytest.mark.parametrize("last", [False, True])
async def test_a_layout_keeps_its_digests(target: Target, how: How, last: bool) -> None:
    image, other = picture(b"base", BIG), picture(b"base", b"own", config=b'{"other":1}')
    named = layout((image, "docker.io/team/app:v1"), (other, "docker.io/team/other:v2"), last=last)
    found = await target.bring(named, how)
    assert [(one.image, one.name, one.trouble) for one in found] == [
        ("docker.io/team/app:v1", "team/app:v1", None),
        ("docker.io/team/other:v2", "team/other:v2", None),
    ]
    assert await target.whole("team/app", "v1") == image.digest
    assert await target.whole("team/other", other.digest) == other.digest
    assert await target.loose() == set()


async def test_an_index_comes_with_every_image_below_it(target: Target, how: How) -> None:
    one, two = picture(b"amd", BIG), picture(b"arm", BIG + b"!")
    files = several(("amd64", one), ("arm64", two))
    await target.bring(files, how)
    assert await target.whole("team/many", "v1") == digest_of(files[2][1])
    assert await target.whole("team/many", two.digest) == two.digest


async def test_an_index_is_kept_as_it_is_where_only_some_of_its_images_are_in_the_archive(
    target: Target, how: How
) -> None:
    one, two = picture(b"amd"), picture(b"arm")
    files = several(("amd64", one), ("arm64", two), here=["arm64"])
    [found] = await target.bring(files, how)
    assert (found.digest, found.left_out) == (digest_of(files[2][1]), 1)
    assert await target.whole("team/many", two.digest) == two.digest


async def test_only_the_platform_that_is_wanted_comes(target: Target, how: How) -> None:
    one, two = picture(b"amd", BIG), picture(b"arm", b"!" + BIG)
    files = several(("amd64", one), ("arm64", two))
    [found] = await target.bring(files, how, platforms=["linux/arm64"])
    assert (found.digest, found.left_out) == (digest_of(files[2][1]), 1)
    assert await target.whole("team/many", two.digest) == two.digest
    assert digest_of(b"amd").partition(":")[2] not in " ".join(await target.keys())
    [absent] = await target.bring(files, how, platforms=["linux/s390x"])
    assert absent.trouble == "the image is not there for linux/s390x"


async def test_what_docker_saved_before_it_knew_layouts_gets_a_manifest(target: Target, how: How) -> None:
    files = docker_save(["team/app:v1", "quay.io/org/app:v2"], b"base" * 3000, b"top")
    found = await target.bring(files, how)
    assert [one.name for one in found] == ["team/app:v1", "org/app:v2"]
    assert len({one.digest for one in found}) == 1
    assert await target.whole("team/app", "v1") == found[0].digest
    stored, data = await target.registry.repository(Name("org/app")).manifests.get(await target.whole("org/app", "v2"))
    assert stored.media_type == DOCKER_MANIFEST
    assert data.count(b'application/vnd.docker.image.rootfs.diff.tar"') == 2
    assert await target.loose() == set()
    assert (await Target(target.folder).bring(files, how))[0].digest == found[0].digest


async def test_layers_that_are_links_to_other_layers_are_found(target: Target, how: How) -> None:
    files = docker_save(["team/app:v1"], b"same", b"same")
    first, second = (path for path, _ in files if path.endswith("/layer.tar"))
    data = tar([file for file in files if file[0] != second], {second: f"../{first}"})
    [found] = await target.bring(data, how)
    assert found.trouble is None
    assert await target.whole("team/app", "v1") == found.digest


async def test_compressed_layers_keep_their_bytes_and_so_their_digest(target: Target, how: How) -> None:
    [found] = await target.bring(crane("gcr.io/team/app:v1", b"base" * 1000, b"top"), how)
    assert await target.whole("team/app", "v1") == found.digest
    repository = target.registry.repository(Name("team/app"))
    _, data = await repository.manifests.get(await target.whole("team/app", "v1"))
    assert data.count(b"diff.tar.gzip") == 2
    layer = gzip.compress(b"base" * 1000, mtime=0)
    assert digest_of(layer).encode() in data


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
async def test_compressed_archives_are_read(target: Target, how: How, pack: object) -> None:
    image = picture(BIG, b"small")
    data = tar(layout((image, "team/app:v1"), last=True))
    packed = pack(data[:70_000]) + pack(data[70_000:]) if pack is gzip.compress else pack(data)  # type: ignore[operator]
    await target.bring(packed, how)
    assert await target.whole("team/app", "v1") == image.digest


async def test_a_folder_is_read_where_it_lies(target: Target, tmp_path: Path) -> None:
    image = picture(BIG, b"small")
    for path, data in layout((image, "team/app:v1")):
        file = tmp_path / "layout" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    await target.importer.from_path(tmp_path / "layout", Wish())
    assert await target.whole("team/app", "v1") == image.digest


async def test_nothing_is_stored_twice_however_often_it_is_imported(target: Target, how: How) -> None:
    image = picture(BIG, b"small")
    [first] = await target.bring(layout((image, "team/app:v1")), how)
    before = await target.keys()
    assert first.new == first.size
    [again] = await target.bring(layout((image, "team/app:v1")), how)
    assert again.new == 0
    assert [key for key in await target.keys() if "/_tags/" not in key] == [
        key for key in before if "/_tags/" not in key
    ]
    [other] = await target.bring(layout((image, "team/app:v1")), how, prefix="copies")
    assert other.new == 0
    assert await target.whole("copies/team/app", "v1") == image.digest


async def test_a_file_whose_blobs_are_here_is_not_even_read(target: Target, tmp_path: Path) -> None:
    image = picture(BIG)
    await target.bring(layout((image, "team/app:v1")))
    spoilt = [(path, b"?" * len(data)) if data == BIG else (path, data) for path, data in layout((image, "team/b:v1"))]
    [found] = await target.bring(spoilt)
    assert found.trouble is None
    assert await target.whole("team/b", "v1") == image.digest


async def test_a_delta_brings_what_the_registry_lacks(target: Target, how: How) -> None:
    base = picture(BIG)
    await target.bring(layout((base, "team/base:v1")), how)
    image = picture(BIG, b"new")
    delta = [file for file in layout((image, "team/app:v2")) if file[1] != BIG]
    [found] = await target.bring(delta, how)
    assert found.trouble is None
    assert await target.whole("team/app", "v2") == image.digest
    [denied] = await target.bring(delta, how, prefix="other", may_pull=lambda name: not name.startswith("team/"))
    assert denied.trouble is not None
    assert digest_of(BIG) in denied.trouble


async def test_the_images_of_an_archive_that_are_whole_come_though_others_do_not(target: Target, how: How) -> None:
    good, bad = picture(b"good"), picture(b"missing")
    files = [file for file in layout((bad, "team/bad:v1"), (good, "team/good:v1")) if file[1] != b"missing"]
    found = await target.bring(files, how)
    assert [one.trouble is None for one in found] == [False, True]
    assert found[0].trouble == f"the blob {digest_of(b'missing')} is neither in the archive nor here"
    assert await target.whole("team/good", "v1") == good.digest
    assert not [key for key in await target.keys() if "team/bad" in key or "team-bad" in key]
    assert await target.loose() == set()


async def test_a_signature_without_a_name_follows_what_it_signs(target: Target, how: How) -> None:
    image = picture(b"layer")
    signature = picture(b"signed", subject=descriptor(image.data, MANIFEST))
    stranger = picture(b"nobody's")
    files = [
        LAYOUT,
        index_json(entry(signature.data), entry(image.data, name="team/app:v1"), entry(stranger.data)),
        *image.files,
        *signature.files,
        *stranger.files,
    ]
    found = await target.bring(files, how)
    assert [one.name for one in found] == ["team/app", "team/app:v1", ""]
    assert found[2].trouble is not None
    assert await target.whole("team/app", signature.digest) == signature.digest
    listed = await target.registry.repository(Name("team/app")).referrers.list(image.digest, None, None)
    assert [item["digest"] for item in listed.descriptors] == [signature.digest]


async def test_a_dry_run_says_the_same_and_stores_nothing(target: Target, how: How) -> None:
    image = picture(BIG, b"small")
    [found] = await target.bring(layout((image, "team/app:v1"), last=True), how, dry_run=True)
    assert (found.name, found.digest, found.trouble) == ("team/app:v1", image.digest, None)
    assert found.new == found.size
    [old] = await target.bring(docker_save(["team/old:v1"], BIG), how, dry_run=True)
    assert (old.name, old.trouble) == ("team/old:v1", None)
    assert await target.keys() == []


async def test_two_images_are_not_called_the_same(target: Target, how: How) -> None:
    files = layout((picture(b"one"), "team/app:v1"), (picture(b"two"), "team/other:v1"))
    with pytest.raises(ArchiveRefused, match="2 images of the archive would be called here/app:v2"):
        await target.bring(files, how, given="here/app:v2")
    assert await target.keys() == []


async def test_an_immutable_tag_does_not_move_and_an_image_may_be_refused(target: Target, how: How) -> None:
    first, second = picture(b"one"), picture(b"two")
    await target.bring(layout((first, "fixed/app:v1")), how)
    [moved] = await target.bring(layout((second, "fixed/app:v1")), how)
    assert moved.trouble == "the tag is immutable: v1"
    assert await target.whole("fixed/app", "v1") == first.digest
    [denied] = await target.bring(layout((second, "team/app:v1")), how, may_push=lambda _: False)
    assert denied.trouble == "images may not be imported into team/app"


async def test_a_tag_that_an_upstream_never_moves_is_not_moved_by_an_archive(tmp_path: Path, how: How) -> None:
    promises = UpstreamSettings(name="docker.io", url="https://127.0.0.1:1", immutable_tags=["team/*:v*", "alpine:3"])
    target = Target(tmp_path, upstreams=[promises])
    first, second = picture(b"one"), picture(b"two")
    for name in ("team/app:v1", "alpine:3", "team/app:latest"):
        [came] = await target.bring(layout((first, name)), how)
        assert came.trouble is None
        [again] = await target.bring(layout((first, name)), how)
        assert again.trouble is None
        [moved] = await target.bring(layout((second, name)), how)
        assert moved.trouble == (None if name.endswith("latest") else f"the tag is immutable: {name.partition(':')[2]}")
    assert await target.whole("docker.io/team/app", "v1") == first.digest
    assert await target.whole("docker.io/library/alpine", "3") == first.digest


async def test_what_is_new_says_nothing_of_repositories_that_may_not_be_looked_into(target: Target, how: How) -> None:
    await target.bring(layout((picture(BIG), "secret/app:v1")), how)

    def may(name: Name) -> bool:
        return name.startswith("mine/")

    for dry in (True, False):
        for layer in (BIG, BIG + b"!"):
            name = f"mine/app{len(layer)}:v1"
            [found] = await target.bring(layout((picture(layer), name)), how, may_pull=may, dry_run=dry)
            assert found.trouble is None
            assert len(layer) <= found.new <= found.size
    [again] = await target.bring(layout((picture(BIG), "mine/copy:v1")), how, may_pull=may)
    assert again.new == 0


async def test_a_cached_manifest_of_buildkit_may_name_blobs(target: Target, how: How) -> None:
    layer, config = b"cache layer", b"cache config"
    kind = "application/vnd.buildkit.cacheconfig.v0"
    top = make_index([descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip"), descriptor(config, kind)])
    files: Files = [LAYOUT, index_json(entry(top, INDEX, name="team/cache:main")), blob(top), blob(layer), blob(config)]
    [found] = await target.bring(files, how)
    assert found.trouble is None
    repository = target.registry.repository(Name("team/cache"))
    assert (await repository.blobs.stat(Digest(digest_of(layer)))).size == len(layer)


async def test_a_store_that_fails_ends_the_import_and_keeps_no_link(tmp_path: Path, how: How) -> None:
    store = Watched(MemoryDriver())
    target = Target(tmp_path, driver=store)  # type: ignore[arg-type]

    def refuse(operation: str, key: str) -> None:
        if operation == "put" and "/_manifests/" in key:
            raise StoreAway("gone")

    store.refuse = refuse
    image = picture(BIG)
    with pytest.raises(Unavailable):
        await target.bring(layout((image, "team/app:v1")), how)
    assert not [key for key in await target.keys() if "/_tags/" in key or "/_manifests/" in key]
    assert await target.loose() == set()
    store.refuse = lambda _operation, _key: None
    await target.bring(layout((image, "team/app:v1")), how)
    assert await target.whole("team/app", "v1") == image.digest
