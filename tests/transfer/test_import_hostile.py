"""Archives of strangers: whatever is wrong with one is one line, and nothing of it is kept."""

import gzip
import json
import lzma
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings, strategies as st

from app.oci.errors import RegistryError, Unavailable
from app.oci.manifests import Manifest, parse_manifest
from app.transfer.errors import ArchiveRefused, CutShort
from app.transfer.imports.importing import Wish
from app.transfer.imports.tar_reader import MEMBERS
from tests.services.client import INDEX, MANIFEST, descriptor, digest_of, encode, make_index
from tests.transfer.archives import (
    END,
    LAYOUT,
    Files,
    How,
    Target,
    blob,
    chunked,
    config_of,
    docker_save,
    entry,
    header,
    index_json,
    layout,
    padded,
    picture,
    tar,
)

GOOD = tar(layout((picture(b"layer", bytes(200_000)), "team/app:v1"), last=True))


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


@pytest.fixture(params=["file", "stream"])
def how(request: pytest.FixtureRequest) -> How:
    found: How = request.param
    return found


async def refused(target: Target, how: How, data: bytes | Files, line: str) -> None:
    """The archive as a whole is refused with this line, and the store is as it was."""
    with pytest.raises(ArchiveRefused) as refusal:
        await target.bring(data, how)
    assert line in refusal.value.message
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 300
    assert await target.keys() == []


async def troubled(target: Target, how: How, data: bytes | Files, line: str) -> None:
    """Its one image is refused with this line, and the store is as it was."""
    [found] = await target.bring(data, how)
    assert found.trouble is not None
    assert line in found.trouble
    assert "\n" not in found.trouble
    assert await target.keys() == []


def spiked(*blocks: bytes) -> bytes:
    """A good archive into which something is put, before its end."""
    end = len(GOOD.rstrip(b"\0"))
    end += -end % 512
    return GOOD[:end] + b"".join(blocks) + END


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (header(b"../../etc/passwd"), "../../etc/passwd leads outside of the archive"),
        (header(b"/etc/passwd"), "/etc/passwd leads outside of the archive"),
        (header(b"a/../../b"), "leads outside"),
        (header(b"link", b"2", link=b"/etc/passwd"), "link leads outside of the archive"),
        (header(b"a/link", b"2", link=b"../../etc/passwd"), "a/link leads outside of the archive"),
        (header(b"hard", b"1", link=b"../x"), "../x leads outside of the archive"),
        (header(b"hard", b"1", link=b"/etc/shadow"), "/etc/shadow leads outside"),
        (header(b"null", b"3"), "null is a device"),
        (header(b"disk", b"4"), "disk is a device"),
        (header(b"pipe", b"6"), "pipe is a pipe"),
        (header(b"sparse", b"S"), "sparse is a sparse file"),
        (header(b"what", b"Z"), "what is of a kind that is unknown"),
        (header(b"big", size=b"77777777777\0"), ""),
        (header(b"negative", size=b"\xff" * 12), "cannot be read"),
        (header(b"letters", size=b"12abc\0"), "damaged"),
        (header(b"x")[:148] + b"0000000\0" + header(b"x")[156:], "the archive is damaged"),
        (bytes(range(256)) * 2, "the archive is damaged"),
        (b"\xff" * 512, "a header of the archive cannot be read"),
        (header(b"long", b"L", size=4 << 20) + padded(bytes(1000)), "headers of the archive are too large"),
        (header(b"long", b"L", size=1 << 50), "too large"),
        (header(b"pax", b"x", size=1 << 40), "headers of the archive are too large"),
        (header(b"name", b"L", size=5001) + padded(b"n" * 5000 + b"\0") + header(b"n"), "is too long for a name"),
        (header(b"pax", b"x", size=9) + padded(b"9999 a=b\n"), "a header of the archive cannot be read"),
        (header(b"pax", b"x", size=8) + padded(b"0008 a=b"), "a header of the archive cannot be read"),
        (header(b"pax", b"x", size=12) + padded(b"12 size=-19\n") + header(b"n"), "cannot be read"),
        (header(b"pax", b"x", size=16) + padded(b"16 path=../../x\n") + header(b"n"), "../../x leads outside"),
        (header(b"pax", b"x", size=22) + padded(b"22 GNU.sparse.major=1\n") + header(b"n"), "n is a sparse file"),
        (header(b"pax", b"x", size=9) + padded(b"9 path=a\n"), "in the middle of a header"),
        (header(b"pax", b"x", size=5005) + padded(b"5 a=\n" * 1001) + header(b"n"), "has more than 1000 records"),
        (header(b"oci-layout", size=2) + padded(b"{}"), "oci-layout stands in the archive twice"),
        (header(b"\x1b[31m\nred", b"3"), "?[31m?red is a device"),
    ],
)
async def test_members_that_no_image_has_are_refused(target: Target, how: How, block: bytes, line: str) -> None:
    await refused(target, how, spiked(block), line)


