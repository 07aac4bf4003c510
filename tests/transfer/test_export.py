"""What archives hold: which images, which of their parts, under which names, and nothing that is wrong."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import StartError
from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUnknown, ManifestUnknown, RegistryError
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.proxy.pins import own_platform
from app.registry import keys
from app.registry.publishing import first_linked
from app.registry.registry import Registry
from app.transfer.exports.choosing import TooManyImages
from app.transfer.exports.contents import DELTA, IMAGE_NAME, NAME, REF_NAME
from app.transfer.exports.exporting import Format
from app.transfer.exports.inventory import HEADER, held, inventory, received
from app.transfer.exports.tarball import Member, Tarball
from storage import Corrupt
from tests.transfer.archives import chunked
from tests.transfer.exported import Shelf, described, inventory_file


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    found = Shelf()
    yield found
    await found.close()


def packed(layer: bytes) -> str:
    """The digest of a layer as it is pushed."""
    return digest_of(gzip.compress(layer, mtime=0))


async def copy_of(shelf: Shelf, repository: str, digest: Digest) -> str:
    """The key of the bytes of a blob."""
    copy = await first_linked(shelf.bucket, Name(repository), digest)
    assert copy is not None
    return keys.data(copy.uuid)


async def test_layers_that_images_share_are_in_the_archive_once(shelf: Shelf) -> None:
    first = await shelf.image("team/one", "v1", b"base", b"one")
    second = await shelf.image("team/two", "v2", b"base", b"two")
    found = await shelf.archive("team/one:v1", "team/two:v2")
    assert [member.name for member in found.members].count(f"blobs/{packed(b'base').replace(':', '/')}") == 1
    layers = {packed(layer) for layer in (b"base", b"one", b"two")}
    assert found.blobs > layers | {digest_of(first), digest_of(second)}
    assert [entry["digest"] for entry in found.index["manifests"]] == [digest_of(first), digest_of(second)]
    assert found.names(IMAGE_NAME) == ["docker.io/team/one:v1", "docker.io/team/two:v2"]
    assert found.names(REF_NAME) == ["v1", "v2"]
    assert found.names(NAME) == ["localhost/team/one:v1", "localhost/team/two:v2"]
    assert [entry["RepoTags"] for entry in found.manifest] == [["team/one:v1"], ["team/two:v2"]]
    for entry in found.manifest:
        assert {entry["Config"], *entry["Layers"]} <= found.files.keys()


async def test_tags_that_two_images_have_in_common_are_told_apart_by_whole_names(shelf: Shelf) -> None:
    for name in ("team/one", "team/two"):
        await shelf.image(name, "latest", name.encode())
    await shelf.image("team/one", "v1", b"other")
    found = await shelf.archive("team/one:*", "team/two")
    assert found.names(REF_NAME) == ["team/one:latest", "v1", "team/two:latest"]


async def test_the_same_images_make_the_same_bytes_whatever_the_order_in_which_they_are_named(shelf: Shelf) -> None:
    for number in range(5):
        await shelf.image("team/app", f"v{number}", b"base", b"%d" % number)
    first = await shelf.archive(*(f"team/app:v{number}" for number in range(5)))
    second = await shelf.archive(*(f"team/app:v{number}" for number in reversed(range(5))), "team/app:v*")
    assert first.data == second.data
    assert {member.mtime for member in first.members} == {0}


async def test_an_image_of_two_tags_is_one_image_for_docker(shelf: Shelf) -> None:
    await shelf.image("team/app", "v1", b"base")
    await shelf.image("team/app", "latest", b"base")
    found = await shelf.archive("team/app:*")
    assert [entry["RepoTags"] for entry in found.manifest] == [["team/app:latest", "team/app:v1"]]


async def test_an_image_by_digest_has_no_tag(shelf: Shelf) -> None:
    named = digest_of(await shelf.image("team/app", None, b"base"))
    found = await shelf.archive(f"team/app@{named}")
    assert found.names(IMAGE_NAME) == [f"docker.io/team/app@{named}"]
    assert found.names(REF_NAME) == [None]
    assert [entry["RepoTags"] for entry in found.manifest] == [[]]


async def test_names_that_mean_nothing_here_are_all_named(shelf: Shelf) -> None:
    await shelf.image("team/app", "v1", b"base")
    with pytest.raises(ManifestUnknown) as caught:
        await shelf.prepare("team/app:v1", "team/app:v2", "team/none", "team/*:z*", "Team/App", "team/app@sha256:1")
    lines = caught.value.message.splitlines()
    assert [line.rpartition(": ")[0].partition(": ")[0] for line in lines] == [
        "team/app:v2", "team/none", "team/*:z*", "Team/App", "team/app@sha256:1"
    ]  # fmt: skip


async def test_globs_mean_repositories_and_tags_but_no_signatures(shelf: Shelf) -> None:
    signed = digest_of(await shelf.image("team/one", "v1", b"one"))
    await shelf.image("team/deep/two", "v1.1", b"two")
    await shelf.image("other", "v1", b"other")
    await shelf.image("team/one", f"{signed.replace(':', '-')}.sig", b"signature")
    assert [str(image.chosen) for image in (await shelf.prepare("team/*:v*")).images] == [
        "team/deep/two:v1.1",
        "team/one:v1",
    ]
    assert len((await shelf.prepare("*:*")).images) == 3
    assert len((await shelf.prepare("team/one:sha256-*")).images) == 1


async def test_what_is_cached_is_named_with_its_upstream_and_plainly_behind_what_was_pushed() -> None:
    shelf = Shelf(upstreams=("docker.io", "ghcr.io", "mirror:5000"), default="docker.io")
    cached = digest_of(await shelf.image("docker.io/library/alpine", "3", b"cached"))
    await shelf.image("mirror_5000/team/app", "1", b"port")
    await shelf.image("docker.io/library/busybox", "1", b"cached")
    pushed = digest_of(await shelf.image("busybox", "1", b"pushed"))
    for name in ("alpine:3", "docker.io/alpine:3", "docker.io/library/alpine:3", "docker.io/*:3"):
        found = await shelf.archive(name)
        assert found.names(IMAGE_NAME) == found.names(NAME) == ["docker.io/library/alpine:3"]
        assert [entry["digest"] for entry in found.index["manifests"]] == [cached]
    assert (await shelf.archive("mirror:5000/team/app:1")).names(IMAGE_NAME) == ["mirror:5000/team/app:1"]
    plain = await shelf.archive("busybox:1")
    assert [entry["digest"] for entry in plain.index["manifests"]] == [pushed]
    assert plain.names(NAME) == ["localhost/busybox:1"]
    with pytest.raises(ManifestUnknown, match=r"quay\.io/org/app:1: it is not here"):
        await shelf.prepare("quay.io/org/app:1")
    await shelf.close()


async def test_a_host_goes_before_what_was_pushed_and_not_before_what_is_cached() -> None:
    shelf = Shelf(upstreams=("docker.io",))
    await shelf.image("docker.io/library/alpine", "3", b"cached")
    await shelf.image("team/app", "1", b"pushed")
    found = await shelf.archive("*:*", host="registry.local:5045")
    assert found.names(IMAGE_NAME) == ["docker.io/library/alpine:3", "registry.local:5045/team/app:1"]
    assert found.names(NAME) == ["docker.io/library/alpine:3", "localhost/team/app:1"]
    await shelf.close()


async def two_platforms(shelf: Shelf, repository: str = "team/multi") -> tuple[bytes, dict[str, bytes]]:
    images = {
        platform: await shelf.image(repository, None, b"base", platform.encode(), platform=platform)
        for platform in ("linux/amd64", "linux/arm64")
    }
    return await shelf.index(repository, "v1", images), images


async def test_an_index_stays_as_it_is_byte_for_byte_also_for_one_platform(shelf: Shelf) -> None:
    index, images = await two_platforms(shelf)
    whole = await shelf.archive("team/multi:v1", platforms=["all"])
    one = await shelf.archive("team/multi:v1", platforms=["linux/arm64"])
    for found in (whole, one):
        assert found.files[f"blobs/{digest_of(index).replace(':', '/')}"] == index
        assert found.index["manifests"][0]["digest"] == digest_of(index)
    assert {digest_of(image) for image in images.values()} < whole.blobs
    assert digest_of(images["linux/amd64"]) not in one.blobs
    assert packed(b"linux/amd64") not in one.blobs
    config = json.loads(images["linux/arm64"])["config"]["digest"]
    assert [entry["Config"] for entry in one.manifest] == [f"blobs/{config.replace(':', '/')}"]


async def test_images_that_engines_cannot_tell_apart_are_named() -> None:
    shelf = Shelf(upstreams=("docker.io",))
    await shelf.image("docker.io/team/app", "1", b"cached", platform=own_platform())
    await shelf.image("team/app", "1", b"pushed", platform=own_platform())
    both = ("docker.io/team/app:1", "team/app:1")
    (remark,) = (await shelf.prepare(*both)).remarks
    assert remark.startswith(f"{' and '.join(both)} have one name in container engines")
    assert not (await shelf.prepare(*both, host="registry.local:5045")).remarks
    await shelf.image("docker.io/team/app", "1", b"pushed", platform=own_platform())
    assert not (await shelf.prepare(*both)).remarks
    await shelf.close()


async def test_of_a_cached_index_what_is_here_goes_along_and_the_rest_is_named(shelf: Shelf) -> None:
    here = await shelf.image("team/multi", None, b"base", b"here", platform=own_platform())
    away = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "away": True}).encode()
    index = await shelf.index("team/multi", "v1", {own_platform(): here, "linux/s390x": away}, sparse=True)
    prepared = await shelf.prepare("team/multi:v1")
    assert list(prepared.remarks) == ["team/multi:v1: not here, and so left out: linux/s390x"]
    assert prepared.images[0].platforms == [own_platform()]
    found = await shelf.archive("team/multi:v1")
    assert {digest_of(index), digest_of(here)} < found.blobs
    for wanted in ("all", "linux/s390x"):
        with pytest.raises(BlobUnknown, match=f"team/multi:v1, linux/s390x: .*{digest_of(away)}"):
            await shelf.prepare("team/multi:v1", platforms=[wanted])
    with pytest.raises(BlobUnknown, match=f"there is no image for linux/ppc64le; there are: {own_platform()}, linux"):
        await shelf.prepare("team/multi:v1", platforms=["linux/ppc64le"])


async def test_an_index_of_which_nothing_is_here_whole_is_refused(shelf: Shelf) -> None:
    away = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
    await shelf.index("team/multi", "v1", {"linux/s390x": away}, sparse=True)
    with pytest.raises(BlobUnknown, match="none of its images is here whole: linux/s390x"):
        await shelf.prepare("team/multi:v1")


async def test_every_image_that_lacks_a_blob_is_named_with_it(shelf: Shelf) -> None:
    lost = described("application/vnd.oci.image.layer.v1.tar", b"lost")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [lost]}
    for name in ("team/one", "team/two"):
        await shelf.manifest(name, "v1", document, sparse=True)
    with pytest.raises(BlobUnknown) as caught:
        await shelf.prepare("team/*:v1")
    assert caught.value.message.splitlines() == [
        f"team/{name}:v1: a blob (4 B) not here: {digest_of(b'lost')}" for name in ("one", "two")
    ]


async def test_attestations_go_with_the_platform_that_they_speak_of(shelf: Shelf) -> None:
    images = {
        name: await shelf.image("team/app", None, name.encode(), platform=name)
        for name in ("linux/amd64", "linux/arm64")
    }
    attested = {
        name: await shelf.image("team/app", None, b"attestation", name.encode(), platform="unknown/unknown")
        for name in images
    }
    children = [
        described(OCI_MANIFEST, data, platform={"os": "linux", "architecture": name[6:]})
        for name, data in images.items()
    ]
    children += [
        described(
            OCI_MANIFEST,
            data,
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={"vnd.docker.reference.digest": digest_of(images[name])},
        )
        for name, data in attested.items()
    ]
    await shelf.manifest("team/app", "v1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    found = await shelf.archive("team/app:v1", platforms=["linux/arm64"])
    assert digest_of(attested["linux/arm64"]) in found.blobs
    assert digest_of(attested["linux/amd64"]) not in found.blobs
    assert (await shelf.prepare("team/app:v1")).images[0].platforms == ["linux/amd64", "linux/arm64"]


@pytest.mark.parametrize("said", [[], {}, 7, None, "nonsense"])
async def test_an_attestation_of_nothing_in_particular_is_passed_over(shelf: Shelf, said: Any) -> None:
    image = await shelf.image("team/app", None, b"base")
    stray = await shelf.image("team/app", None, b"attestation", platform="unknown/unknown")
    children = [
        described(OCI_MANIFEST, image, platform={"os": "linux", "architecture": "amd64"}),
        described(
            OCI_MANIFEST,
            stray,
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={"vnd.docker.reference.digest": said},
        ),
    ]
    await shelf.manifest("team/app", "v1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    found = await shelf.archive("team/app:v1", platforms=["linux/amd64"])
    assert digest_of(image) in found.blobs
    assert digest_of(stray) not in found.blobs


async def test_signatures_go_along_where_they_are_wanted_and_no_client_takes_them_for_images(shelf: Shelf) -> None:
    image = await shelf.image("team/app", "v1", b"base")
    subject = described(OCI_MANIFEST, image)
    signature = await shelf.image("team/app", None, b"signature", artifactType="application/x-sig", subject=subject)
    counter = await shelf.image(
        "team/app", None, b"counter", artifactType="application/x-sig", subject=described(OCI_MANIFEST, signature)
    )
    cosigned = await shelf.image("team/app", f"{digest_of(image).replace(':', '-')}.sig", b"cosign")
    assert not {digest_of(data) for data in (signature, counter, cosigned)} & (await shelf.archive("team/app:v1")).blobs
    found = await shelf.archive("team/app:v1", referrers=True)
    assert {digest_of(data) for data in (signature, counter, cosigned)} < found.blobs
    named = dict(zip(found.names(NAME), found.index["manifests"], strict=True))
    home = "localhost/team/app"
    assert {name: entry["digest"] for name, entry in named.items()} == {
        f"{home}:v1": digest_of(image),
        f"{home}:{digest_of(image).replace(':', '-')}.sig": digest_of(cosigned),
        f"{home}@{digest_of(signature)}": digest_of(signature),
        f"{home}@{digest_of(counter)}": digest_of(counter),
    }
    assert found.names(IMAGE_NAME).count(None) == found.names(REF_NAME).count(None) == 3
    assert len(found.manifest) == 1


async def test_what_docker_cannot_run_is_no_image_for_docker(shelf: Shelf) -> None:
    await shelf.blob("team/chart", b"{}")
    await shelf.blob("team/chart", b"chart")
    config = described("application/vnd.cncf.helm.config.v1+json", b"{}")
    layer = described("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    await shelf.manifest("team/chart", "1", document)
    await shelf.image("team/app", "1", b"base")
    prepared = await shelf.prepare("team/*:1")
    assert list(prepared.remarks) == ["team/chart:1: no container image, so `docker load` will not see it"]
    found = await shelf.archive("team/*:1")
    assert [entry["RepoTags"] for entry in found.manifest] == [["team/app:1"]]
    assert found.names(IMAGE_NAME) == ["docker.io/team/app:1", "docker.io/team/chart:1"]
    assert "manifest.json" not in (await shelf.archive("team/chart:1")).files
    with pytest.raises(ManifestUnknown, match="no container image"):
        await shelf.prepare("team/*:1", form=Format.DOCKER)


async def test_dockers_own_format_has_one_platform_and_keeps_the_bytes_of_layers(shelf: Shelf) -> None:
    await two_platforms(shelf)
    found = await shelf.archive("team/multi:v1", form=Format.DOCKER, platforms=["linux/arm64"])
    layers = [f"{packed(layer).removeprefix('sha256:')}.tar.gz" for layer in (b"base", b"linux/arm64")]
    assert [entry["Layers"] for entry in found.manifest] == [layers]
    assert found.files.keys() == {"manifest.json", found.manifest[0]["Config"], *layers}
    assert gzip.decompress(found.files[layers[0]]) == b"base"
    with pytest.raises(RegistryError, match="one platform"):
        await shelf.prepare("team/multi:v1", form=Format.DOCKER, platforms=["linux/arm64", "linux/amd64"])
    with pytest.raises(BlobUnknown, match="there is no image for linux/s390x"):
        await shelf.prepare("team/multi:v1", form=Format.DOCKER, platforms=["linux/s390x"])


async def test_a_delta_leaves_out_what_the_other_side_has_and_says_so(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.image("team/app", "v1", b"base", b"one")
    lines = [line async for line in inventory(shelf.bucket)]
    have = held(inventory_file(tmp_path, *lines[1:]))
    assert {packed(b"base"), packed(b"one")} < have
    after = await shelf.image("team/app", "v2", b"base", b"two")
    found = await shelf.archive("team/app:*", have=have)
    assert packed(b"two") in found.blobs
    assert digest_of(after) in found.blobs
    assert not found.blobs & have
    assert "manifest.json" not in found.files
    assert "only `edge-registry import`" in found.index["annotations"][DELTA]
    hint = "DELTA-for-edge-registry-import-only"
    folders = sorted(member.name for member in found.members if member.isdir() and "/" not in member.name)
    assert folders == [hint, "blobs"]
    assert found.files[f"{hint}/README"].decode().strip() == found.index["annotations"][DELTA]


async def test_a_delta_that_leaves_out_nothing_is_an_archive_like_any_other(shelf: Shelf) -> None:
    await shelf.image("team/app", "v1", b"base")
    assert (await shelf.archive("team/app:v1", have={digest_of(b"other")})).data == (
        await shelf.archive("team/app:v1")
    ).data


async def test_an_inventory_has_each_digest_once_however_many_repositories_hold_it(shelf: Shelf) -> None:
    for name in ("team/one", "team/two", "team/three"):
        await shelf.image(name, "v1", b"base", name.encode())
    lines = [line async for line in inventory(shelf.bucket)]
    assert lines[0] == "# edge-registry inventory 1"
    assert lines[1:] == sorted(set(lines[1:]))
    assert {packed(layer) for layer in (b"base", b"team/one", b"team/two", b"team/three")} < set(lines[1:])


async def test_a_blob_that_a_client_deleted_is_in_no_inventory_though_its_derived_key_stays(shelf: Shelf) -> None:
    image = await shelf.image("team/app", "v1", b"gone")
    repository = Registry(shelf.bucket).repository(Name("team/app"))
    await repository.manifests.delete(digest_of(image))
    await repository.blobs.delete(Digest(packed(b"gone")))
    assert (await shelf.bucket.driver.list(keys.holders(Digest(packed(b"gone"))))).entries, "nothing is proven"
    assert packed(b"gone") not in [line async for line in inventory(shelf.bucket)]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
async def test_an_earlier_archive_is_a_list_of_what_the_other_side_has(
    shelf: Shelf, tmp_path: Path, ending: str
) -> None:
    await shelf.image("team/app", "v1", b"base")
    found = await shelf.archive("team/app:v1")
    path = tmp_path / f"earlier.{ending}"
    path.write_bytes(gzip.compress(found.data) if ending == "tar.gz" else found.data)
    assert held(path) == found.blobs
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "layout", filter="data")
    assert held(tmp_path / "layout") == found.blobs


@pytest.mark.parametrize("text", ["", "sha256:1\n", "# edge-registry inventory 1\nnonsense\n", "# something else\n"])
def test_what_is_no_inventory_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "have.txt"
    path.write_text(text)
    with pytest.raises(StartError, match=r"have\.txt"):
        held(path)


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
async def test_an_inventory_is_read_in_whatever_pieces_it_comes(shelf: Shelf, size: int) -> None:
    digests = [digest_of(b"%d" % number, algorithm) for number in range(9) for algorithm in ("sha256", "sha512")]
    for ending in ("", "\n"):
        text = "\n".join([HEADER, *digests]) + ending
        found = await received(chunked(text.encode(), size))
        assert all(digest in found for digest in digests)
        assert digest_of(b"other") not in found
    assert digests[0] not in await received(chunked(b"", size))


@pytest.mark.parametrize(
    "body", [b"\xff" * 9000, b"nonsense\n", f"{HEADER}\n\n".encode(), f"{HEADER}\nsha256:{'a' * 9000}\n".encode()]
)
async def test_a_body_that_is_no_inventory_is_refused(body: bytes) -> None:
    with pytest.raises(StartError, match="the body"):
        await received(chunked(body, 1000))


async def test_an_inventory_of_very_many_blobs_takes_little_memory() -> None:
    count = 50_000

    async def body() -> AsyncIterator[bytes]:
        yield f"{HEADER}\n".encode()
        for start in range(0, count, 1000):
            yield b"".join(f"sha256:{number:064x}\n".encode() for number in range(start, start + 1000))

    tracemalloc.start()
    try:
        found = await received(body())
        assert tracemalloc.get_traced_memory()[1] < 200 * count
    finally:
        tracemalloc.stop()
    assert Digest(f"sha256:{count - 1:064x}") in found


async def test_more_images_than_are_wanted_at_once_are_refused_and_not_looked_for(shelf: Shelf) -> None:
    for number in range(4):
        await shelf.image("team/app", f"v{number}", b"base")
    assert len((await shelf.prepare("team/app:v[012]", "team/app:v0", most=3)).images) == 3
    for references in (["team/app:*"], ["team/app:v0", "team/app:v[123]"]):
        with pytest.raises(TooManyImages, match="at most 3 images"):
            await shelf.prepare(*references, most=3)


@pytest.mark.parametrize("damage", [b"basE", b"bas", b"based"])
async def test_a_blob_that_has_decayed_ends_the_export(shelf: Shelf, damage: bytes) -> None:
    await shelf.blob("team/app", b"base")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [described("application/x", b"base")]}
    await shelf.manifest("team/app", "v1", document)
    await shelf.driver.put(await copy_of(shelf, "team/app", digest_of(b"base")), damage)
    with pytest.raises((Corrupt, BlobUnknown)) as caught:
        await shelf.archive("team/app:v1")
    assert digest_of(b"base") in str(caught.value) + str(getattr(caught.value, "detail", ""))


async def test_what_is_deleted_while_it_is_exported_ends_the_export(shelf: Shelf) -> None:
    image = await shelf.image("team/app", "v1", b"base")
    prepared = await shelf.prepare("team/app:v1")
    repository = Registry(shelf.bucket).repository(Name("team/app"))
    await repository.manifests.delete(digest_of(image))
    await repository.blobs.delete(digest_of(gzip.compress(b"base", mtime=0)))
    with pytest.raises((ManifestUnknown, BlobUnknown), match="was deleted meanwhile"):
        async for _ in prepared.tarball().chunks():
            pass


def test_files_of_eight_gigabytes_and_more_are_announced_as_such() -> None:
    @asynccontextmanager
    async def read() -> AsyncIterator[AsyncIterator[bytes]]:
        raise AssertionError("nobody reads it")
        yield

    size = 9 << 30
    tarball = Tarball([Member("blobs/sha256/" + "0" * 64, size, read)])
    headers = b"".join(header for header, _ in tarball._entries())
    with tarfile.open(fileobj=io.BytesIO(headers)) as archive:
        assert [member.size for _, member in zip(range(3), archive, strict=False)] == [0, 0, size]
    assert tarball.size == len(headers) + size + 1024
