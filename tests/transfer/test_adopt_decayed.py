"""Taking over what is garbled, gone, or was written by somebody hostile: reported, and nothing invented."""

import hashlib
import json
from contextlib import AbstractAsyncContextManager

import pytest

from app.errors import StartError
from app.oci.digests import Digest, digest_of
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.registry import Repository
from app.transfer.adoption.layout import parse_names, parse_root
from storage import Reader
from storage.memory import MemoryDriver
from tests.registry.conftest import stream
from tests.services.client import descriptor, make_image, make_index, noise
from tests.transfer.adopting import Old, adopt, fingerprints, open_bucket

APP = Name("app")


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def old(driver: MemoryDriver) -> Old:
    return Old(driver)


def here(driver: MemoryDriver, name: Name = APP) -> Repository:
    return Repository(open_bucket(driver), name)


async def bound(driver: MemoryDriver) -> list[str]:
    return [keys.digest_below(key) for key in await fingerprints(driver, keys.links(APP))]


async def read(driver: MemoryDriver, digest: str) -> bytes:
    blobs = here(driver).blobs
    async with blobs.open(await blobs.stat(Digest(digest))) as reader:
        return b"".join([chunk async for chunk in reader])


def layer_link(digest: str) -> str:
    return f"repositories/{APP}/_layers/{digest.replace(':', '/')}/link"


@pytest.mark.parametrize(
    "content", [b"", b"sha256:abc", b"\xff\xfe\x00", b"nothing", b"x" * 5000, digest_of(b"other").encode()]
)
async def test_a_link_that_holds_something_else_is_left(driver: MemoryDriver, old: Old, content: bytes) -> None:
    await old.blob(APP, b"other")
    digest = await old.blob(APP, b"layer")
    await old.put(layer_link(digest), content)
    report = await adopt(driver)
    assert await bound(driver) == [digest_of(b"other")]
    assert [note.what for note in report.notes["left"]] == [f"blob {digest}"]
    assert not report.whole


async def test_a_link_with_a_line_end_is_read_as_distribution_reads_it(driver: MemoryDriver, old: Old) -> None:
    digest = await old.blob(APP, b"layer")
    await old.put(layer_link(digest), digest.encode() + b"\n")
    assert (await adopt(driver)).whole
    assert await bound(driver) == [digest]


async def test_a_link_to_bytes_that_are_gone_or_empty_is_left(driver: MemoryDriver, old: Old) -> None:
    gone, empty = await old.blob(APP, b"gone"), await old.blob(APP, b"empty")
    await old.delete(f"blobs/sha256/{gone[7:9]}/{gone[7:]}/data")
    await old.data(empty, b"")
    really_empty = await old.blob(APP, b"")
    report = await adopt(driver)
    assert await bound(driver) == [really_empty]
    assert {note.what: note.why for note in report.notes["left"]} == {
        f"blob {gone}": "its bytes are not there",
        f"blob {empty}": "its bytes are gone: the file is empty",
    }


async def test_names_that_are_none_here_are_left_with_one_line_each(driver: MemoryDriver, old: Old) -> None:
    for name in ("UPPER", "a" * 255, "trailing-", "a/-/b"):
        await old.image(name, "v1", "v2")
    await old.put(f"repositories/{APP}/_layers/tarsum.v1+sha256/abc/link", b"x")
    await old.put(f"repositories/{APP}/_manifests/tags/-bad/current/link", b"x")
    report = await adopt(driver)
    assert [note.repository for note in report.notes["left"]] == [
        "UPPER",
        "a/-/b",
        "a" * 255,
        "app",
        "app",
        "trailing-",
    ]
    assert await fingerprints(driver, keys.REPOSITORIES) == {}


async def test_what_distribution_keeps_beside_its_links_is_passed_by(driver: MemoryDriver, old: Old) -> None:
    image = await old.image(APP, "v1")
    for path in (
        "_uploads/0f/startedat",
        "_uploads/0f/data",
        "_uploads/0f/hashstates/sha256/0",
        f"_manifests/revisions/{image.digest.replace(':', '/')}/signatures/sha256/abc/link",
    ):
        await old.put(f"repositories/{APP}/{path}", b"x")
    assert (await adopt(driver)).whole