async def test_what_is_no_archive_is_told_at_once(target: Target, how: How, tmp_path: Path) -> None:
    await refused(target, how, b"", "there is nothing in the archive")
    await refused(target, how, b"<html>" * 1000, "this is no archive of images")
    await refused(target, how, tar([("readme.txt", b"hello")]), "there is neither index.json nor manifest.json in it")
    await refused(target, how, GOOD + header(b"more") + END, "something follows the end of the archive")
    await refused(target, how, [LAYOUT, ("index.json", b"[" * 100_000)], "index.json is no JSON document")
    await refused(target, how, [LAYOUT, ("index.json", b'{"manifests":{}}')], "index.json lists no manifests")
    await refused(target, how, [LAYOUT, index_json()], "there is no image in the archive")
    await refused(target, how, [LAYOUT, index_json({"digest": "sha256:../../x"})], "index.json")
    await refused(target, how, [LAYOUT, ("index.json", b"{" + b" " * (4 << 20) + b"}")], "larger than 4 MiB")
    await refused(target, how, [("manifest.json", b'{"Config":"x"}')], "manifest.json lists no images")


async def test_a_blob_that_is_not_what_its_name_says_is_refused(target: Target) -> None:
    image = picture(b"layer", bytes(100_000))
    files = [
        (path, b"?" * len(data)) if data == bytes(100_000) else (path, data) for path, data in layout((image, "a/b:1"))
    ]
    line = f"{blob(bytes(100_000))[0]} has other bytes than its name"
    await refused(target, "stream", files, line)
    await troubled(target, "file", files, line)
    small = [(path, b"lay??") if data == b"layer" else (path, data) for path, data in layout((image, "a/b:1"))]
    await refused(target, "stream", small, "other bytes than its name says")
    await troubled(target, "file", small, "other bytes than its name")


async def test_a_manifest_that_is_not_what_its_name_says_is_refused(target: Target) -> None:
    image = picture(b"layer")
    evil = image.data.replace(b"layers", b"LAYERS")
    files = [(path, evil) if data == image.data else (path, data) for path, data in layout((image, "a/b:1"))]
    await refused(target, "stream", files, "other bytes than its name says")
    await troubled(target, "file", files, "other bytes than its name says")


async def test_lies_about_sizes_are_refused(target: Target, how: How) -> None:
    honest = picture(b"layer")
    document = json.loads(honest.data)
    document["layers"][0]["size"] = 1
    data = encode(document)
    files = [LAYOUT, index_json(entry(data, name="a/b:1")), blob(data), *honest.files]
    await troubled(target, how, files, "has another size than its descriptor says")
    files = [LAYOUT, index_json({**entry(honest.data, name="a/b:1"), "size": 7}), *honest.files]
    await troubled(target, how, files, "has another size than its descriptor says")


async def test_a_layer_that_is_not_the_one_of_the_config_is_refused(target: Target, how: How) -> None:
    files = docker_save(["a/b:1"], b"one" * 50_000, b"two")
    swapped = [(path, b"own" * 50_000) if path == files[2][0] else (path, data) for path, data in files]
    await troubled(target, how, swapped, "has other bytes than its name or its descriptor says")


async def test_an_image_that_lies_about_a_layer_takes_nothing_from_those_that_have_it(target: Target, how: How) -> None:
    """Its bytes are wrong; what it claims that they are is linked by now, here and by whoever pushed the same meanwhile."""
    layer, lie = b"{" + b"x" * 300_000, b"[" + b"y" * 100  # what looks like a document is held in memory
    listed = [
        {"Config": "one.json", "RepoTags": ["team/one:v1"], "Layers": ["a/layer.tar"]},
        {"Config": "two.json", "RepoTags": ["team/two:v1"], "Layers": ["b/layer.tar"]},
    ]
    files = [
        ("a/layer.tar", layer),
        ("b/layer.tar", lie),
        ("one.json", config_of(layer)),
        ("two.json", config_of(layer) + b" "),
        ("manifest.json", json.dumps(listed).encode()),
    ]
    one, two = await target.bring(files, how)
    assert one.trouble is None
    assert two.trouble is not None
    assert await target.whole("team/one", "v1") == one.digest


