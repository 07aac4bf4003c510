"""What a cluster says of itself when a test fails: its pods, what happened to them, and what they logged last."""

import json
import subprocess
from typing import Final

from tests.services.cluster import Cluster

EVENTS: Final = 4000
LINES: Final = 15


def diagnose(cluster: Cluster) -> str:
    """Text for a report; never raises for a cluster that does not answer."""
    try:
        pods = cluster.attempt("get", "pods,services", "-A", "-o", "wide").stdout
        events = cluster.attempt("get", "events", "-A", "--sort-by=.lastTimestamp", "--no-headers").stdout
        hosts = (cluster.node.etc / "hosts").read_text()
        return "\n".join([pods, events[-EVENTS:], *_logs(cluster), hosts])
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"the cluster cannot be asked: {exc}"


def _logs(cluster: Cluster) -> list[str]:
    listed = cluster.attempt("get", "pods", "-A", "-o", "json").stdout
    found = []
    for pod in json.loads(listed or '{"items": []}')["items"]:
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        said = cluster.attempt("logs", "-n", space, name, "--all-containers", f"--tail={LINES}", "--prefix").stdout
        found.append(f"{space}/{name}:\n{said}")
    return found
