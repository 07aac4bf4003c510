"""Measures collecting garbage beside Distribution, the same content in one MinIO; scripts/bench-collect runs it."""

# ruff: noqa: S310, S603, T201  # it asks MinIO, runs the programs that it measures, and prints what it found

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.oci.digests import Digest, digest_of
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy, Entry
from app.registry.listing import every
from app.settings import Settings
from bench.compare import OURS, THEIRS, Store, store
from storage import Driver
from storage.s3 import S3Driver
from tests.services.client import CONFIG, LAYER, MANIFEST
from tests.services.registry import CHECKOUT, PROGRAM, own_environment, s3_store

LAYERS: Final = 9
REPOSITORIES: Final = 100
SIZE: Final = 2048
_AT_ONCE: Final = 64
_COUNTED: Final = 11.0
"""Seconds after which MinIO's own counts are right."""
_OLD: Final = 35.0
"""Seconds after which all is older than the shortest grace and two fences."""
Put = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: its blobs and its manifest; of every second one the manifest was deleted."""

    number: int

    @property
    def name(self) -> Name:
        return Name(f"team/app-{self.number % REPOSITORIES}")

    @property
    def deleted(self) -> bool:
        return self.number // REPOSITORIES % 2 == 1

    def blobs(self) -> Sequence[bytes]:
        """Config and layers, no two alike."""
        return [f"{self.number} {place} ".encode().ljust(SIZE, b"x") for place in range(LAYERS + 1)]

    def manifest(self) -> bytes:
        config, *layers = [
            {"mediaType": LAYER if place else CONFIG, "digest": digest_of(data), "size": len(data)}
            for place, data in enumerate(self.blobs())
        ]
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


def as_ours(picture: Picture) -> Iterator[Put]:
    """The keys that pushing it here, and deleting some, would leave."""
    for data in picture.blobs():
        copy, digest = Copy(keys.fresh(), len(data)), digest_of(data)
        yield keys.data(copy.uuid), data
        yield keys.holder(digest, copy, picture.name), b""
        yield keys.link(picture.name, digest, copy), b""
    yield keys.catalog(picture.name), b""
    if not picture.deleted:
        manifest = picture.manifest()
        yield keys.manifest(picture.name, Entry(digest_of(manifest), keys.fresh(), MANIFEST, len(manifest))), manifest


def as_theirs(picture: Picture) -> Iterator[Put]:
    """The keys that pushing it to Distribution, and deleting some, would leave."""
    manifest = picture.manifest()
    folder = f"{keys.DISTRIBUTION}repositories/{picture.name}"
    for data in (*picture.blobs(), manifest):
        yield keys.data(keys.adopted(digest_of(data), 0).uuid), data
    for data in picture.blobs():
        yield f"{folder}/_layers/{_path(digest_of(data))}/link", digest_of(data).encode()
    if not picture.deleted:
        link = digest_of(manifest).encode()
        yield f"{folder}/_manifests/revisions/{_path(digest_of(manifest))}/link", link
        yield f"{folder}/_manifests/tags/v{picture.number}/current/link", link
        yield f"{folder}/_manifests/tags/v{picture.number}/index/{_path(digest_of(manifest))}/link", link


def _path(digest: Digest) -> str:
    return digest.replace(":", "/")


async def fill(held: Store, bucket: str, puts: Iterator[Put]) -> int:
    """Writes all; returns how many."""
    driver = _driver(held, bucket)
    await driver.start()
    count = 0

    async def writer() -> None:
        nonlocal count
        for key, data in puts:
            await driver.put(key, data)
            count += 1

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(writer())
    finally:
        await driver.close()
    return count


async def counted(held: Store, bucket: str, prefix: str) -> int:
    """Blobs below a prefix."""
    driver: Driver = _driver(held, bucket)
    await driver.start()
    try:
        return len([entry async for entry in every(driver, prefix)])
    finally:
        await driver.close()


def _driver(held: Store, bucket: str) -> S3Driver:
    given = {"endpoint": held.endpoint, "bucket": bucket, "access_key": held.access_key, "secret_key": held.secret_key}
    return S3Driver(Settings.model_validate({"storage": {"s3": given}}).storage.s3)


def requests(held: Store) -> Counter[str]:
    """Requests that MinIO has answered, by kind."""
    with urllib.request.urlopen(f"{held.endpoint}/minio/v2/metrics/cluster") as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for api, number in re.findall(r'^minio_s3_requests_total\{api="(\w+)"[^}]*\} (\S+)$', text, re.MULTILINE):
        found[api] += int(float(number))
    return found


def measured(title: str, held: Store, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a collector to its end and prints a line of the table."""
    before, began = requests(held), time.monotonic()
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    memory = 0
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        memory = max(memory, _peak(process.pid))
        time.sleep(0.05)
    _, status, used = ended
    seconds = time.monotonic() - began
    time.sleep(_COUNTED)
    asked = requests(held) - before
    most = ", ".join(f"{api} {number:,}" for api, number in asked.most_common(4))
    cells = (
        title,
        f"{seconds:.1f}",
        f"{used.ru_utime + used.ru_stime:.1f}",
        f"{asked.total():,} ({most})",
        f"{memory / 1024:.0f}",
        str(os.waitstatus_to_exitcode(status)),
    )
    print("| " + " | ".join(cells) + " |", flush=True)