@pytest.mark.parametrize("link_first", [False, True])
@pytest.mark.parametrize("path", ["index.json", blob(b"layer")[0]])
async def test_a_link_does_not_stand_where_a_file_stands(target: Target, how: How, path: str, link_first: bool) -> None:
    """Which of the two counts would be up to who reads it."""
    link = header(path.encode(), b"2", link=b"oci-layout")
    body = GOOD[: len(GOOD) - len(END)] if link_first else spiked(link)
    await refused(target, how, link + body + END if link_first else body, "stands in the archive twice")


async def test_what_an_archive_says_reaches_no_terminal_as_it_is(target: Target, how: How) -> None:
    name = "UP/\x1b]0;title\x07" + "x" * 5000
    document = json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["l"]}]).encode()
    [found] = await target.bring([("c.json", config_of(b"l")), ("l", b"l"), ("manifest.json", document)], how)
    assert found.trouble is not None
    assert found.image.startswith("UP/?]0;title?xxx")
    for text in (found.image, found.trouble):
        assert text.isprintable()
        assert len(text) < 500


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
async def test_a_name_that_no_file_can_have_is_refused(target: Target, how: How, name: str, tmp_path: Path) -> None:
    document = json.dumps([{"Config": name, "RepoTags": ["a/b:1"], "Layers": []}]).encode()
    await troubled(target, how, [("manifest.json", document)], "a?b is no name of a file")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(document)
    [found] = await target.importer.from_path(folder, Wish())
    assert found.trouble == "a?b is no name of a file"


@pytest.mark.parametrize(
    ("listed", "line"),
    [
        ({"Config": "c.json", "Layers": ["../../etc/passwd"]}, "../../etc/passwd leads outside"),
        ({"Config": "/etc/passwd", "Layers": []}, "/etc/passwd leads outside"),
        ({"Config": "c.json", "Layers": ["no"]}, "no is not in the archive"),
        ({"Config": "no.json", "Layers": []}, "no.json is not in the archive"),
        ({"Config": "c.json", "Layers": []}, "c.json names 1 layers, and manifest.json 0"),
        ({"Config": "c.json", "Layers": ["l"] * 5000}, "names no config, or no layers"),
        ({"Config": 5, "Layers": ["l"]}, "names no config, or no layers"),
        ({"Config": "round", "Layers": ["l"]}, "the links of round lead nowhere"),
        ({"Config": "c.json", "Layers": ["l"], "RepoTags": ["UPPER/case:1"]}, "invalid repository name: UPPER/case"),
        ({"Config": "c.json", "Layers": ["l"], "RepoTags": ["a/b:t a g"]}, "invalid tag: t a g"),
        ({"Config": "c.json", "Layers": ["l"], "RepoTags": ["a/../../b:1"]}, "invalid repository name"),
    ],
)
async def test_lists_of_docker_archives_are_not_believed(
    target: Target, how: How, listed: dict[str, object], line: str
) -> None:
    listed = {"RepoTags": ["a/b:1"], **listed}
    files = [("c.json", config_of(b"layer")), ("l", b"layer"), ("manifest.json", json.dumps([listed]).encode())]
    await troubled(target, how, tar(files, {"round": "trip", "trip": "round"}), line)


async def test_indexes_that_nest_without_end_are_refused(target: Target, how: How) -> None:
    data, media_type, files = picture(b"layer").data, MANIFEST, picture(b"layer").files
    for _ in range(20):
        data, media_type = make_index([descriptor(data, media_type)]), INDEX
        files = [*files, blob(data)]
    await troubled(target, how, [LAYOUT, index_json(entry(data, INDEX, name="a/b:1")), *files], "nested too deeply")


async def test_an_index_that_names_the_same_thing_a_million_times_over_is_looked_at_once(
    target: Target, how: How
) -> None:
    image = picture(b"layer")
    data, media_type, files = image.data, MANIFEST, image.files
    for _ in range(7):  # 100 to the power of 7 ways
        data, media_type = make_index([descriptor(data, media_type)] * 100), INDEX
        files = [*files, blob(data)]
    [found] = await target.bring([LAYOUT, index_json(entry(data, INDEX, name="a/b:1")), *files], how)
    assert found.trouble is None


