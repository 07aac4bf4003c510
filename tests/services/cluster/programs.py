"""What a cluster needs of this machine: the programs and where they are, and what the kernel must allow."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.services.clients import CHECKOUT, find_newer, find_program

BUILT: Final = (
    *("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"),
    *("coredns", "pause", "hello"),
)
INSTALLED: Final = ("etcd", "containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare")
PLUGINS: Final = Path("/usr/lib/cni")
VARIABLE: Final = "CLUSTER_BIN"
CGROUPS: Final = Path("/sys/fs/cgroup")
TRIAL: Final = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"),
    "mount --make-rprivate / && mount -t tmpfs tmpfs /srv && ip link add one type veth peer name other",
)


def built_folder() -> Path:
    """Where `build.sh` put its programs: what CLUSTER_BIN names, else .cache/cluster of the checkout,
    else ~/.cache/edge-registry/cluster."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    places = (CHECKOUT / ".cache/cluster", Path.home() / ".cache/edge-registry/cluster")
    return next((place for place in places if (place / "kubelet").exists()), places[0])


def barred() -> str | None:
    """Why this machine cannot run a cluster, whatever is installed, in one sentence; None where it can."""
    if os.geteuid() != 0:
        return "not root: a cluster cannot be started"
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(TRIAL, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return f"no namespaces with mounts and cables of their own can be made here: {done.stderr.strip()}"
    for hierarchy in _hierarchies():
        group = hierarchy / f"edge-registry-trial-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as exc:
            return f"no control groups can be made here: {exc}"
        with contextlib.suppress(OSError):
            group.rmdir()
    return None


def missing(containerd: int = 1) -> str | None:
    """Why no cluster with this generation of containerd can be started here, in one sentence; None where one can."""
    if os.geteuid() != 0:
        return "not root: a cluster cannot be started"
    absent = [name for name in INSTALLED if find_program(name) is None]
    if absent or not (PLUGINS / "ptp").exists():
        return f"a cluster needs {', '.join(absent) or 'the CNI plugins'}; .ci/run names the packages"
    folder = built_folder()
    absent = [name for name in BUILT if not os.access(folder / name, os.X_OK)]
    if absent:
        return f"{folder} lacks {', '.join(absent)}: run tests/services/cluster/build.sh {folder}"
    if containerd == 2 and find_newer("containerd") is None:
        return "containerd 2 is not built: run tests/services/newer.sh .cache/newer"
    return barred()


def built(name: str) -> str:
    """The path of a program that `build.sh` made."""
    return str(built_folder() / name)


def installed(name: str) -> str:
    """The path of a program that a package brought. Raises AssertionError where it is not there."""
    found = find_program(name)
    assert found is not None, f"{name} is not installed"
    return str(found)


def containerd_folder(generation: int) -> Path:
    """Where containerd, its shim and ctr of a generation are: 1 is the package's, 2 what `newer.sh` built."""
    found = find_newer("containerd") if generation == 2 else Path(installed("containerd")).parent
    assert found is not None, "containerd 2 is not built"
    return found


def _hierarchies() -> Iterator[Path]:
    """The roots of control groups: the one of version 2, or those of version 1 that containers are limited by."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS
        return
    yield from (CGROUPS / name for name in ("cpu", "memory", "pids", "devices"))
