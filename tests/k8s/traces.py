"""What a cluster and its node hold, before and after: so that nothing is left of what was there between."""

import json
from dataclasses import dataclass
from typing import Final

from tests.services.cluster import Cluster

IGNORED: Final = ("event", "lease", "endpoints", "componentstatuses", "nodes", "namespaces", "customresourcedef")
SECONDS: Final = 90


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
