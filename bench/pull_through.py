"""Measures pulling through: one transfer for many, broken lines, no line at all; scripts/bench-pull runs it."""

# ruff: noqa: S603, S310, T201  # it starts the programs that it measures, asks them, and prints what it found

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.services.client import noise
from tests.services.front import Fault, Front
from tests.services.minio import MinioServer, find_minio
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, filesystem_store, s3_store
from tests.services.upstreams import Distribution, find_distribution

MIB: Final = 1 << 20
LINE: Final = 40_000_000
"""Bytes a second of the uplink."""
NAME: Final = "up.example"
REPOSITORY: Final = "team/app"
READER: Final = Path(__file__).with_name("reader.py")


class Bench:
    """The upstream, the front before it, and a folder to work in."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        program = find_distribution()
        if program is None:
            raise SystemExit("no CNCF Distribution on PATH")
        self.folder, self.stack, self.program = folder, stack, program
        self.upstream = Distribution(program, folder / "upstream").start()
        stack.callback(self.upstream.stop)
        self.front = stack.enter_context(Front(self.upstream.url))

    def blob(self, size: int, seed: str) -> str:
        """A new blob upstream; returns its digest."""
        piece = noise(MIB, seed)
        data = b"".join(n.to_bytes(8) + piece[8:] for n in range(size // MIB))
        return self.upstream.pusher.blob(REPOSITORY, data)

    def server(self, name: str, store: dict[str, str] | None = None, **settings: str) -> RegistryServer:
        """An Edge Registry that pulls through the front; not started."""
        upstreams = [{"name": NAME, "url": self.front.url, "tag_ttl": 0, "prefetch": {"enabled": False}}]
        given = {
            "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps(upstreams),
            "EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(self.folder / name / "spool"),
            "EDGE_REGISTRY_LOG__LEVEL": "warning",
        }
        return RegistryServer(
            self.folder / name, store or filesystem_store(self.folder / name / "data"), settings=given | settings
        )

    @contextmanager
    def line(self, rate: int | None) -> Iterator[None]:
        """The front at `rate` bytes a second, its counts from zero."""
        self.front.rate = rate
        self.front.forget()
        try:
            yield
        finally:
            self.front.rate = None
            self.front.clear()


def read(urls: Sequence[str], during: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Reads all URLs at once, each by a process of its own."""
    at = str(time.time() + 0.5 + 0.1 * len(urls))
    readers = [
        subprocess.Popen([sys.executable, str(READER), url, "--at", at], stdout=subprocess.PIPE, text=True)
        for url in urls
    ]
    during()
    return [json.loads(reader.communicate()[0]) for reader in readers]


def said(title: str, found: Sequence[dict[str, Any]], digest: str, front: Front, alone: float) -> float:
    """Prints one line of the table and returns the longest time."""
    longest = max(one["seconds"] for one in found)
    right = all(one["digest"] == digest for one in found)
    ratio = f"{longest / alone:.2f}" if alone else "1"
    gets, sent = front.count("/v2/*/blobs/*", "GET"), front.sent("/v2/*/blobs/*") / 1e6
    first = max(one["first"] for one in found)
    print(f"| {title} | {gets} | {sent:.1f} | {longest:.2f} | {ratio} | {first:.2f} | {'yes' if right else 'NO'} |")
    return longest


def together(bench: Bench, clients: int, size: int) -> None:
    """Clients pull one cold layer at once: alone, one server, three replicas, Distribution."""
    print(f"\n### {clients} clients, one cold layer of {size // MIB} MiB, uplink {LINE // 10**6} MB/s\n")
    print("| what | upstream GETs | MB upstream | seconds | to the transfer alone | first byte | bytes right |")
    print("|---|---|---|---|---|---|---|")
    digest = bench.blob(size, "alone")
    with bench.line(LINE):
        url = f"{bench.front.url}/v2/{REPOSITORY}/blobs/{digest}"
        alone = said("the transfer alone", read([url]), digest, bench.front, 0)
    with bench.server("one").start() as server, bench.line(LINE):
        url = f"{server.url}/v2/{NAME}/{REPOSITORY}/blobs/{digest}"
        said(f"edge-registry, {clients} clients", read([url] * clients), digest, bench.front, alone)
    minio = MinioServer(find_minio() or Path("minio"), bench.folder / "minio")
    minio.start()
    try:
        store = s3_store(f"http://{minio.address}", "bench", minio.access_key, minio.secret_key)
        with ExitStack() as stack, bench.line(LINE):
            replicas = [stack.enter_context(bench.server(f"replica-{n}", store)) for n in range(3)]
            urls = [f"{replicas[n % 3].url}/v2/{NAME}/{REPOSITORY}/blobs/{digest}" for n in range(clients)]
            said(f"edge-registry, three replicas, {clients} clients", read(urls), digest, bench.front, alone)
    finally:
        minio.stop()
    theirs = Distribution(bench.program, bench.folder / "theirs", proxy=bench.front.url).start()
    try:
        with bench.line(LINE):
            url = f"{theirs.url}/v2/{REPOSITORY}/blobs/{digest}"
            said(f"Distribution as proxy, {clients} clients", read([url] * clients), digest, bench.front, alone)
    finally:
        theirs.stop()


