"""`edge-registry import` as people run it."""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Edge, environment
from tests.services.registry import RegistryServer, filesystem_store
from tests.transfer.archives import LAYOUT, docker_save, entry, index_json, layout, picture, tar

IMAGE, OTHER = picture(b"layer", bytes(200_000)), picture(b"other")


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A folder with three archives."""
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "one.tar").write_bytes(tar(layout((IMAGE, "docker.io/team/one:v1"))))
    (folder / "two.tar.gz").write_bytes(gzip.compress(tar(layout((OTHER, "quay.io/team/two:v2"), last=True))))
    (folder / "three.tar").write_bytes(tar(docker_save(["three"], b"layer")))
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_a_file_is_imported_and_served(edge: Edge, archives: Path, tmp_path: Path) -> None:
    done = edge("import", "archives/one.tar")
    assert (done.status, done.stderr) == (0, "importing archives/one.tar: 215 kB\n")
    assert done.stdout == (f"docker.io/team/one:v1 is team/one:v1 ({IMAGE.digest}, 200 kB, 200 kB of it new)\n")
    with RegistryServer(tmp_path / "server", filesystem_store(tmp_path / "registry-data")) as server:
        answer = server.request("GET", "/v2/team/one/manifests/v1")
        assert (answer.status, answer.body) == (200, IMAGE.data)


def test_folders_globs_and_lists_stand_for_their_archives(edge: Edge, archives: Path, tmp_path: Path) -> None:
    for arguments in (["archives"], ["archives/*.tar", "archives/*.gz"], ["--file", "list"]):
        (tmp_path / "list").write_text("archives/one.tar  # the first\n\narchives/two.tar.gz\narchives/t*.tar\n")
        done = edge("import", *arguments, "--json")
        assert done.status == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["complete"] is True
        names = {image["name"] for archive in found["archives"] for image in archive["images"]}
        assert names == {"team/one:v1", "team/two:v2", "library/three:latest"}


def test_a_layout_in_a_folder_is_one_archive(edge: Edge, tmp_path: Path) -> None:
    for path, data in layout((IMAGE, "team/one:v1")):
        (tmp_path / "layout" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / path).write_bytes(data)
    assert edge("import", "layout").stdout.startswith("team/one:v1 is team/one:v1 (")


def test_standard_input_is_an_archive(tmp_path: Path, archives: Path) -> None:
    with (archives / "two.tar.gz").open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "app", "import", "-", "--name", "here/app"],
            cwd=tmp_path,
            env=environment(),
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("quay.io/team/two:v2 is here/app:v2 (")


def test_names_follow_the_upstreams_of_the_configuration(edge: Edge, archives: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "proxy: {upstreams: [{name: quay.io, url: 'https://quay.io'}], air_gapped: true}\n"
    )
    done = edge("import", "archives", "--config", "config.yml", "--dry-run")
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "docker.io/team/one:v1 would be team/one:v1",
        "three would be library/three:latest",
        "quay.io/team/two:v2 would be quay.io/team/two:v2",
    ]
    kept = edge("import", "archives", "--keep-host", "--dry-run").stdout
    assert "docker.io/team/one:v1 would be docker.io/team/one:v1" in kept
    placed = edge("import", "archives", "--prefix", "site", "--dry-run").stdout
    assert "three would be site/library/three:latest" in placed
    assert not (tmp_path / "registry-data/repositories").exists()


def test_one_bad_archive_keeps_no_other_from_coming(edge: Edge, archives: Path) -> None:
    (archives / "one.tar").write_bytes((archives / "one.tar").read_bytes()[:100_000])
    (archives / "bad.tar").write_bytes(b"<html>" * 500)
    (archives / "nameless.tar").write_bytes(tar([LAYOUT, index_json(entry(OTHER.data)), *OTHER.files]))
    done = edge("import", "archives")
    assert done.status == 1
    complaints = [line for line in done.stderr.splitlines() if line.startswith("edge-registry: ")]
    assert complaints == [
        "edge-registry: archives/bad.tar: this is no archive of images, or it is damaged",
        "edge-registry: archives/nameless.tar: image 1 of the archive: the archive does not say what it is called: give it "
        "a name, with --name",
        "edge-registry: archives/one.tar: the archive is cut short",
    ]
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "three is library/three:latest",
        "quay.io/team/two:v2 is team/two:v2",
    ]


def test_what_is_wrong_with_the_command_is_one_line(edge: Edge, archives: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, line in (
        ([], "name an archive, a folder of them, or - for standard input"),
        (["none.tar"], "none.tar: there is no such file or folder"),
        (["archives/*.iso"], "archives/*.iso: there is no such file or folder"),
        (["empty"], "empty: there is no archive in this folder"),
        (["archives", "--name", "a/b:1"], "--name with a tag is for one archive"),
        (["archives", "--platform", "Linux"], "'Linux' is no platform such as linux/arm64"),
    ):
        done = edge("import", *arguments)
        assert (done.status, done.complaint) == (2, line)


def test_the_server_imports_what_is_dropped_into_its_folder(archives: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    settings = {"EDGE_REGISTRY_TRANSFER__WATCH": str(drop), "EDGE_REGISTRY_TRANSFER__WATCH_INTERVAL": "0.1"}
    with RegistryServer(tmp_path / "server", filesystem_store(tmp_path / "data"), settings=settings) as server:
        assert server.request("GET", "/v2/team/one/manifests/v1").status == 404
        (archives / "one.tar").rename(drop / "one.tar")
        deadline = time.monotonic() + 20
        while server.request("GET", "/v2/team/one/manifests/v1").status != 200:
            assert time.monotonic() < deadline, server.read_log()
            time.sleep(0.05)
        assert server.request("GET", "/v2/team/one/manifests/v1").body == IMAGE.data
    assert (drop / "one.tar").exists()


def test_a_folder_that_is_not_there_is_told_at_the_start(edge: Edge) -> None:
    done = edge("serve", "--watch", "nowhere", "--port", "0")
    assert done.status == 2
    assert done.stderr.splitlines()[-1] == "edge-registry: transfer.watch: there is no folder nowhere"


def test_doctor_dials_no_upstream_behind_an_air_gap(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "proxy: {upstreams: [{name: quay.io, url: 'http://127.0.0.1:1'}], air_gapped: true}\n"
    )
    done = edge("doctor", "--only", "upstreams", "--config", "config.yml")
    assert "proxy.air_gapped is set, so that none is dialled" in done.stdout + done.stderr
    assert "quay.io" not in done.stdout