async def test_long_histories_and_uploads_are_jumped_over(driver: MemoryDriver, old: Old) -> None:
    image = await old.image(APP, "latest", "next")
    for number in range(2500):
        digest = digest_of(str(number).encode())
        await old.put(f"repositories/{APP}/_manifests/tags/latest/index/{digest.replace(':', '/')}/link", b"x")
        await old.put(f"repositories/{APP}/_uploads/{number}/startedat", b"x")
    await old.image("b", "v1")
    pages: list[str] = []
    real = driver.list

    async def counted(prefix: str, **more: object) -> object:
        pages.append(prefix)
        return await real(prefix, **more)  # type: ignore[arg-type]

    driver.list = counted  # type: ignore[assignment,method-assign]
    report = await adopt(driver)
    assert (report.repositories, report.found["tags"]) == (2, 3)
    assert len([prefix for prefix in pages if prefix.endswith("v2/repositories/")]) == 3
    assert (await here(driver).manifests.stat_tag(Tag("next"))).digest == image.digest


async def test_manifests_that_cannot_be_read_are_left_and_their_tags_too(driver: MemoryDriver, old: Old) -> None:
    ancient = await old.manifest(APP, json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "ancient")
    text = await old.manifest(APP, b"no manifest", "text")
    huge = await old.manifest(APP, noise((4 << 20) + 1), "huge")
    garbled = await old.manifest(APP, make_image(b"x").data, "garbled")
    await old.data(garbled, make_image(b"y").data)
    gone = await old.manifest(APP, make_image(b"z").data, "gone")
    await old.delete(f"blobs/sha256/{gone[7:9]}/{gone[7:]}/data")
    await old.tag(APP, "dangling", digest_of(b"deleted"))
    report = await adopt(driver)
    why = {note.what: note.why for note in report.notes["left"]}
    assert "schema 1" in why[f"manifest {ancient}"]
    assert "JSON" in why[f"manifest {text}"]
    assert "larger" in why[f"manifest {huge}"]
    assert "hash" in why[f"manifest {garbled}"]
    assert "not there" in why[f"manifest {gone}"]
    assert {f"tag {tag}" for tag in ("ancient", "text", "huge", "garbled", "gone")} <= set(why)
    assert [note.what for note in report.notes["gone"]] == ["tag dangling"]
    assert await fingerprints(driver, keys.REPOSITORIES) == {}


async def test_a_manifest_that_lacks_parts_comes_as_it_is_and_says_so(driver: MemoryDriver, old: Old) -> None:
    image = make_image(b"never pushed", config=b"{}")
    await old.blob(APP, b"{}")
    await old.manifest(APP, image.data, "hollow")
    index = make_index([descriptor(b"never pushed either", "application/vnd.oci.image.manifest.v1+json")])
    await old.manifest(APP, index, "sparse")
    report = await adopt(driver)
    assert (await here(driver).manifests.get_tag(Tag("hollow")))[1] == image.data
    assert (await here(driver).manifests.get_tag(Tag("sparse")))[1] == index
    assert sorted(digest_of(b"never pushed") in note.why for note in report.notes["sparse"]) == [False, True]
    assert not report.whole


async def test_decayed_bytes_are_found_by_their_size_and_never_bound_again(driver: MemoryDriver, old: Old) -> None:
    image = await old.image(APP, "v1")
    layer = image.blobs[1]
    await old.data(digest_of(layer), layer[:-3])
    report = await adopt(driver)
    assert ["do not hash" in note.why for note in report.notes["left"]] == [True]
    assert digest_of(layer) not in await bound(driver)
    again = await adopt(driver)
    assert digest_of(layer) not in await bound(driver)
    assert not again.whole
    await here(driver).uploads.put(Digest(digest_of(layer)), stream(layer))  # a push heals it
    assert await read(driver, digest_of(layer)) == layer
    assert (await adopt(driver)).whole