def broken(bench: Bench, size: int) -> None:
    """The line is cut every 20 MB, and the server is killed half-way."""
    print(f"\n### A layer of {size // MIB} MiB over a line that is cut every 20 MB, the server killed half-way\n")
    digest = bench.blob(size, "broken")
    server = bench.server("broken").start()
    with bench.line(LINE):
        bench.front.on("/v2/*/blobs/*", Fault(cut=20_000_000), method="GET")

        def kill() -> None:
            bench.front.wait_until(lambda: bench.front.sent("/v2/*/blobs/*") > size // 2, 120)
            server.kill()
            server.start()

        found = read([f"{server.url}/v2/{NAME}/{REPOSITORY}/blobs/{digest}"], kill)[0]
        sent = bench.front.sent("/v2/*/blobs/*")
    server.stop()
    right = "right" if found["digest"] == digest else "WRONG"
    print(f"fetched {sent / 1e6:.1f} MB for {size / 1e6:.1f} MB: {sent / size:.3f} times; the client's bytes: {right}")
    print(f"the client went on by Range {found['breaks']} times; {found['seconds']:.1f} s in all")


def offline(bench: Bench) -> None:
    """What a miss, a cached tag and a restart cost without an uplink."""
    print("\n### Without an uplink\n")
    bench.upstream.pusher.image(REPOSITORY, "1", [MIB])
    server = bench.server("offline").start()
    tag = f"{server.url}/v2/{NAME}/{REPOSITORY}/manifests/1"
    for path in _paths(tag):
        _timed(path)
    for how in ("refused", "silent"):
        bench.front.down(how)
        first = _timed(tag)
        while _timed(f"{server.url}/v2/{NAME}/{REPOSITORY}/manifests/none")[1] != 503:
            time.sleep(0.2)
        time.sleep(1)
        misses = [_timed(f"{server.url}/v2/{NAME}/{REPOSITORY}/manifests/n{n}") for n in range(100)]
        hits = [_timed(tag) for _ in range(100)]
        print(f"uplink {how}: the first pull of a cached tag {1000 * first[0]:.0f} ms (status {first[1]})")
        for title, found in (("a miss", misses), ("a cached tag", hits)):
            times = sorted(1000 * seconds for seconds, _ in found)
            codes = {status for _, status in found}
            print(f"  {title}: median {statistics.median(times):.1f} ms, most {times[-1]:.1f} ms, statuses {codes}")
        server.stop()
        began = time.monotonic()
        server.start()
        print(f"  restarted and ready in {time.monotonic() - began:.1f} s; cached tag: status {_timed(tag)[1]}")
        bench.front.up()
        while server.request("GET", f"/v2/{NAME}/{REPOSITORY}/tags/list").status != 200:
            time.sleep(0.2)
    server.stop()


def cached(bench: Bench, rounds: int) -> None:
    """Content that was pulled through, beside content that was pushed."""
    print("\n### Cached content beside local content, MB/s of one client, medians of interleaved rounds\n")
    print("| blob | local | cached | ratio |\n|---|---|---|---|")
    with bench.server("cached").start() as server:
        for size in (10 * MIB, 200 * MIB):
            digest = bench.blob(size, f"cached {size}")
            data = urllib.request.urlopen(f"{bench.upstream.url}/v2/{REPOSITORY}/blobs/{digest}").read()
            Pusher(server.url).blob("local/app", data)
            urls = {
                "local": f"{server.url}/v2/local/app/blobs/{digest}",
                "cached": f"{server.url}/v2/{NAME}/{REPOSITORY}/blobs/{digest}",
            }
            speeds: dict[str, list[float]] = {"local": [], "cached": []}
            for number in range(rounds + 1):
                for name in sorted(urls, reverse=bool(number % 2)):
                    speed = _speed(urls[name], max(1, 400 * MIB // size))
                    if number:
                        speeds[name].append(speed)
            local, through = (statistics.median(speeds[name]) for name in ("local", "cached"))
            print(f"| {size // MIB} MiB | {local:.0f} | {through:.0f} | {through / local:.2f} |")


def _speed(url: str, count: int) -> float:
    """MB/s of `count` downloads by one curl."""
    done = subprocess.run(
        ["curl", "-s", "-w", "%{size_download} %{time_total}\n", *(["-o", "/dev/null", url] * count)],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = [line.split() for line in done.stdout.splitlines()]
    return sum(float(size) for size, _ in pairs) / sum(float(seconds) for _, seconds in pairs) / 1e6


def _paths(tag: str) -> list[str]:
    """The manifest and every blob that it names."""
    manifest = json.load(urllib.request.urlopen(tag))
    base = tag.partition("/manifests/")[0]
    return [tag, *(f"{base}/blobs/{item['digest']}" for item in (manifest["config"], *manifest["layers"]))]


def _timed(url: str) -> tuple[float, int]:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            answer.read()
            status = answer.status
    except urllib.error.HTTPError as refusal:
        status = refusal.code
        refusal.close()
    return time.monotonic() - began, status


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["together", "broken", "offline", "cached"])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--size", type=int, default=100, help="MiB of the layer that clients pull together")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    works = {
        "together": lambda bench: together(bench, options.clients, options.size * MIB),
        "broken": lambda bench: broken(bench, 2 * options.size * MIB),
        "offline": offline,
        "cached": lambda bench: cached(bench, options.rounds),
    }
    for name, work in works.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="bench-pull-") as folder, ExitStack() as stack:
                work(Bench(Path(folder), stack))


if __name__ == "__main__":
    main()
