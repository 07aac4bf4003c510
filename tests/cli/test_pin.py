"""`edge-registry pin`, against a real registry behind the fault front."""

import io
import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.cli import command
from tests.cli.conftest import Edge, Ended, environment
from tests.services.front import Fault, Front
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, filesystem_store
from tests.services.upstreams import Distribution, need_distribution

MB: Final = 1_000_000


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """It has alpine for two platforms, and team/app with some tags."""
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as found:
        found.pusher.index("library/alpine", "3.20", {"linux/amd64": [300_000], "linux/arm64": [200_000]})
        for tag in ("v1.0", "v1.1", "v2.0"):
            found.pusher.image("team/app", tag, [10_000], seed=tag)
        found.pusher.image("team/big", "1", [4 * MB, 3 * MB])
        yield found


@pytest.fixture
def front(upstream: Distribution) -> Iterator[Front]:
    with Front(upstream.url) as found:
        yield found


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edge]:
    """As the fixture of that name, without a process for each command: they cost more than what is tested here."""
    root = logging.getLogger()
    kept = (root.handlers[:], root.level)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", **settings: str) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("EDGE_REGISTRY_", "REGISTRY_"))]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["edge-registry", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            status = command._run()
        return Ended(status, *capsys.readouterr())

    yield run
    root.handlers[:], root.level = kept


@pytest.fixture
def pusher(upstream: Distribution) -> Pusher:
    return upstream.pusher


@pytest.fixture
def here(front: Front) -> dict[str, str]:
    """The configuration: docker.io, which is the front, in the folder in which commands run."""
    return configured(front)


def configured(front: Front, **more: Any) -> dict[str, str]:
    upstreams = [{"name": "docker.io", "url": front.url, "tag_ttl": 0, **more}]
    return {
        "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps(upstreams),
        "EDGE_REGISTRY_PROXY__DEFAULT_UPSTREAM": "docker.io",
    }


def test_an_image_is_pinned_fetched_and_safe_without_its_upstream(
    edge: Edge, front: Front, here: dict[str, str]
) -> None:
    added = edge("pin", "add", "alpine:3.20", "--platform", "linux/arm64", **here)
    assert added.status == 0
    assert re.fullmatch(r"docker.io/library/alpine:3.20: 200 kB fetched\n1 of 1 images complete\n", added.stdout), (
        added.stdout
    )
    assert "pinned docker.io/library/alpine:3.20 for linux/arm64" in added.stderr
    assert front.sent("*/blobs/*") < 210_000
    assert edge("pin", "list", **here).stdout == "docker.io/library/alpine:3.20  linux/arm64\n"
    front.down()
    seen = len(front.requests)
    status = edge("pin", "status", **here)
    assert status.status == 0
    assert status.stdout.splitlines()[-1] == "the one image complete for linux/arm64: safe to disconnect"
    assert len(front.requests) == seen


def test_status_says_what_is_missing_and_asks_nobody(edge: Edge, front: Front, here: dict[str, str]) -> None:
    front.on("/v2/team/big/blobs/*", Fault(status=404))
    assert edge("pin", "add", "team/big:1", "alpine:3.20", "--platform", "linux/amd64", **here).status == 1
    edge("pin", "add", "team/app:v1.0", "--no-fetch", **here)
    front.forget()
    status = edge("pin", "status", **here)
    assert status.status == 1
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in status.stdout.splitlines()[:-1])
    assert lines == {
        "docker.io/library/alpine:3.20": "complete, 300 kB",
        "docker.io/team/app:v1.0": "nothing of it is here",
        "docker.io/team/big:1": "3 blobs missing (7.0 MB)",
    }
    assert status.stdout.splitlines()[-1] == "2 of 3 images are incomplete: at least 7.0 MB missing"
    document = json.loads(edge("pin", "status", "--json", **here).stdout)
    assert (document["safe"], document["complete"], document["incomplete"]) == (False, 1, 2)
    assert (
        document["missing_bytes"]
        == next(entry["missing_bytes"] for entry in document["images"] if entry["image"] == "docker.io/team/big:1")
        > 7 * MB
    )
    assert front.requests == []


def test_a_failing_image_does_not_stop_the_others(edge: Edge, here: dict[str, str]) -> None:
    added = edge("pin", "add", "nobody:1", "team/app:v1.0", **here)
    assert added.status == 1
    assert "edge-registry: docker.io/library/nobody:1: manifest unknown to registry" in added.stderr.splitlines()
    assert added.stdout.splitlines()[-1] == "1 of 2 images complete"


def test_a_list_may_hold_comments_and_patterns_and_come_by_standard_input(edge: Edge, here: dict[str, str]) -> None:
    text = "# what we run\n\ndocker.io/team/app:v1.*  # both\n  alpine:3.20\n"
    added = edge("pin", "add", "--file", "-", "--platform", "all", stdin=text, **here)
    assert added.status == 0, added.stderr
    assert sorted(line.partition(": ")[0] for line in added.stdout.splitlines()[:-1]) == [
        "docker.io/library/alpine:3.20",
        "docker.io/team/app:v1.0",
        "docker.io/team/app:v1.1",
    ]
    status = edge("pin", "status", **here)
    assert status.stdout.splitlines()[-1] == "all 3 images complete for all: safe to disconnect"


