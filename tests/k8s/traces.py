"""What a cluster and its node hold, before and after: so that nothing is left of what was there between."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.services.cluster import Cluster
from tests.services.registry import command

IGNORED: Final = ("event", "lease", "endpoints", "componentstatuses", "nodes", "namespaces", "customresourcedef")
SECONDS: Final = 180


@dataclass(frozen=True)
class Traces:
    """Objects of the cluster; files of the node; folders of content on it; rules of its network."""

    objects: set[str]
    files: dict[str, bytes | None]
    folders: set[str]
    rules: set[str]


def traces(cluster: Cluster) -> Traces:
    """What is there now."""
    folders = {path.name for path in cluster.node.srv.iterdir()}
    return Traces(_objects(cluster), told_files(cluster), folders, _rules(cluster))


def await_nothing_left(cluster: Cluster, before: Traces) -> None:
    """Waits until all is as it was before; fails with what differs."""
    now = before

    def same() -> bool:
        nonlocal now
        now = traces(cluster)
        return now == before

    try:
        cluster.await_that("nothing is left", same, SECONDS)
    except AssertionError as exc:
        told = {
            "objects": now.objects ^ before.objects,
            "files": {path for path, _ in now.files.items() ^ before.files.items()},
            "folders": now.folders ^ before.folders,
            "rules": now.rules ^ before.rules,
        }
        raise AssertionError(f"{exc}; what differs: {told}") from None


def take_back(cluster: Cluster, before: Traces) -> None:
    """Removes what a test that failed left, as far as it lets itself be removed, so that the next ones begin as it did."""
    left = _objects(cluster) - before.objects
    spaces = sorted(name for name in left if name.startswith("namespace/"))
    if spaces:
        cluster.attempt("delete", *spaces, "--wait=false")
    for kind, _, place in (name.partition(" ") for name in sorted(left - set(spaces))):
        space, _, name = place.partition("/")
        at = ("-n", space) if space else ()
        cluster.attempt("delete", kind, name, *at, "--ignore-not-found", "--wait=false")
    with suppress(AssertionError):
        cluster.await_that("the objects are gone", lambda: _objects(cluster) <= before.objects, SECONDS)
    command("node-setup", "remove", "--root", str(cluster.node.folder))
    for name in {path.name for path in cluster.node.srv.iterdir()} - before.folders:
        cluster.node.run("rm", "-r", f"/srv/{name}")


def told_files(cluster: Cluster) -> dict[str, bytes | None]:
    """Every file that node set-up could touch, with its content; other entries with None."""
    node = cluster.node
    roots = [root for root in (node.etc, node.var / "lib/edge-registry") if root.exists()]
    # The lock appears with some call of a network plugin, and stays.
    found = [path for root in roots for path in (root, *sorted(root.rglob("*"))) if path.name != "cni.lock"]
    return {str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else None for path in found}


def _objects(cluster: Cluster) -> set[str]:
    """Every object of the cluster but those that come and go by themselves."""
    kinds = [
        kind
        for kind in cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
        if not kind.startswith(IGNORED)
    ]
    listed = cluster.kubectl("get", ",".join(kinds), "-A", "-o", "json", "--ignore-not-found")
    objects = json.loads(listed)["items"] if listed.strip() else []
    namespaces = cluster.kubectl("get", "namespaces", "-o", "name").split()
    return {*namespaces} | {
        f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
        for one in objects
        if "deletionTimestamp" not in one["metadata"]
    }


def _rules(cluster: Cluster) -> set[str]:
    """Where the node's ports and the Services' addresses lead."""
    lines = cluster.node.run("iptables-save").splitlines()
    # The plugin for ports of the node makes its chains with the first port, and leaves them there, empty.
    return {line for line in lines if line.startswith("-A") and ("CNI-HOSTPORT" not in line or "--dport" in line)}
