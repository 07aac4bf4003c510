"""`edge-registry export`, run as people do, on a folder that a registry filled."""

import gzip
import json
import os
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Edge, environment
from tests.services.client import noise
from tests.services.images import digest
from tests.services.pushing import Pusher
from tests.services.registry import PROGRAM, RegistryServer, filesystem_store

MB = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """It holds two images that share their first layer, one for two platforms, and one that was cached."""
    folder = tmp_path_factory.mktemp("export")
    with RegistryServer(folder, filesystem_store(folder / "store")) as found:
        pusher = Pusher(found.url)
        pusher.image("team/one", "v1", [MB, 1000], seed="shared")
        pusher.image("team/one", "v2", [MB, 2000], seed="shared")
        pusher.index("team/multi", "v1", {"linux/amd64": [3000], "linux/arm64": [4000]})
        pusher.image("docker.io/library/alpine", "3", [5000])
        yield found


@pytest.fixture
def store(server: RegistryServer) -> dict[str, str]:
    """The environment of a command on that folder, with an upstream that nobody can reach."""
    upstreams = json.dumps([{"name": "docker.io", "url": "http://127.0.0.1:1"}])
    more = {"EDGE_REGISTRY_PROXY__UPSTREAMS": upstreams, "EDGE_REGISTRY_PROXY__DEFAULT_UPSTREAM": "docker.io"}
    return {**filesystem_store(server.folder / "store"), **more}


