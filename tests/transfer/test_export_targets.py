"""Where archives go: whole or not at all, with the right checksum, and without memory growing with them."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import StartError
from app.oci.digests import digest_of
from app.oci.manifests import OCI_MANIFEST
from app.transfer.exports.contents import DELTA, IMAGE_NAME, REF_NAME
from app.transfer.exports.exporting import Format
from app.transfer.exports.targets import Pouring, Written, write_file, write_folder, write_text
from storage import Corrupt
from storage.filesystem import FilesystemDriver
from tests.transfer.exported import Shelf, described

MB = 1_000_000


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    found = Shelf()
    yield found
    await found.close()


async def chunks_of(*chunks: bytes, failure: BaseException | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if failure is not None:
        raise failure


async def written(path: Path, chunks: AsyncIterator[bytes], *, gzip: bool = False, size: int = 0) -> Written:
    return await write_file(path, chunks, size=size, gzip=gzip, progress=lambda _come, _total: None)


async def test_a_file_has_its_checksum_beside_it(tmp_path: Path) -> None:
    data = os.urandom(3 * MB)
    path = tmp_path / "images.tar"
    found = await written(path, chunks_of(data[:1], data[1:]))
    assert path.read_bytes() == data
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (tmp_path / "images.tar.sha256").read_text() == f"{found.sha256}  images.tar\n"
    assert {entry.name for entry in tmp_path.iterdir()} == {"images.tar", "images.tar.sha256"}


async def test_compressed_files_are_the_same_each_time(tmp_path: Path) -> None:
    data = b"compressible " * 100_000
    for name in ("a.tar.gz", "b.tar.gz"):
        found = await written(tmp_path / name, chunks_of(data[:700_000], data[700_000:]), gzip=True)
        assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.tar.gz").read_bytes()) == data


async def test_an_export_that_fails_leaves_the_archive_of_before_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    before = await written(path, chunks_of(b"before"))
    with pytest.raises(Corrupt):
        await written(path, chunks_of(bytes(2 * MB), failure=Corrupt("decayed")))
    assert path.read_bytes() == b"before"
    assert (tmp_path / "images.tar.sha256").read_text().startswith(before.sha256)
    assert {entry.name for entry in tmp_path.iterdir()} == {"images.tar", "images.tar.sha256"}


async def test_an_export_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(2 * MB)
        yield bytes(2 * MB)
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(written(tmp_path / "images.tar", endless()))
    await stuck.wait()
    assert (tmp_path / "images.tar.part").exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_what_does_not_fit_the_disk_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        await written(tmp_path / "images.tar", chunks_of(b"never read", failure=AssertionError()), size=1 << 60)
    assert list(tmp_path.iterdir()) == []


async def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = asyncio.create_task(asyncio.to_thread(path.read_bytes))
    await written(path, chunks_of(b"through ", b"the pipe"))
    assert await reading == b"through the pipe"
    assert path.is_fifo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


async def test_a_reader_that_goes_away_ends_a_stream() -> None:
    class Gone(io.RawIOBase):
        def write(self, _data: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await Pouring(Gone()).pour(chunks_of(*[bytes(MB)] * 9), lambda _: None)  # type: ignore[arg-type]


async def test_an_inventory_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "have.txt"
    await write_text(path, chunks_of(b"before\n"))
    with pytest.raises(Corrupt):
        await write_text(path, chunks_of(b"half", failure=Corrupt("gone")))
    assert [entry.name for entry in tmp_path.iterdir()] == ["have.txt"]
    assert path.read_text() == "before\n"


async def to_folder(shelf: Shelf, folder: Path, *references: str, **wish: Any) -> int:
    prepared = await shelf.prepare(*references, form=Format.FOLDER, **wish)
    return await write_folder(folder, prepared.contents.members, lambda _come, _total: None)


def layout_index(folder: Path) -> Any:
    return json.loads((folder / "index.json").read_text())


def check_layout(folder: Path) -> None:
    """Each blob is what its name says, and the index names only what is there."""
    for path in folder.glob("blobs/*/*"):
        assert digest_of(path.read_bytes(), path.parent.name) == f"{path.parent.name}:{path.name}"
    for entry in layout_index(folder)["manifests"]:
        assert (folder / "blobs" / entry["digest"].replace(":", "/")).stat().st_size == entry["size"]


async def test_a_folder_grows_by_what_is_new_and_forgets_nothing(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    await shelf.image("team/one", "v1", b"base" * MB, b"one")
    await to_folder(shelf, folder, "team/one:v1")
    check_layout(folder)
    base = max(folder.glob("blobs/*/*"), key=lambda path: path.stat().st_size)
    there = base.stat().st_ino
    await shelf.image("team/two", "v1", b"base" * MB, b"two")
    moved = await shelf.image("team/one", "latest", b"base" * MB, b"moved")
    await to_folder(shelf, folder, "team/two:v1", "team/one:latest")
    check_layout(folder)
    assert base.stat().st_ino == there
    found = {entry["annotations"][IMAGE_NAME]: entry for entry in layout_index(folder)["manifests"]}
    assert list(found) == [f"docker.io/team/{name}" for name in ("one:latest", "one:v1", "two:v1")]
    assert found["docker.io/team/one:latest"]["digest"] == digest_of(moved)
    named = [entry["annotations"][REF_NAME] for entry in found.values()]
    assert named == ["latest", "team/one:v1", "team/two:v1"]


async def test_a_folder_keeps_what_was_pushed_beside_what_docker_hub_calls_the_same(tmp_path: Path) -> None:
    shelf = Shelf(upstreams=("docker.io",))
    await shelf.image("docker.io/team/app", "1", b"cached")
    await shelf.image("team/app", "1", b"pushed")
    for name in ("docker.io/team/app:1", "team/app:1"):
        await to_folder(shelf, tmp_path, name)
    annotations = [entry["annotations"] for entry in layout_index(tmp_path)["manifests"]]
    assert [found[IMAGE_NAME] for found in annotations] == ["docker.io/team/app:1"] * 2
    assert [found[REF_NAME] for found in annotations] == ["docker.io/team/app:1", "team/app:1"]
    await shelf.close()


async def test_a_tag_that_moved_names_its_new_image_in_a_folder(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.image("team/app", "latest", b"old")
    await to_folder(shelf, tmp_path / "stick", "team/app")
    new = await shelf.image("team/app", "latest", b"new")
    await to_folder(shelf, tmp_path / "stick", "team/app")
    assert [entry["digest"] for entry in layout_index(tmp_path / "stick")["manifests"]] == [digest_of(new)]


async def test_a_tag_of_an_early_export_names_its_new_image_in_a_folder(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.image("team/app", "v1", b"old")
    await to_folder(shelf, tmp_path, "team/app:v1")
    early = (tmp_path / "index.json").read_text().replace("docker.io/team/app", "team/app")
    (tmp_path / "index.json").write_text(early)
    new = await shelf.image("team/app", "v1", b"new")
    await to_folder(shelf, tmp_path, "team/app:v1")
    assert [entry["digest"] for entry in layout_index(tmp_path)["manifests"]] == [digest_of(new)]


async def test_a_blob_that_decayed_in_a_folder_is_written_again(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.image("team/app", "v1", b"base")
    await to_folder(shelf, tmp_path, "team/app:v1")
    for path in tmp_path.glob("blobs/*/*"):
        path.write_bytes(bytes(path.stat().st_size))
    await to_folder(shelf, tmp_path, "team/app:v1")
    check_layout(tmp_path)


async def test_a_folder_of_something_else_is_left_alone(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    await shelf.image("team/app", "v1", b"base")
    with pytest.raises(StartError, match="no OCI layout"):
        await to_folder(shelf, tmp_path, "team/app:v1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


async def test_a_folder_without_what_the_other_side_has_says_so(shelf: Shelf, tmp_path: Path) -> None:
    image = await shelf.image("team/app", "v1", b"base")
    layer = json.loads(image)["layers"][0]["digest"]
    await to_folder(shelf, tmp_path, "team/app:v1", have={layer})
    assert DELTA in layout_index(tmp_path)["annotations"]
    assert not (tmp_path / "blobs" / layer.replace(":", "/")).exists()


async def test_memory_stays_flat_however_large_a_layer_is(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    await driver.start()
    shelf = Shelf(driver)
    layer = bytes(64 * MB)
    await shelf.blob("team/app", layer)
    described_layer = described("application/x", layer)
    del layer
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [described_layer]}
    await shelf.manifest("team/app", "v1", document)
    tarball = (await shelf.prepare("team/app:v1")).tarball()
    tracemalloc.start()
    try:
        found = await written(tmp_path / "images.tar", tarball.chunks(), size=tarball.size)
        assert found.size > 64 * MB
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()
    await shelf.close()
    await driver.close()