async def test_a_manifest_of_many_names_is_read_once_and_off_the_event_loop(
    target: Target, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty kilobytes of names over a manifest of megabytes held the event loop for minutes."""
    readers: list[threading.Thread] = []

    def noted(data: bytes, media_type: str | None) -> Manifest:
        readers.append(threading.current_thread())
        return parse_manifest(data, media_type)

    monkeypatch.setattr("app.transfer.imports.outline.parse_manifest", noted)
    image = picture(b"layer", annotations={"long": "x" * 100_000})
    names = [f"team/app{place % 2}:v{place}" for place in range(40)]
    names.sort()
    files = [LAYOUT, index_json(*[entry(image.data, name=name) for name in names]), *image.files]
    found = await target.bring(files, how)
    assert [(one.name, one.trouble) for one in found] == [(name, None) for name in names]
    for name in names:
        assert await target.whole(*name.split(":")) == image.digest
    assert len(readers) == 1
    assert readers[0] is not threading.main_thread()


async def test_an_archive_that_lists_too_many_images_is_refused(target: Target, how: How) -> None:
    image = picture(b"layer")
    names = [entry(image.data, name=f"team/app:v{place}") for place in range(1001)]
    await refused(target, how, [LAYOUT, index_json(*names), *image.files], "lists more than 1000 images")


async def test_manifests_that_are_made_of_an_archive_are_bounded_together(
    target: Target, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.transfer.imports.docker_archive._MANIFESTS", 50_000)
    files = [("l", b"layer"), *[(f"{place}.json", config_of(*[b"layer"] * (place + 100))) for place in range(4)]]
    listed = [
        {"Config": f"{place}.json", "RepoTags": [f"a/b:{place}"], "Layers": ["l"] * (place + 100)} for place in range(4)
    ]
    found = await target.bring([*files, ("manifest.json", json.dumps(listed).encode())], how)
    assert found[0].trouble is None
    assert found[3].trouble == "the images of the archive have too many layers"


async def test_an_import_stops_when_nobody_waits_for_it(target: Target, how: How) -> None:
    images = [(picture(b"%d" % place), f"team/app:v{place}") for place in range(3)]
    answers = [False, True]
    with pytest.raises(Unavailable):
        await target.bring(layout(*images), how, gone=lambda: answers.pop(0))
    assert await target.whole("team/app", "v0") == images[0][0].digest
    assert not [key for key in await target.keys() if key.endswith(("/_tags/v1", "/_tags/v2"))]
    assert await target.loose() == set()


async def test_a_bomb_is_noticed_long_before_it_is_unpacked(target: Target, tmp_path: Path) -> None:
    """A terabyte of zeros in a member: a gigabyte of gzip, of which little may be read."""
    taken = 0

    def bomb() -> Iterator[bytes]:
        nonlocal taken
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        zeros = bytes(1 << 20)
        yield packer.compress(header(b"blobs/big", size=1 << 40)) + packer.flush(2)
        while True:
            chunk = packer.compress(zeros) + packer.flush(2)
            taken += len(chunk)
            yield chunk

    async def stream() -> object:
        for chunk in bomb():
            yield chunk

    with pytest.raises(ArchiveRefused, match=r"more than 67\.1 MB, the most that is taken"):
        await target.importer.from_stream(stream(), Wish())  # type: ignore[arg-type]
    assert taken < 1 << 20
    with pytest.raises(ArchiveRefused, match="is a bomb"):
        await Target(tmp_path, limit=1 << 40).importer.from_stream(stream(), Wish(dry_run=True))  # type: ignore[arg-type]
    assert taken < 8 << 20
    assert await target.keys() == []


async def test_zeros_without_end_do_not_keep_a_server_busy(target: Target) -> None:
    packed = gzip.compress(GOOD + bytes(64 << 20))
    with pytest.raises(ArchiveRefused, match="does not end where it says so"):
        await Target(target.folder, limit=1 << 40).bring(packed, "stream")


async def test_an_archive_of_too_many_members_is_refused(target: Target, how: How) -> None:
    await refused(target, how, header(b"empty") * 2 + header(b"empty", b"5") * MEMBERS + END, "")


async def test_names_are_counted_in_bytes_and_headers_with_their_blocks(target: Target) -> None:
    def named(name: bytes) -> bytes:
        record = b"%d path=%s\n" % (len(name) + 11, name)
        return header(b"p", b"x", len(record)) + padded(record) + header(b"q")

    wide = b"".join(named(b"%06d" % place + "\U0001f600".encode() * 1000) for place in range(9000))
    await refused(target, "stream", gzip.compress(wide + END, 1), "names in the archive have more than 32 MiB")
    empty = header(b"p", b"x") * 300_000
    with pytest.raises(ArchiveRefused, match="headers of the archive are too large"):
        await Target(target.folder, limit=1 << 30).bring(gzip.compress(empty, 1), "stream")


@pytest.mark.parametrize(
    ("window", "pack"),
    [
        (64, lambda data: lzma.compress(data, preset=9)),
        (
            128,
            lambda data: lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 128 << 20}]),
        ),
        (64, lambda data: long_zstd(data, 26)),
        (128, lambda data: long_zstd(data, 27)),
    ],
)
async def test_unpacking_takes_no_more_memory_than_a_window_of_64_mib(
    target: Target, window: int, pack: Callable[[bytes], bytes]
) -> None:
    if window > 64:
        await refused(target, "stream", pack(GOOD), "would take too much memory: its window is above 64 MiB")
    else:
        [found] = await target.bring(pack(GOOD), "stream")
        assert found.trouble is None


def long_zstd(data: bytes, window_log: int) -> bytes:
    """As a stream whose length is not known, which so has the window that was asked for."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return packer.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush()


async def test_damage_inside_compression_is_refused(target: Target) -> None:
    packed = bytearray(gzip.compress(GOOD))
    packed[len(packed) // 2] ^= 0xFF
    await refused(target, "stream", bytes(packed), "damaged")
    packed = bytearray(gzip.compress(GOOD))
    packed[-5] ^= 0xFF  # the checksum
    await refused(target, "stream", bytes(packed), "damaged")
    await refused(target, "stream", gzip.compress(GOOD) + b"rubbish", "damaged")
    await refused(target, "stream", gzip.compress(GOOD)[:-1], "cut short")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
async def test_an_archive_that_is_cut_at_any_byte_leaves_nothing(tmp_path: Path, data: st.DataObject) -> None:
    packed = data.draw(st.booleans())
    whole = gzip.compress(GOOD, 1) if packed else GOOD
    least = len(whole) if packed else len(GOOD.rstrip(b"\0"))  # then come the zeros of the last block, and of the end
    cut = data.draw(st.integers(0, least - 1))
    how: How = data.draw(st.sampled_from(["file", "stream"]))
    target = Target(tmp_path)
    with pytest.raises(CutShort):
        await target.bring(whole[:cut], how)
    assert await target.keys() == []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
async def test_an_archive_with_any_byte_changed_is_right_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(GOOD.rstrip(b"\0")) - 1))
    spoilt = bytearray(GOOD)
    spoilt[place] ^= data.draw(st.integers(1, 255))
    how: How = data.draw(st.sampled_from(["file", "stream"]))
    target = Target(tmp_path)
    try:
        found = await target.bring(bytes(spoilt), how)
    except RegistryError:
        found = []
    for image in found:
        if image.trouble is None:
            name, _, tag = image.name.partition(":")
            assert await target.whole(name, tag or image.digest) == image.digest
    assert await target.loose() == set()