def members(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return set(archive.getnames())


def test_images_are_written_into_a_file_with_its_checksum(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    done = edge("export", "team/one:v1", "team/one:v2", "-o", "images.tar", **store)
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["team/one:v1", "team/one:v2"]
    assert lines[-1] == "2 images, 1.0 MB written"
    assert done.stderr == "writing images.tar: 1.0 MB\n"
    assert (tmp_path / "images.tar").stat().st_size < 1.1 * MB
    checked = subprocess.run(["sha256sum", "-c", "images.tar.sha256"], cwd=tmp_path, capture_output=True, check=False)
    assert checked.stdout == b"images.tar: OK\n"


def test_what_is_cached_is_exported_by_either_name_without_its_upstream(
    edge: Edge, store: dict[str, str], tmp_path: Path
) -> None:
    done = edge("export", "alpine:3", "docker.io/library/alpine:3", "-o", "alpine.tar", "--json", **store)
    assert done.status == 0, done.stderr
    document = json.loads(done.stdout)
    assert [image["image"] for image in document["images"]] == ["docker.io/library/alpine:3"]
    assert document["bytes"] == (tmp_path / "alpine.tar").stat().st_size
    assert digest((tmp_path / "alpine.tar").read_bytes()) == f"sha256:{document['sha256']}"
    missing = edge("export", "busybox", "alpine:9", "-o", "none.tar", **store)
    assert missing.status == 1
    assert missing.stderr.splitlines() == [
        "edge-registry: busybox: it is not here",
        "edge-registry: alpine:9: it is not here",
    ]
    assert not list(tmp_path.glob("none.tar*"))


def piped(store: dict[str, str], tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, "export", *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment(store), capture_output=True, timeout=60, check=False)


def test_a_pipe_gets_the_same_bytes_as_a_file_and_nothing_else(
    edge: Edge, store: dict[str, str], tmp_path: Path
) -> None:
    assert edge("export", "team/*:*", "-o", "images.tar", **store).status == 0
    for target in ([], ["-o", "-"]):
        done = piped(store, tmp_path, "team/*:*", *target)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (tmp_path / "images.tar").read_bytes()
        assert b"3 images" in done.stderr


def test_a_name_that_ends_with_gz_is_compressed(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    for target in ("images.tar", "images.tar.gz", "images.tgz"):
        assert edge("export", "team/multi:v1", "-o", target, **store).status == 0
    assert edge("export", "team/multi:v1", "-o", "packed", "--gzip", **store).status == 0
    for target in ("images.tar.gz", "images.tgz", "packed"):
        assert gzip.decompress((tmp_path / target).read_bytes()) == (tmp_path / "images.tar").read_bytes()


def test_an_existing_folder_gets_a_layout(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    done = edge("export", "team/multi:v1", "-o", "stick", **store)
    assert done.status == 0, done.stderr
    assert {entry.name for entry in (tmp_path / "stick").iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert edge("export", "team/multi:v1", "-o", "new/", **store).status == 0
    assert (tmp_path / "new/index.json").read_bytes() == (tmp_path / "stick/index.json").read_bytes()


def test_a_list_of_images_may_come_from_standard_input(edge: Edge, store: dict[str, str], tmp_path: Path) -> None:
    text = "# ours\nteam/one:v1  # the old one\n\nteam/multi:v1\n"
    done = edge("export", "--file", "-", "-o", "images.tar", stdin=text, **store)
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 images")


def test_a_delta_is_made_by_an_inventory_or_by_the_archive_before(
    edge: Edge, store: dict[str, str], tmp_path: Path, server: RegistryServer
) -> None:
    assert edge("export", "team/one:v1", "-o", "first.tar", **store).status == 0
    by_archive = edge("export", "team/one:*", "--have", "first.tar", "-o", "delta.tar", "--json", **store)
    assert by_archive.status == 0, by_archive.stderr
    document = json.loads(by_archive.stdout)
    assert document["left_out_bytes"] > MB
    assert (tmp_path / "delta.tar").stat().st_size < 20_000
    assert edge("export", "--inventory", "-o", "have.txt", **store).status == 0
    with urllib.request.urlopen(f"{server.url}/api/v1/inventory", timeout=30) as answer:
        assert answer.read() == (tmp_path / "have.txt").read_bytes()
    printed = edge("export", "--inventory", **store)
    assert printed.stdout == (tmp_path / "have.txt").read_text()
    by_inventory = edge("export", "team/one:*", "--have", "-", "-o", "nothing.tar", stdin=printed.stdout, **store)
    assert "left out: only `edge-registry import` can take it" in by_inventory.stdout
    layer = noise(MB, "shared team/one linux/amd64 0")
    path = f"blobs/{digest(layer).replace(':', '/')}"
    assert path in members(tmp_path / "first.tar")
    assert path not in members(tmp_path / "delta.tar") | members(tmp_path / "nothing.tar")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name an image, or a list of them with --file"),
        (["team/one:v1", "-o", "x.tar", "--format", "zip"], "'zip' is no format: there are combined, oci, docker, oci-dir"),
        (["team/one:v1", "-o", "x.tar", "--platform", "arm"], "'arm' is no platform such as linux/arm64, and not `all`"),
        (["team/one:v1", "-o", "none/x.tar"], "there is no folder"),
        (["team/one:v1", "--json"], "the archive and --json cannot both go to standard output"),
        (["team/one:v1", "-o", "folder", "--format", "oci"], "folder is a folder, and --format oci makes a file"),
        (["team/one:v1", "-o", "folder", "--gzip"], "a folder cannot be compressed"),
        (["team/one:v1", "-o", "x.tar", "--have", "none.txt"], "cannot read none.txt: No such file or directory"),
    ],
)  # fmt: skip
def test_a_wrong_command_says_so_and_writes_nothing(
    edge: Edge, store: dict[str, str], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    (tmp_path / "folder").mkdir()
    done = edge("export", *arguments, **store)
    assert done.status == 2
    assert done.complaint.startswith(complaint)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_decayed_blob_is_named_and_no_archive_is_left(edge: Edge, tmp_path: Path) -> None:
    store = filesystem_store(tmp_path / "store")
    with RegistryServer(tmp_path / "server", store) as server:
        image = Pusher(server.url).image("team/app", "v1", [3 * MB])
    largest = max((tmp_path / "store/data").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"\0" + largest.read_bytes()[1:])
    done = edge("export", "team/app:v1", "-o", "images.tar", **store)
    assert done.status == 1
    assert f"are not those of {digest(image.blobs[1])}" in done.stderr
    assert not list(tmp_path.glob("images.tar*"))


def test_an_archive_is_nothing_for_a_terminal(store: dict[str, str], tmp_path: Path) -> None:
    terminal, ours = os.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, "export", "team/one:v1"], cwd=tmp_path, env=environment(store),
            stdout=ours, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.returncode == 2
    assert "an archive is nothing for a terminal" in done.stderr
