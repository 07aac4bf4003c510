"""A cluster by hand: `python -m tests.services.cluster FOLDER` runs one until it is interrupted."""

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from tests.services.cluster import Cluster
from tests.services.cluster.programs import barred, built_folder, missing


def main() -> None:
    """Starts it, prints how to reach it, and takes everything back at SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.cluster", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="for its files and logs; not below /var, /run or /etc")
    parser.add_argument("--check", action="store_true", help="only say whether the kernel of this machine can run one")
    parser.add_argument("--programs", action="store_true", help="only print the folder of the programs to build")
    parser.add_argument("--containerd", type=int, choices=(1, 2), default=1, help="the generation of its runtime")
    given = parser.parse_args()
    if given.check:
        sys.exit(barred())
    if given.programs:
        print(built_folder())
        return
    folder: Path | None = given.folder
    if folder is None:
        parser.error("a folder is wanted")
    if reason := missing(given.containerd):
        parser.error(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt), Cluster(folder, containerd=given.containerd) as cluster:
        print(f"export KUBECONFIG={cluster.kubeconfig}")
        print(f"# node: {cluster.address}; this machine, as its pods see it: {cluster.outside}")
        print(f"# containerd reads {cluster.certs}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
