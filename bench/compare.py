"""Measures Edge Registry against Distribution v3 on one MinIO and prints a Markdown table; scripts/bench runs it."""

# ruff: noqa: S603  # it starts the programs that it measures

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from minio import Minio

from tests.services.minio import free_port
from tests.services.registry import RegistryServer, s3_store

START_SECONDS: Final = 30.0
OURS: Final = "edge-registry"
THEIRS: Final = "distribution"


@dataclass(frozen=True, slots=True)
class Workload:
    """What one run of the load driver does; `unit` is the column of its result that is compared."""

    name: str
    options: Mapping[str, str]
    unit: str


def _bytes(name: str, work: str, size: str, count: int, parallel: int) -> Workload:
    options = {"work": work, "size": size, "count": str(count), "parallel": str(parallel)}
    return Workload(name, options, "megabytes_per_second")


def _requests(name: str, work: str) -> Workload:
    return Workload(name, {"work": work, "size": "100K", "count": "3000", "parallel": "8"}, "per_second")


WORKLOADS: Final = (
    _bytes("push 10 MiB as docker", "push-docker", "10M", 16, 4),
    _bytes("push 200 MiB as docker", "push-docker", "200M", 3, 2),
    _bytes("push 10 MiB as containerd", "push-put", "10M", 16, 4),
    _bytes("push 200 MiB as containerd", "push-put", "200M", 3, 2),
    Workload(
        "push images of four 100 KiB layers",
        {"work": "push-docker", "size": "100K", "layers": "4", "count": "100", "parallel": "4"},
        "per_second",
    ),
    _requests("HEAD tag", "head-tag"),
    _requests("GET manifest by digest", "get-manifest"),
    _requests("HEAD blob", "head-blob"),
    _bytes("pull 10 MiB", "pull", "10M", 24, 4),
    _bytes("pull 200 MiB", "pull", "200M", 4, 2),
)
UNITS: Final = {"megabytes_per_second": "MB/s", "per_second": "/s"}


@dataclass(frozen=True, slots=True)
class Side:
    """A running registry."""

    name: str
    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Store:
    """A running MinIO."""

    endpoint: str
    access_key: str
    secret_key: str
    pid: int


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str], ready: str) -> Iterator[int]:
    """Runs a server without any output until the block ends; `ready` is the URL that it must answer first."""
    started = subprocess.Popen(
        command, env=os.environ | dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(ready):
            if started.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.05)
        yield started.pid
    finally:
        started.terminate()
        started.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """A MinIO with its data below `folder`."""
    address, secret = f"127.0.0.1:{free_port()}", secrets.token_hex(16)
    environment = {
        "MINIO_ROOT_USER": "bench",
        "MINIO_ROOT_PASSWORD": secret,
        "MINIO_BROWSER": "off",
        "MINIO_CI_CD": "1",
    }
    command = [os.environ["MINIO_BIN"], "server", "--quiet", "--address", address, str(folder)]
    with _process(command, environment, f"http://{address}/minio/health/cluster") as pid:
        client = Minio(address, "bench", secret, secure=False)
        for bucket in (OURS, THEIRS):
            client.make_bucket(bucket)
        yield Store(f"http://{address}", "bench", secret, pid)


@contextmanager
def edge_registry(folder: Path, held: Store) -> Iterator[Side]:
    """This registry, quiet and without users, on its own bucket."""
    settings = s3_store(held.endpoint, OURS, held.access_key, held.secret_key)
    with RegistryServer(folder, settings, settings={"EDGE_REGISTRY_LOG__LEVEL": "warning"}) as server:
        yield Side(OURS, server.url, server.pid)


@contextmanager
def distribution(folder: Path, held: Store, program: str) -> Iterator[Side]:
    """Distribution as equal as it can be: streaming, deleting allowed, quiet, no cache, on its own bucket."""
    address = f"127.0.0.1:{free_port()}"
    configuration: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "http": {"addr": address, "secret": secrets.token_hex(16)},
        "storage": {
            "delete": {"enabled": True},
            "redirect": {"disable": True},
            "s3": {
                "region": "us-east-1",
                "regionendpoint": held.endpoint,
                "bucket": THEIRS,
                "accesskey": held.access_key,
                "secretkey": held.secret_key,
                "forcepathstyle": True,
            },
        },
    }
    file = folder / "distribution.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(configuration))
    with _process([program, "serve", str(file)], {"OTEL_TRACES_EXPORTER": "none"}, f"http://{address}/v2/") as pid:
        yield Side(THEIRS, f"http://{address}", pid)


def measure(load: Path, side: Side, minio_pid: int, workload: Workload, scale: float) -> dict[str, Any]:
    """One run of the load driver against one side: its report, as parsed. Ends the program where a request failed."""
    options = dict(workload.options)
    options["count"] = str(max(1, round(int(options["count"]) * scale)))
    command = [str(load), "-url", side.url, "-pids", f"registry={side.pid},minio={minio_pid}"]
    for name, value in options.items():
        command += [f"-{name}", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side.name}, {workload.name}: {done.stdout}{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def row(workload: Workload, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    """One line of the table: medians over the rounds, their ratio, CPU seconds of registry and MinIO."""

    def median(reports: Sequence[dict[str, Any]], process: str = "") -> float:
        return statistics.median(float(r["cpu_seconds"][process] if process else r[workload.unit]) for r in reports)

    cells = [
        f"{workload.name} ({UNITS[workload.unit]})",
        *(f"{median(reports):.1f}" for reports in (ours, theirs)),
        f"{median(ours) / median(theirs):.2f}",
        *(f"{median(reports, 'registry'):.2f} / {median(reports, 'minio'):.2f}" for reports in (ours, theirs)),
    ]
    return "| " + " | ".join(cells) + " |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default 5)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="workloads whose name holds NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of operations (default 1)")
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile (default: the temporary folder)")
    parser.add_argument("--load", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Starts both sides, measures the chosen workloads alternately and prints the table as it grows."""
    arguments = _arguments()
    program = shutil.which("registry")
    chosen = [w for w in WORKLOADS if not arguments.only or any(part in w.name for part in arguments.only)]
    if program is None or not chosen:
        raise SystemExit("Distribution's `registry` is not on PATH" if chosen else "no workload has such a name")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder)))
        (folder / "minio").mkdir()
        held = stack.enter_context(store(folder / "minio"))
        ours = stack.enter_context(edge_registry(folder / "edge", held))
        theirs = stack.enter_context(distribution(folder, held, program))
        reports: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(arguments.rounds):
            for workload in chosen:
                # Neither side is always the first one.
                for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                    report = measure(arguments.load, side, held.pid, workload, arguments.scale)
                    reports.setdefault((side.name, workload.name), []).append(report)
                    sys.stderr.write(f"{number + 1}: {side.name}: {workload.name}: {report[workload.unit]:.1f}\n")
        sys.stdout.write(
            f"| workload, median of {arguments.rounds} | ours | Distribution | ratio | our CPU s, registry / MinIO "
            "| Distribution's |\n|---|---|---|---|---|---|\n"
        )
        for workload in chosen:
            sys.stdout.write(row(workload, reports[OURS, workload.name], reports[THEIRS, workload.name]) + "\n")


if __name__ == "__main__":
    main()
