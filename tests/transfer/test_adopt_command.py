"""`edge-registry adopt`, as a process."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Edge, edge, environment
from tests.services.upstreams import Distribution, need_distribution

__all__ = ["edge"]  # the fixture


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Distribution's folder, with four images in two repositories, two of them of one index."""
    folder = tmp_path_factory.mktemp("old")
    with Distribution(need_distribution(request), folder) as server:
        server.pusher.image("app", "v1", [3000])
        server.pusher.image("app", "v2", [4000])
        server.pusher.index("team/multi", "latest", {"linux/amd64": [500], "linux/arm64": [600]})
    return folder / "data"


@pytest.fixture
def old(filled: Path, tmp_path: Path) -> Path:
    """A copy of it, in which this test may work."""
    return Path(shutil.copytree(filled, tmp_path / "registry"))


@pytest.fixture
def here(old: Path) -> dict[str, str]:
    """Distribution's own variables are all that is set."""
    return {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(old), "REGISTRY_STORAGE": "filesystem"}


def test_it_says_in_numbers_what_came_and_warns_of_the_old_collector(edge: Edge, here: dict[str, str]) -> None:
    ended = edge("adopt", **here)
    assert ended.status == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "2 repositories",
        "7 blobs: 7 bound where they lie (8.3 kB), 0 B copied",
        "5 manifests: 5 written (2.7 kB)",
        "3 tags: 3 written, 0 moved, 0 pruned",
    ]
    assert "garbage-collect" in ended.stderr
    again = edge("adopt", **here)
    assert [line.partition(":")[2] for line in again.stdout.splitlines()] == [
        "",
        " 0 bound where they lie (0 B), 0 B copied",
        " 0 written (0 B)",
        " 0 written, 0 moved, 0 pruned",
    ]


def test_a_dry_run_leaves_nothing_and_json_says_all_in_one_object(edge: Edge, here: dict[str, str], old: Path) -> None:
    ended = edge("adopt", "--dry-run", "--json", "--repository", "team/*", **here)
    assert ended.status == 0
    told = json.loads(ended.stdout)
    assert (told["dry_run"], told["repositories"], told["found"]) == (
        True,
        1,
        {"blobs": 4, "manifests": 3, "tags": 1},
    )
    assert (told["blobs_bound"], told["manifests_written"], told["tags_written"]) == (4, 3, 1)
    assert told["left"] == {"count": 0, "notes": []}
    assert "garbage-collect" not in ended.stderr
    assert not any((old / name).exists() for name in ("repositories", "blobs", "catalog"))


def test_what_cannot_come_is_a_line_and_the_exit_status(edge: Edge, here: dict[str, str], old: Path) -> None:
    (link,) = old.glob("docker/registry/v2/repositories/team/multi/_manifests/tags/latest/current/link")
    link.write_text("garbled\x1b[31m")
    ended = edge("adopt", **here)
    assert ended.status == 1
    assert "left: team/multi: tag latest: its link file holds no digest" in ended.stderr.splitlines()


def test_the_bucket_of_a_pull_through_cache_is_warned_of(edge: Edge, here: dict[str, str], old: Path) -> None:
    (old / "scheduler-state.json").write_text("{}")
    ended = edge("adopt", "--dry-run", **here)
    assert ended.status == 0
    assert "proxy.ttl" in ended.stderr


def test_without_a_layout_it_names_the_option(edge: Edge, here: dict[str, str]) -> None:
    ended = edge("adopt", "--root", "/elsewhere/", **here)
    assert ended.status == 2
    assert "elsewhere/docker/registry/v2" in ended.complaint
    assert "--root" in ended.complaint


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to give files to somebody else, and setpriv"
)
def test_a_folder_that_belongs_to_somebody_else_is_one_line(old: Path, tmp_path: Path, here: dict[str, str]) -> None:
    """Distribution's image runs as root, and makes folders into which others may look and no more."""
    for path in (old, *old.rglob("*")):
        os.chown(path, 12345, 12345)
    done = subprocess.run(
        ["setpriv", "--inh-caps=-all", "--bounding-set=-all", sys.executable, "-m", "app", "adopt"],
        cwd=tmp_path,
        env=environment(here),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith("registry cannot be used: Permission denied\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_terminal_shows_a_bar_that_counts(tmp_path: Path, here: dict[str, str]) -> None:
    main, side = pty.openpty()
    command = [sys.executable, "-m", "app", "adopt"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(here | {"TERM": "xterm"}), stdin=side, stdout=side, stderr=side
    ) as process:
        os.close(side)
        seen = b""
        while select.select([main], [], [], 60)[0]:
            try:
                seen += os.read(main, 4096)
            except OSError:  # the other end has gone
                break
        assert process.wait(30) == 0
    os.close(main)
    shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert "adopting" in shown
    assert "15/15" in shown
