"""A cluster by hand: `python -m tests.services.cluster FOLDER` runs one until it is interrupted."""

import argparse
import contextlib
import signal
from pathlib import Path

from tests.services.cluster import Cluster
from tests.services.cluster.programs import missing


def main() -> None:
    """Starts it, prints how to reach it, and takes everything back at SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.cluster", description=__doc__)
    parser.add_argument("folder", type=Path, help="for its files and logs; new, and not below /var, /run or /etc")
    folder: Path = parser.parse_args().folder
    if reason := missing():
        parser.error(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt), Cluster(folder) as cluster:
        print(f"export KUBECONFIG={cluster.kubeconfig}")
        print(f"# node: {cluster.address}; this machine, as its pods see it: {cluster.outside}")
        print(f"# containerd reads {cluster.certs}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
