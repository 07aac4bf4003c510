"""What manifests name is remembered between collections, and a wrong memory costs reading, never content."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.oci.digests import digest_of
from app.oci.errors import ManifestInvalid
from app.upkeep.garbage.named import NamedDigests
from app.upkeep.settings import UpkeepSettings
from storage.memory import MemoryDriver
from tests.registry.conftest import manifest_of
from tests.registry.recorded import Recorded
from tests.upkeep.conftest import Pass
from tests.upkeep.yard import HOUR, Yard, yard

LAYERS = [digest_of(b"one"), digest_of(b"two", "sha512")]
DATA = manifest_of(*LAYERS)
DIGEST = digest_of(DATA)


def manifests_read(recorded: Recorded) -> int:
    return len([key for action, key in recorded.log if action == "get" and "/_manifests/" in key])


async def test_a_manifest_is_read_once_and_not_once_a_collection(here: Yard, recorded: Recorded) -> None:
    for number in range(5):
        await here.image(b"layer", tag=f"v{number}")
    await here.publish(annotations={"one": "more"})
    recorded.log.clear()
    await here.collect()
    assert manifests_read(recorded) == 2
    await here.publish(annotations={"new": "one"})
    recorded.log.clear()
    await here.collect()
    await here.collect()
    assert manifests_read(recorded) == 1


async def test_a_folder_outlives_the_process(shelf: MemoryDriver, pass_: Pass, tmp_path: Path) -> None:
    settings = UpkeepSettings(cache=tmp_path / "cache")
    for expected in (1, 0):
        recorded = Recorded(shelf.replica())
        async with yard(recorded, pass_, settings=settings) as at:
            await at.image(b"layer")
            recorded.log.clear()
            await at.collect()
            assert manifests_read(recorded) == expected
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_what_is_learnt_is_known_with_both_algorithms(tmp_path: Path) -> None:
    named = NamedDigests(tmp_path)
    assert named.known([DIGEST]) == {}
    assert named.learn(DIGEST, DATA) == sorted(LAYERS)
    named.settle()
    named.close()
    again = NamedDigests(tmp_path)
    assert again.known([DIGEST, digest_of(b"other")]) == {DIGEST: sorted(LAYERS)}
    again.close()


@pytest.mark.parametrize("data", [b"not json", b"[]", DATA + b" ", b""])
def test_bytes_that_are_not_the_manifests_are_not_learnt(data: bytes) -> None:
    named = NamedDigests(None)
    with pytest.raises(ManifestInvalid):
        named.learn(DIGEST, data)
    assert named.known([DIGEST]) == {}
    named.close()


@pytest.mark.parametrize("change", ["UPDATE named SET names = x''", "UPDATE named SET mark = x'00'"])
async def test_a_row_that_was_changed_is_read_anew(
    shelf: MemoryDriver, pass_: Pass, tmp_path: Path, change: str
) -> None:
    async with yard(shelf, pass_, settings=UpkeepSettings(cache=tmp_path)) as at:
        await at.image(b"needed")
        await at.collect()
        await at.pass_(49 * HOUR)
    with closing(sqlite3.connect(tmp_path / "manifests-1.sqlite")) as database, database:
        assert database.execute(change).rowcount == 1
    async with yard(shelf, pass_, settings=UpkeepSettings(cache=tmp_path)) as at:
        assert (await at.collect()).gone == {}
        assert await at.read(digest_of(b"needed")) == b"needed"


@pytest.mark.parametrize("content", [b"not a database at all " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_damaged_file_is_made_anew(shelf: MemoryDriver, pass_: Pass, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "manifests-1.sqlite"
    file.write_bytes(content)
    async with yard(shelf, pass_, settings=UpkeepSettings(cache=tmp_path)) as at:
        await at.image(b"needed")
        await at.pass_(49 * HOUR)
        assert (await at.collect()).state == "done"
        assert await at.read(digest_of(b"needed")) == b"needed"
    again = NamedDigests(tmp_path)
    assert again.learn(DIGEST, DATA)
    assert again.known([DIGEST])
    again.close()


async def test_a_folder_that_cannot_be_written_costs_reading_only(
    shelf: MemoryDriver, pass_: Pass, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with yard(shelf, pass_, settings=UpkeepSettings(cache=tmp_path / "file" / "below")) as at:
        await at.image(b"needed")
        await at.pass_(49 * HOUR)
        assert (await at.collect()).state == "done"
        assert await at.read(digest_of(b"needed")) == b"needed"


def test_what_is_remembered_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.upkeep.garbage.named._SPARE", 2)
    named = NamedDigests(tmp_path)
    for number in range(5):
        data = manifest_of(note=number)
        named.learn(digest_of(data), data)
    named.trim(2)
    assert named.known([digest_of(manifest_of(note=4))])
    named.trim(1)
    assert not named.known([digest_of(manifest_of(note=4))])
    named.close()


async def test_two_processes_share_a_folder(shelf: MemoryDriver, pass_: Pass, tmp_path: Path) -> None:
    settings = UpkeepSettings(cache=tmp_path)
    async with yard(shelf, pass_, settings=settings) as one, yard(shelf.replica(), pass_, settings=settings) as two:
        for number in range(20):
            await one.publish(annotations={"n": str(number)})
        found = await asyncio.gather(one.collect(), two.collect(), one.collect())
        assert [report.state for report in found] == ["done"] * 3
