"""Node set-up killed at any moment, and with a hosts file that is mounted alone, as in a pod."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.nodes import blocks
from app.nodes.root import JOURNAL, Root, journal_entry, overwrite
from app.nodes.settings import NodeSettings
from app.nodes.setup import NodeSetup
from tests.cli.conftest import environment
from tests.nodes.churn import LONG, SHORT
from tests.nodes.roots import HOSTS, make_root, picture

KILLS = 5
BEHIND = "10.8.8.8 behind.lan\n" * 300  # more than a page
CHURN = (sys.executable, "-m", "tests.nodes.churn")
namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="mount namespaces need root",
)


def churn(node: Path, life: str, *, mounted: bool) -> list[str]:
    """The command that works on a node; `mounted`: with /etc/hosts mounted alone and /etc not to be written."""
    command = [*CHURN, str(node), life]
    if not mounted:
        return command
    script = 'mount --bind "$0/etc/hosts" "$0/etc/hosts" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, str(node), *command]


def once(node: Path, life: str, *, mounted: bool) -> None:
    done = subprocess.run(
        churn(node, life, mounted=mounted), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def killed(node: Path, life: str, *, mounted: bool) -> None:
    """Starts it, and kills it at a random moment of its work."""
    with subprocess.Popen(churn(node, life, mounted=mounted), env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        time.sleep(random.uniform(0, 0.12))
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("mounted", [False, pytest.param(True, marks=namespaces)])
def test_a_node_whose_set_up_was_killed_again_and_again_can_be_cleaned_without_a_trace(
    tmp_path: Path, mounted: bool
) -> None:
    node = make_root(
        tmp_path / "node", {"etc/hosts": HOSTS, "etc/containerd/": "", "etc/rancher/k3s/registries.yaml": "a: 1"}
    )
    before, inode = picture(node), (node / "etc/hosts").stat().st_ino
    for _ in range(KILLS):
        killed(node, "with removals", mounted=mounted)
        assert (node / "etc/hosts").read_text().startswith(HOSTS)
    once(node, "remove", mounted=mounted)
    assert picture(node) == before
    if mounted:
        assert (node / "etc/hosts").stat().st_ino == inode


@namespaces
def test_lines_of_others_behind_ours_survive_kills_in_a_mounted_hosts_file(tmp_path: Path) -> None:
    node = make_root(tmp_path / "node", {"etc/hosts": HOSTS, "etc/docker/": ""})
    once(node, "once", mounted=True)
    hosts = node / "etc/hosts"
    with hosts.open("a") as file:
        file.write(BEHIND)
    for _ in range(KILLS):
        killed(node, "changes", mounted=True)
        once(node, "once", mounted=True)
        assert blocks.strip(hosts.read_text()) == HOSTS + BEHIND
    once(node, "remove", mounted=True)
    assert hosts.read_text() == HOSTS + BEHIND


@pytest.mark.parametrize("added", ["", "10.5.5.5 added.lan\n"])
@pytest.mark.parametrize("grows", [True, False])
def test_every_half_done_write_in_place_is_finished_by_the_next_run(tmp_path: Path, added: str, grows: bool) -> None:
    root = Root(make_root(tmp_path / "node", {"etc/hosts": ""}))
    behind = "10.8.8.8 behind.lan\n"
    short, long = (f"{HOSTS}{blocks.block(body)}{behind}".encode() for body in ("10.0.0.1\ta\n", "10.0.0.22\tlonger\n"))
    old, new = (short, long) if grows else (long, short)
    same = next(place for place in range(len(old)) if old[place] != new[place])
    states = [new[:end] + old[end:] for end in range(same, len(new) + 1)]
    states += [] if grows else [new]
    for state in states:
        real = root.real("/etc/hosts")
        real.write_bytes(state + added.encode())
        root.make_folders(JOURNAL)
        root.write(JOURNAL, journal_entry("/etc/hosts", old, new))
        root.recover()
        after = real.read_bytes()
        assert after in (old + added.encode(), new + added.encode()), state
        assert not root.exists(JOURNAL)


def test_a_journal_does_not_touch_a_file_that_somebody_wrote_since(tmp_path: Path) -> None:
    root = Root(make_root(tmp_path / "node", {"etc/hosts": "10.6.6.6 theirs.lan\n"}))
    root.make_folders(JOURNAL)
    root.write(JOURNAL, journal_entry("/etc/hosts", b"127.0.0.1 localhost\n", b"127.0.0.1 localhost\n# more\n"))
    root.recover()
    assert root.read("/etc/hosts") == b"10.6.6.6 theirs.lan\n"


def test_a_write_in_place_leaves_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"other")
    assert not overwrite(file, b"old", b"new")
    assert file.read_bytes() == b"other"


@namespaces
def test_a_mounted_hosts_file_that_the_node_replaced_ends_the_watch(tmp_path: Path) -> None:
    node = make_root(tmp_path / "node", {"etc/hosts": HOSTS, "etc/docker/": ""})
    shutil.copy(node / "etc/hosts", tmp_path / "hosts")
    document = tmp_path / "site.yaml"
    document.write_text(json.dumps(SHORT))
    script = (
        'mount --bind "$1/hosts" "$1/node/etc/hosts" && rm "$1/hosts" && '
        'exec "$2" -m tests.nodes.program node-setup watch --root "$1/node" --config "$1/site.yaml" --interval 0.1'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "replaced" in done.stderr


def test_runs_at_the_same_time_wait_for_one_another(tmp_path: Path) -> None:
    node = make_root(tmp_path / "node", {"etc/hosts": HOSTS, "etc/containerd/": ""})
    before = picture(node)
    command = churn(node, "with removals", mounted=False)
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        for _ in range(20):
            assert NodeSetup(Root(node), {}).apply(NodeSettings.model_validate(LONG)).clean
        assert other.poll() is None
        other.kill()
    assert NodeSetup(Root(node), {}).remove().clean
    assert picture(node) == before
