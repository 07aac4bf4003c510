"""`edge-registry verify` and `rebuild`, on a folder that somebody has broken."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.oci.digests import digest_of
from app.registry import keys
from app.registry.keys import Copy
from app.upkeep.decay import accounts
from storage.filesystem import FilesystemDriver
from tests.cli.conftest import Edge
from tests.services.registry import filesystem_store
from tests.upkeep.decaying import HERE, THERE, decaying

LAYER = digest_of(b"layer")


@pytest.fixture
async def store(tmp_path: Path) -> dict[str, str]:
    """The environment of a folder with two images, which share no bytes."""
    async with decaying(FilesystemDriver(tmp_path / "store")) as found:
        await found.image(b"layer")
        await found.image(b"layer", name=THERE)
    return filesystem_store(tmp_path / "store")


@pytest.fixture
async def bytes_of(tmp_path: Path, store: dict[str, str]) -> Callable[[str], Path]:
    """The file that holds the layer of a repository."""
    async with decaying(FilesystemDriver(tmp_path / "store")) as found:
        copies: dict[str, Copy] = {name: await found.copy(LAYER, name) for name in (HERE, THERE)}
    return lambda name: next((tmp_path / "store").rglob(copies[name].uuid))


def test_a_sound_store_ends_well_and_says_what_was_looked_at(edge: Edge, store: dict[str, str]) -> None:
    ended = edge("verify", "--all", **store)
    assert (ended.status, ended.stderr) == (0, "hashing blobs: 10 B\n")
    first, second, last = ended.stdout.splitlines()
    assert first == "2 repositories: 2 manifests, 2 tags, 2 links to 2 blobs"
    assert second.startswith("2 blobs hashed: 10 B, in ")
    assert last == "all is sound"


def test_decay_is_told_mended_and_remembered(
    edge: Edge, store: dict[str, str], bytes_of: Callable[[str], Path]
) -> None:
    bytes_of(HERE).write_bytes(b"layes")
    found = edge("verify", "--all", "--rate", "10MB", **store)
    assert found.status == 1
    line = f"copy-garbled: {HERE} {LAYER}: "
    assert found.stdout.startswith(line)
    assert "; to mend it: push or import the image again" in found.stdout
    assert found.stdout.splitlines()[-1] == "1 broken"
    mended = edge("verify", "--all", "--repair", **store)
    assert (mended.status, mended.stdout.splitlines()[-1]) == (0, "1 mended")
    assert f"; mended: linked to a copy of {THERE}" in mended.stdout
    last = edge("verify", "--last", **store)
    assert (last.status, last.stdout.startswith(line)) == (0, True)
    document = json.loads(edge("verify", "--last", "--json", **store).stdout)
    assert (document["sound"], document["mended"]) == (True, {"copy-garbled": 1})
    assert edge("verify", "--all", **store).stdout.splitlines()[-1] == "all is sound"


def test_json_is_one_object_and_nothing_else(
    edge: Edge, store: dict[str, str], bytes_of: Callable[[str], Path]
) -> None:
    bytes_of(HERE).unlink()
    ended = edge("verify", "--sample", "0", "--repository", "team/*", "--json", **store)
    document = json.loads(ended.stdout)
    assert (ended.status, document["broken"], document["repositories"]) == (1, 1, "team/*")
    assert [(found["kind"], found["repository"]) for found in document["findings"]] == [("copy-gone", HERE)]


def test_runs_go_on_where_the_last_one_ended(edge: Edge, store: dict[str, str]) -> None:
    places = [json.loads(edge("verify", "--sample", "30%", "--json", **store).stdout)["sample"] for _ in range(2)]
    assert places == [{"from": 0.0, "to": 0.3}, {"from": 0.3, "to": 0.6}]


def test_runs_over_some_repositories_go_on_where_the_last_one_over_the_same_ended(
    edge: Edge, store: dict[str, str]
) -> None:
    def start(*arguments: str) -> float:
        ended = edge("verify", "--sample", "30%", "--json", *arguments, **store)
        return float(json.loads(ended.stdout)["sample"]["from"])

    assert [start("--repository", "team/*") for _ in range(3)] == [0.0, 0.3, 0.6]
    assert [start() for _ in range(2)] == [0.0, 0.3]
    assert start("--repository", "other") == 0.0
    assert start("--repository", "team/*") == pytest.approx(0.9)


async def fail(path: Path, why: str) -> None:
    """As a server does whose look did not reach its end."""
    async with decaying(FilesystemDriver(path)) as found:
        await accounts.keep_failure(found.bucket, why)


def test_a_look_of_servers_that_failed_later_is_said_beside_the_last_report(
    edge: Edge, store: dict[str, str], tmp_path: Path
) -> None:
    asyncio.run(fail(tmp_path / "store", "an older one"))
    assert edge("verify", **store).status == 0
    assert edge("verify", "--last", **store).stderr == ""
    asyncio.run(fail(tmp_path / "store", "the folder for temporary files failed"))
    ended = edge("verify", "--last", **store)
    assert (ended.status, ended.stdout.splitlines()[-1].endswith("all is sound")) == (0, True)
    assert "did not reach its end: the folder for temporary files failed" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--sample", "much"), "--sample"),
        (("--sample", "101%"), "--sample"),
        (("--rate", "fast"), "--rate"),
        (("--rate", "0"), "--rate"),
        (("--repository", "team/A**"), "--repository"),
        (("--last",), "no report"),
    ],
)
def test_a_wrong_command_is_one_line(edge: Edge, store: dict[str, str], arguments: tuple[str, ...], word: str) -> None:
    ended = edge("verify", *arguments, **store)
    assert ended.status == 2
    assert word in ended.complaint


def test_rebuild_says_what_it_wrote(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    for key in (keys.CATALOG, keys.HOLDERS):
        for path in (tmp_path / "store" / key).rglob("*"):
            if path.is_file():
                path.unlink()
    dry = edge("rebuild", "--dry-run", **store)
    assert (dry.status, dry.stdout) == (0, "missing: 2 of the catalog, 2 holders of blobs, 0 referrers\n")
    assert json.loads(edge("rebuild", "--json", **store).stdout)["holders"] == 2
    again = edge("rebuild", **store)
    assert (again.status, again.stdout) == (0, "written: 0 of the catalog, 0 holders of blobs, 0 referrers\n")
    assert edge("verify", **store).status == 0


def test_rebuild_ends_badly_where_a_manifest_cannot_be_read(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    manifest = next(path for path in (tmp_path / "store/repositories/other/_manifests").rglob("*") if path.is_file())
    manifest.write_bytes(b"{")
    ended = edge("rebuild", **store)
    assert ended.status == 1
    assert "1 of 2 manifests cannot be read" in ended.stderr
