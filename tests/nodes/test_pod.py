"""Node set-up as in its pod: no capability, a root that cannot be written, and three mounts of the node."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.nodes.roots import HOSTS, SET_CONTAINERD, make_root, picture

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("setpriv") is None
    or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="mount namespaces need root",
)

POD = """
for path in etc/containerd var/lib/edge-registry; do mkdir -p pod/$path; done
mkdir -p pod/etc && touch pod/etc/hosts
mount --bind pod pod
for path in etc/containerd etc/hosts var/lib/edge-registry; do mount --bind host/$path pod/$path; done
mount -o remount,ro,bind pod
exec setpriv --bounding-set=-all --inh-caps=-all "$@"
"""


def in_pod(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.nodes.program", "node-setup", *arguments, "--root", "pod"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", POD, "sh", *command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_pod_without_privileges_sets_the_node_up_and_leaves_nothing(tmp_path: Path) -> None:
    node = make_root(
        tmp_path / "host",
        {"etc/hosts": HOSTS, "etc/containerd/config.toml": SET_CONTAINERD, "var/lib/edge-registry/": ""},
    )
    before, inode = picture(node), (node / "etc/hosts").stat().st_ino
    (tmp_path / "site.yaml").write_text(json.dumps({"hosts": ["r.lan:1"], "addresses": {"r.lan": "10.0.0.1"}}))
    in_pod(tmp_path, "apply", "--config", "site.yaml")
    assert "10.0.0.1\tr.lan" in (node / "etc/hosts").read_text()
    assert (node / "etc/containerd/certs.d/r.lan:1/hosts.toml").exists()
    in_pod(tmp_path, "status", "--config", "site.yaml")
    in_pod(tmp_path, "remove")
    assert picture(node) == before
    assert (node / "etc/hosts").stat().st_ino == inode
