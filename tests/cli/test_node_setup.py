import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.nodes.roots import HOSTS, PROGRAM, make_root, picture, program

DOCUMENT = {"hosts": ["registry.lan:5045"], "addresses": {"registry.lan": "192.0.2.7"}}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text(json.dumps(DOCUMENT))
    return make_root(tmp_path / "node", {"etc/hosts": HOSTS, "etc/containerd/": ""})


class Watching:
    """A `node-setup watch` that runs, and what it says."""

    def __init__(self, folder: Path) -> None:
        given = ["node-setup", "watch", "--root", "node", "--config", "site.yaml", "--interval", "0.1"]
        self.process = subprocess.Popen(
            [*PROGRAM, *given, "--ready-file", "ready"], cwd=folder, env=environment(), stderr=subprocess.PIPE
        )
        self._said = b""

    def wait_for(self, text: str) -> None:
        """Returns once it has said this, and forgets what it said up to there."""
        assert self.process.stderr is not None
        while text.encode() not in self._said:
            assert select.select([self.process.stderr], [], [], 30)[0], self._said
            read = os.read(self.process.stderr.fileno(), 65536)
            assert read, self._said
            self._said += read
        self._said = self._said.partition(text.encode())[2]


@pytest.fixture
def watching(node: Path, tmp_path: Path) -> Iterator[Watching]:
    running = Watching(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def test_apply_status_and_remove(node: Path, tmp_path: Path) -> None:
    before = picture(node)
    given = ("--root", "node", "--config", "site.yaml")
    assert program("node-setup", "status", *given, cwd=tmp_path).status == 1
    applied = program("node-setup", "apply", *given, cwd=tmp_path)
    assert applied.status == 0, applied.stderr
    assert "wrote /etc/containerd/certs.d/registry.lan:5045/hosts.toml" in applied.stderr
    assert "systemctl restart containerd" in applied.stderr
    assert "everything is in place" in program("node-setup", "status", *given, cwd=tmp_path).stdout
    removed = program("node-setup", "remove", "--root", "node", cwd=tmp_path)
    assert "removed /etc/containerd" in removed.stderr
    assert picture(node) == before


def test_a_dry_run_prints_the_diff_and_writes_nothing(node: Path, tmp_path: Path) -> None:
    before = picture(node)
    ended = program("node-setup", "apply", "--root", "node", "--config", "site.yaml", "--dry-run", cwd=tmp_path)
    assert ended.status == 0
    assert "+++ /etc/hosts" in ended.stdout
    assert "+192.0.2.7\tregistry.lan" in ended.stdout
    assert picture(node) == before
    program("node-setup", "apply", "--root", "node", "--config", "site.yaml", cwd=tmp_path)
    applied = picture(node)
    assert (
        "-192.0.2.7\tregistry.lan"
        in program("node-setup", "remove", "--root", "node", "--dry-run", cwd=tmp_path).stdout
    )
    assert picture(node) == applied


def test_a_foreign_file_is_one_line_and_exit_status_1(node: Path, tmp_path: Path) -> None:
    make_root(node, {"etc/containerd/certs.d/registry.lan:5045/hosts.toml": "# theirs\n"})
    ended = program("node-setup", "apply", "--root", "node", "--config", "site.yaml", cwd=tmp_path)
    assert ended.status == 1
    assert "edge-registry: left /etc/containerd/certs.d/registry.lan:5045/hosts.toml alone" in ended.stderr


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"hosts": ["https://r:1"]}, "without scheme"),
        ({"hosts": ["../../etc:1"]}, "no registry"),
        ({"hosts": ["r:1"], "adresses": {}}, "adresses"),
        ({"hosts": ["r:1"], "addresses": {"localhost": "1.2.3.4"}}, "localhost"),
        ({"hosts": ["r:1"], "addresses": {"a": "1.2.3"}}, "no IP address"),
        ({"hosts": ["r:1"], "ca": "none"}, "PEM"),
        ({"hosts": ["r:1"], "ca_file": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_document_that_cannot_be_is_one_line(node: Path, tmp_path: Path, document: object, said: str) -> None:
    before = picture(node / "etc")
    (tmp_path / "site.yaml").write_text(json.dumps(document))
    ended = program("node-setup", "apply", "--root", "node", "--config", "site.yaml", cwd=tmp_path)
    assert ended.status == 2
    assert said in ended.complaint
    assert picture(node / "etc") == before


def test_watch_follows_the_document_and_the_node_and_leaves_what_it_made(
    node: Path, tmp_path: Path, watching: Watching
) -> None:
    watching.wait_for("changed /etc/hosts")
    (node / "etc/hosts").write_text(HOSTS)
    watching.wait_for("changed /etc/hosts")
    assert (tmp_path / "ready").exists()
    (tmp_path / "site.yaml").write_text(json.dumps(DOCUMENT | {"addresses": {"registry.lan": "192.0.2.8"}}))
    watching.wait_for("changed /etc/hosts")
    assert "192.0.2.8\tregistry.lan" in (node / "etc/hosts").read_text()
    (tmp_path / "site.yaml").write_text("hosts: [")
    watching.wait_for("not valid YAML")
    (tmp_path / "site.yaml").unlink()
    watching.wait_for("cannot read")
    assert "192.0.2.8\tregistry.lan" in (node / "etc/hosts").read_text()
    watching.process.send_signal(signal.SIGTERM)
    assert watching.process.wait(30) == 0
    assert "192.0.2.8\tregistry.lan" in (node / "etc/hosts").read_text()


def test_watch_takes_everything_away_when_the_document_says_absent(
    node: Path, tmp_path: Path, watching: Watching
) -> None:
    watching.wait_for("changed /etc/hosts")
    (tmp_path / "site.yaml").write_text(json.dumps(DOCUMENT | {"state": "absent"}))
    watching.wait_for("changed /etc/hosts")
    watching.process.send_signal(signal.SIGTERM)
    watching.process.wait(30)
    assert (node / "etc/hosts").read_text() == HOSTS
    assert list((node / "etc/containerd").iterdir()) == []
    assert list((node / "var/lib").iterdir()) == []