def _peak(pid: int) -> int:
    """KiB that a process has had in memory at most; its ru_maxrss counts what we had when it was forked."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return max(map(int, re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)), default=0)


def _their_settings(held: Store) -> dict[str, Any]:
    given = {
        "region": "us-east-1",
        "regionendpoint": held.endpoint,
        "bucket": THEIRS,
        "accesskey": held.access_key,
        "secretkey": held.secret_key,
        "forcepathstyle": True,
    }
    return {"version": 0.1, "log": {"level": "error"}, "storage": {"delete": {"enabled": True}, "s3": given}}


def compare(folder: Path, held: Store, images: int, scale: float) -> None:
    """Fills both sides, collects both, and counts what stayed."""
    program = shutil.which("registry")
    if program is None:
        raise SystemExit("Distribution's `registry` is not on PATH")
    pictures = [Picture(number) for number in range(images)]
    for bucket, puts in ((OURS, as_ours), (THEIRS, as_theirs)):
        wrote = asyncio.run(fill(held, bucket, (put for picture in pictures for put in puts(picture))))
        print(f"{bucket}: {wrote:,} keys written", file=sys.stderr)
    time.sleep(_OLD)
    file = folder / "distribution.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(_their_settings(held)))
    store_of_ours = s3_store(held.endpoint, OURS, held.access_key, held.secret_key)
    ours = own_environment(store_of_ours | {"EDGE_REGISTRY_REGISTRY__TIME_SCALE": str(scale)})
    blobs = images * (LAYERS + 1)
    print(f"\n{blobs:,} blobs of {images:,} images in {REPOSITORIES} repositories; half of the manifests are deleted\n")
    print("| | seconds | CPU s | requests | peak MiB | exit status |\n|---|---|---|---|---|---|")
    measured("edge-registry gc", held, [*PROGRAM, "gc", "--max-share", "1"], ours)
    measured("edge-registry gc, again", held, [*PROGRAM, "gc", "--max-share", "1"], ours)
    quiet = own_environment({"OTEL_TRACES_EXPORTER": "none"})
    measured("Distribution's garbage-collect", held, [program, "garbage-collect", str(file)], quiet)
    left = asyncio.run(counted(held, OURS, keys.DATA))
    theirs = asyncio.run(counted(held, THEIRS, f"{keys.DISTRIBUTION}blobs/"))
    print(f"\nblobs left: ours {left:,}, theirs {theirs:,} (with manifests; both should have half of what was written)")


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="scripts/bench-collect", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help=f"images of {LAYERS + 1} blobs each")
    parser.add_argument("--scale", type=float, default=1e-4, help="registry.time_scale, so that all is old enough")
    options = parser.parse_args()
    os.environ["MINIO_PROMETHEUS_AUTH_TYPE"] = "public"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-collect-")))
        (folder / "minio").mkdir()
        compare(folder, stack.enter_context(store(folder / "minio")), options.images, options.scale)


if __name__ == "__main__":
    main()