async def test_right_bytes_stay_where_a_manifest_lies_about_their_size(driver: MemoryDriver, old: Old) -> None:
    layer = b"layer"
    image = make_image(layer)
    lying = image.data.replace(f'"size": {len(layer)}'.encode(), b'"size": 7')
    assert lying != image.data
    for blob in image.blobs:
        await old.blob(APP, blob)
    await old.manifest(APP, lying, "v1")
    report = await adopt(driver)
    assert ["not the 7" in note.why for note in report.notes["left"]] == [True]
    assert await read(driver, digest_of(layer)) == layer


async def test_a_sha512_link_to_a_sha256_blob_is_bound_once_its_bytes_are_verified(
    driver: MemoryDriver, old: Old
) -> None:
    canonical = await old.blob(APP, b"layer")
    right = "sha512:" + hashlib.sha512(b"layer").hexdigest()
    wrong = "sha512:" + hashlib.sha512(b"other").hexdigest()
    for digest in (right, wrong):
        await old.put(layer_link(digest), canonical.encode())
    report = await adopt(driver)
    assert await read(driver, right) == b"layer"
    assert sorted(await bound(driver)) == sorted([canonical, right])
    assert [note.what for note in report.notes["left"]] == [f"blob {wrong}"]


async def test_bytes_that_are_being_collected_here_are_copied_for_a_manifest_and_else_left(
    driver: MemoryDriver, old: Old
) -> None:
    image = await old.image(APP, "v1")
    lonely = await old.blob(APP, b"lonely")
    for digest in (lonely, digest_of(image.blobs[1])):
        copy = keys.adopted(Digest(digest), 0)
        await driver.put(keys.tombstone(copy, keys.EVERYWHERE), b"")
    report = await adopt(driver)
    assert report.whole, report.document()
    assert report.done["blob_bytes_copied"] == len(image.blobs[1])
    assert lonely not in await bound(driver)
    assert await read(driver, digest_of(image.blobs[1])) == image.blobs[1]
    assert len(await fingerprints(driver, keys.DATA)) == 1


async def test_a_layer_that_arrives_after_layers_were_listed_comes_with_its_manifest(
    driver: MemoryDriver, old: Old
) -> None:
    """The old registry takes pushes while this runs."""
    image = make_image(b"late", config=b"{}")
    await old.blob(APP, b"{}")
    await old.manifest(APP, image.data, "v1")
    real = driver.open

    def late(key: str, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[Reader]:
        driver._shelf.put(f"docker/registry/v2/{layer_link(digest_of(b'late'))}", digest_of(b"late").encode(), 1.0)
        hexadecimal = digest_of(b"late")[7:]
        driver._shelf.put(f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data", b"late", 1.0)
        return real(key, start, end)

    driver.open = late  # type: ignore[method-assign]
    report = await adopt(driver)
    assert report.whole, report.document()
    assert await read(driver, digest_of(b"late")) == b"late"


@pytest.mark.parametrize("text", ["../x", "a//b", "a/.b", "a b", "a!b", "x" * 65, "é"])
def test_a_root_that_is_no_folder_of_a_bucket_is_refused(text: str) -> None:
    with pytest.raises(StartError):
        parse_root(text)


@pytest.mark.parametrize(("text", "root"), [("", ""), ("/", ""), ("/a/b/", "a/b"), ("registry-2.8", "registry-2.8")])
def test_a_root_is_written_with_or_without_slashes(text: str, root: str) -> None:
    assert parse_root(text) == root


@pytest.mark.parametrize("text", ["", "../x", "Team/*", "a b", "ü*", "x" * 255, "/team"])
def test_a_glob_that_no_repository_can_match_is_refused(text: str) -> None:
    with pytest.raises(StartError):
        parse_names(text)


@pytest.mark.parametrize("text", ["*", "team/*", "[ab]*/app", "?", "a_b/c--d", "[!a]*"])
def test_a_glob_is_taken_as_it_is(text: str) -> None:
    assert parse_names(text) == text