async def test_a_folder_leads_nowhere_else(target: Target, tmp_path: Path) -> None:
    image, secret = picture(b"layer"), tmp_path / "secret"
    secret.write_bytes(b"layer")
    folder = tmp_path / "layout"
    for path, data in layout((image, "a/b:1")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    stolen = folder / blob(b"layer")[0]
    stolen.unlink()
    stolen.symlink_to(secret)
    [found] = await target.importer.from_path(folder, Wish())
    assert found.trouble is not None
    assert "cannot be read" in found.trouble
    stolen.unlink()
    os.mkfifo(stolen)
    [found] = await target.importer.from_path(folder, Wish())
    assert found.trouble is not None
    assert "is no plain file" in found.trouble
    stolen.unlink()
    (folder / "blobs/sha256").rename(tmp_path / "elsewhere")
    (folder / "blobs/sha256").symlink_to(tmp_path / "elsewhere")
    [found] = await target.importer.from_path(folder, Wish())
    assert found.trouble is not None
    assert await target.keys() == []


async def test_a_client_that_goes_away_leaves_nothing(target: Target) -> None:
    async def broken() -> object:
        async for chunk in chunked(GOOD[:100_000]):
            yield chunk
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await target.importer.from_stream(broken(), Wish())  # type: ignore[arg-type]
    assert await target.keys() == []
    assert digest_of(b"layer") not in str(await target.keys())
