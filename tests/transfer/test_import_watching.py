"""The watched folder: an archive is dropped, and its image is there; nothing is imported twice or changed."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.errors import StartError
from app.imports import open_watcher
from app.settings import Settings
from app.transfer.imports.importing import Imported, Wish
from app.transfer.imports.watching import Watcher, archives
from storage.errors import Unavailable
from storage.memory import MemoryDriver
from tests.services.app import Watched
from tests.transfer.archives import Target, layout, picture, tar

IMAGE = picture(b"layer", bytes(200_000))
GOOD = tar(layout((IMAGE, "team/app:v1"), last=True))


class Ear:
    """What a watcher reports."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self.heard.append((level, event, dict(fields)))

    def take(self) -> list[tuple[str, str]]:
        """Level and event of each report since the last call."""
        found, self.heard = [(level, event) for level, event, _ in self.heard], []
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.fixture
def ear() -> Ear:
    return Ear()


def watcher(target: Target, folder: Path, ear: Ear) -> Watcher:
    return Watcher(target.bucket, target.importer, folder, 1, ear)


async def test_a_dropped_archive_is_imported_once_it_does_not_grow_any_more(
    tmp_path: Path, folder: Path, ear: Ear
) -> None:
    target = Target(tmp_path)
    watching = watcher(target, folder, ear)
    await watching.look()
    (folder / "image.tar").write_bytes(GOOD[:5000])
    await watching.look()
    (folder / "image.tar").write_bytes(GOOD)
    await watching.look()
    assert ear.take() == []
    await watching.look()
    assert ear.take() == [("info", "imported")]
    assert await target.whole("team/app", "v1") == IMAGE.digest
    await watching.look()
    assert ear.take() == []
    assert sorted(os.listdir(folder)) == ["image.tar"]


async def test_neither_a_restart_nor_another_replica_imports_it_again(tmp_path: Path, folder: Path, ear: Ear) -> None:
    store = MemoryDriver()
    (folder / "image.tar").write_bytes(GOOD)
    for _ in range(3):
        watching = watcher(Target(tmp_path, driver=store), folder, ear)
        await watching.look()
        await watching.look()
    assert ear.take() == [("info", "imported")]
    (folder / "image.tar").touch()
    os.utime(folder / "image.tar", ns=(1, 1))  # another file of that name
    await watching.look()
    await watching.look()
    assert ear.take() == [("info", "imported")]


async def test_replicas_that_find_it_at_the_same_time_import_it_once(tmp_path: Path, folder: Path, ear: Ear) -> None:
    store = MemoryDriver()
    (folder / "image.tar").write_bytes(GOOD)
    replicas = [watcher(Target(tmp_path, driver=store), folder, ear) for _ in range(3)]
    for _ in range(3):
        await asyncio.gather(*[replica.look() for replica in replicas])
    assert ear.take() == [("info", "imported")]


async def test_what_cannot_be_imported_is_said_once_and_tried_again_when_it_changes(
    tmp_path: Path, folder: Path, ear: Ear
) -> None:
    target = Target(tmp_path)
    watching = watcher(target, folder, ear)
    (folder / "bad.tar").write_bytes(b"<html>" * 200)
    (folder / "image.tar").write_bytes(GOOD)
    for _ in range(4):
        await watching.look()
    assert ear.heard[0][2] == {"file": "bad.tar", "error": "this is no archive of images, or it is damaged"}
    assert ear.take() == [("error", "import failed"), ("info", "imported")]
    (folder / "bad.tar").write_bytes(tar(layout((IMAGE, "team/other:v1"))))
    await watching.look()
    await watching.look()
    assert ear.take() == [("info", "imported")]


async def test_an_archive_that_is_cut_short_is_given_time(
    tmp_path: Path, folder: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watcher(Target(tmp_path), folder, ear)
    (folder / "slow.tar").write_bytes(GOOD[:9000])
    for _ in range(4):
        await watching.look()
    assert ear.take() == []
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    await watching.look()
    await watching.look()
    assert ear.take() == [("error", "import failed")]


async def test_a_store_that_is_away_is_tried_again(
    tmp_path: Path, folder: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Watched(MemoryDriver())
    target = Target(tmp_path, driver=store)  # type: ignore[arg-type]
    watching = watcher(target, folder, ear)
    (folder / "image.tar").write_bytes(GOOD)

    def refuse(_operation: str, _key: str) -> None:
        raise Unavailable("gone")

    store.refuse = refuse
    for _ in range(3):
        await watching.look()
    assert ear.take() == [("warning", "import put off")]
    store.refuse = lambda _operation, _key: None
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    await watching.look()
    assert ear.take() == [("info", "imported")]
    assert await target.whole("team/app", "v1") == IMAGE.digest


async def test_a_folder_that_is_gone_is_said_once(tmp_path: Path, folder: Path, ear: Ear) -> None:
    watching = watcher(Target(tmp_path), folder, ear)
    folder.rmdir()
    await watching.look()
    await watching.look()
    assert ear.take() == [("warning", "watched folder")]
    folder.mkdir()
    (folder / "image.tar").write_bytes(GOOD)
    await watching.look()
    await watching.look()
    assert ear.take() == [("info", "imported")]


async def test_an_archive_on_which_the_importer_breaks_keeps_no_other_out(
    tmp_path: Path, folder: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(tmp_path)
    read = target.importer.from_path

    async def broken(path: Path, wish: Wish) -> list[Imported]:
        if path.name == "a.tar":
            raise ValueError("embedded null byte")
        return await read(path, wish)

    monkeypatch.setattr(target.importer, "from_path", broken)
    watching = watcher(target, folder, ear)
    for name in ("a.tar", "b.tar"):
        (folder / name).write_bytes(GOOD)
    for _ in range(4):
        await watching.look()
    assert ear.heard[0][2] == {"file": "a.tar", "error": "ValueError: embedded null byte"}
    assert ear.take() == [("error", "import failed"), ("info", "imported")]


async def test_a_registry_that_is_read_only_watches_no_folder(tmp_path: Path, folder: Path) -> None:
    target = Target(tmp_path)
    settings = Settings.model_validate({"transfer": {"watch": folder}, "registry": {"read_only": True}})
    with pytest.raises(StartError, match=r"transfer\.watch: registry\.read_only is set"):
        await open_watcher(settings, target.bucket, target.importer, structlog.get_logger())


def test_archives_and_layouts_are_found_at_any_depth_and_nothing_else(folder: Path) -> None:
    for path in ("a.tar", "deep/er/b.tgz", "c.tar.zst", ".hidden.tar", ".cache/d.tar", "e.tar.part", "notes.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    for path in ("lay/index.json", "lay/oci-layout", "lay/blobs/sha256/x.tar"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"xy")
    (folder / "dangling.tar").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.tar")
    found = {seen.path: (seen.size, seen.files) for seen in archives(folder)}
    assert found == {"a.tar": (1, 1), "deep/er/b.tgz": (1, 1), "c.tar.zst": (1, 1), "lay": (6, 3)}
