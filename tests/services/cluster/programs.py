"""The programs of the cluster: where they are, and which are missing."""

import os
from pathlib import Path
from typing import Final

from tests.services.clients import CHECKOUT, find_program

BUILT: Final = (
    *("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"),
    *("coredns", "pause", "hello"),
)
INSTALLED: Final = ("etcd", "containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare")
PLUGINS: Final = Path("/usr/lib/cni")
VARIABLE: Final = "CLUSTER_BIN"


def built_folder() -> Path:
    """Where `build.sh` put its programs: what CLUSTER_BIN names, else .cache/cluster of the checkout,
    else ~/.cache/edge-registry/cluster."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    places = (CHECKOUT / ".cache/cluster", Path.home() / ".cache/edge-registry/cluster")
    return next((place for place in places if (place / "kubelet").exists()), places[0])


def missing() -> str | None:
    """Why no cluster can be started here, in one sentence; None where one can."""
    if os.geteuid() != 0:
        return "not root: a cluster cannot be started"
    absent = [name for name in INSTALLED if find_program(name) is None]
    if absent or not (PLUGINS / "ptp").exists():
        return f"a cluster needs {', '.join(absent) or 'the CNI plugins'}; .ci/run names the packages"
    folder = built_folder()
    absent = [name for name in BUILT if not os.access(folder / name, os.X_OK)]
    if absent:
        return f"{folder} lacks {', '.join(absent)}: run tests/services/cluster/build.sh {folder}"
    return None


def built(name: str) -> str:
    """The path of a program that `build.sh` made."""
    return str(built_folder() / name)


def installed(name: str) -> str:
    """The path of a program that a package brought. Raises AssertionError where it is not there."""
    found = find_program(name)
    assert found is not None, f"{name} is not installed"
    return str(found)