def test_what_cannot_be_meant_is_refused_as_a_whole_with_a_line_each(edge: Edge, here: dict[str, str]) -> None:
    ended = edge("pin", "add", "quay.io/a/b", "team/app:v1.0", "team/App", "--no-fetch", **here)
    assert ended.status == 2
    assert [line.startswith("edge-registry: '") for line in ended.stderr.splitlines()] == [True, True]
    assert "docker.io" in ended.stderr
    assert edge("pin", "list", **here).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("add",), "--file"),
        (("add", "--file", "nowhere"), "nowhere"),
        (("add", "alpine", "--platform", "arm64"), "'arm64'"),
    ],
)
def test_a_wrong_command_is_one_line(edge: Edge, here: dict[str, str], arguments: tuple[str, ...], word: str) -> None:
    ended = edge("pin", *arguments, **here)
    assert ended.status == 2
    assert word in ended.complaint


def test_without_upstreams_there_is_nothing_to_pin(edge: Edge) -> None:
    ended = edge("pin", "status")
    assert ended.status == 2
    assert "proxy.upstreams" in ended.complaint


def test_nothing_pinned_is_not_safe(edge: Edge, tmp_path: Path, here: dict[str, str]) -> None:
    status = edge("pin", "status", **here)
    assert (status.status, status.stdout) == (1, "nothing is pinned\n")
    assert not (tmp_path / "registry-spool").exists()  # what only looks leaves nothing behind


def test_removing_takes_any_spelling_and_says_what_was_not_there(edge: Edge, here: dict[str, str]) -> None:
    edge("pin", "add", "alpine:3.20", "--no-fetch", **here)
    removed = edge("pin", "remove", "index.docker.io/library/alpine:3.20", "alpine:3.19", **here)
    assert removed.status == 1
    assert "edge-registry: alpine:3.19 is not pinned" in removed.stderr
    assert edge("pin", "list", **here).stdout == ""


def test_sync_fetches_what_moved_and_nothing_twice(
    edge: Edge, front: Front, pusher: Pusher, here: dict[str, str]
) -> None:
    pusher.image("team/moving", "1", [50_000], seed="old")
    edge("pin", "add", "team/moving:1", **here)
    front.forget()
    again = edge("pin", "sync", **here)
    assert again.stdout == "docker.io/team/moving:1: up to date\n1 of 1 images complete\n"
    assert front.count("*/blobs/*") == front.count("*/manifests/1", "GET") == 0
    pusher.image("team/moving", "1", [60_000], seed="new")
    assert "60.1 kB fetched" in edge("pin", "sync", **here).stdout
    assert 60_000 < front.sent("*/blobs/*") < 61_000


def started(tmp_path: Path, here: dict[str, str], *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", "pin", *arguments],
        cwd=tmp_path,
        env=environment(here),
        start_new_session=True,
        **(pipes or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}),
    )


def test_after_control_c_the_same_command_goes_on_where_it_was(
    edge: Edge, tmp_path: Path, front: Front, here: dict[str, str]
) -> None:
    rule = front.on("/v2/team/big/blobs/*", Fault(stall=2 * MB))
    with started(tmp_path, here, "add", "team/big:1") as process:
        front.wait_until(lambda: front.sent("*/blobs/*") >= 4 * MB)
        _wait_for_spool(tmp_path / "registry-spool", 4 * MB)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"complete" not in out
    front.off(rule)
    front.cut_all()
    assert edge("pin", "status", **here).status == 1
    before = front.sent("*/blobs/*")
    assert edge("pin", "add", "team/big:1", **here).status == 0
    assert front.sent("*/blobs/*") - before < 3.2 * MB
    assert edge("pin", "status", **here).status == 0


def _wait_for_spool(folder: Path, size: int) -> None:
    deadline = time.monotonic() + 20
    while sum(path.stat().st_size for path in folder.iterdir()) < size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_terminal_shows_a_bar_with_bytes_that_grow(tmp_path: Path, front: Front, here: dict[str, str]) -> None:
    front.rate = 4 * MB
    main, side = pty.openpty()
    with started(
        tmp_path, here | {"TERM": "xterm"}, "add", "team/big:1", stdin=side, stdout=side, stderr=side
    ) as process:
        os.close(side)
        seen = _read_all(main)
        assert process.wait(30) == 0
    os.close(main)
    shown = re.findall(r"([\d.]+)/7\.0 MB", re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode())
    between = {number for number in shown if 0 < float(number) < 7}
    assert len(between) >= 2, shown
    assert b"docker.io/team/big:1: 7.0 MB fetched" in seen


def _read_all(handle: int) -> bytes:
    seen = b""
    while select.select([handle], [], [], 60)[0]:
        try:
            chunk = os.read(handle, 4096)
        except OSError:  # the other end has gone
            break
        seen += chunk
    return seen


def test_beside_a_running_server_both_fetch_the_same_image_and_it_is_right(
    edge: Edge, tmp_path: Path, front: Front, here: dict[str, str]
) -> None:
    """They share store and spool folder."""
    front.on("/v2/team/big/blobs/*", Fault(rate=4 * MB))
    shared = {"EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(tmp_path / "registry-spool")}
    store = filesystem_store(tmp_path / "registry-data")
    with RegistryServer(tmp_path / "server", store, settings=here | shared) as server:
        layers = json.loads(server.request("GET", "/v2/docker.io/team/big/manifests/1").body)["layers"]
        with started(tmp_path, here, "add", "team/big:1") as process:
            bodies = [server.request("GET", f"/v2/docker.io/team/big/blobs/{one['digest']}").body for one in layers]
            out, err = process.communicate(timeout=60)
        assert (process.returncode, b"Traceback" in err) == (0, False), err
        assert [len(body) for body in bodies] == [one["size"] for one in layers]
    assert edge("pin", "status", **here).status == 0, out
    assert list((tmp_path / "registry-spool").iterdir()) == []
