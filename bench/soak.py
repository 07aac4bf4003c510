"""Uses three replicas over one MinIO for a while, kills them, collects garbage, and looks what is lost; scripts/soak runs it."""

# ruff: noqa: T201  # it prints what it found

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.registry import keys
from app.registry.bucket import side_by_side
from app.registry.lifetimes import Lifetimes, scaled
from app.registry.listing import every
from app.settings import Settings
from bench.actors import Actors
from bench.fleet import BUCKET, Fleet
from bench.ledger import Ledger
from bench.remains import remains
from storage.s3 import S3Driver
from tests.services.minio import MinioServer, find_minio

INTERVAL: Final = 8.0
"""Seconds between cycles of a replica."""


def settings_of(scale: float) -> Mapping[str, str]:
    """The replicas' settings."""
    return {
        "EDGE_REGISTRY_REGISTRY__TIME_SCALE": str(scale),
        "EDGE_REGISTRY_UPKEEP__INTERVAL": str(INTERVAL),
        "EDGE_REGISTRY_UPKEEP__MAX_SHARE": "1",
        "EDGE_REGISTRY_LOG__LEVEL": "warning",
        "EDGE_REGISTRY_LOG__FORMAT": "console",
    }


async def work(fleet: Fleet, ledger: Ledger, dice: random.Random, seconds: float) -> Actors:
    """Everybody at once for that long."""
    actors = Actors(fleet, ledger, dice)
    rounds = [
        *[(actors.push, 0.3)] * 4,
        *[(actors.mount, 0.5)] * 2,
        (actors.retag, 0.3),
        *[(actors.delete, 0.4)] * 2,
        *[(actors.pull, 0.2)] * 3,
        (actors.leave, 4.0),
    ]
    tasks = [asyncio.create_task(actors.for_ever(act, pause)) for act, pause in rounds]
    tasks.append(asyncio.create_task(fleet.kill_now_and_then((10, 30), (0.5, 5))))
    ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*(task for task in tasks if task not in ended), return_exceptions=True)
    for task in ended:
        task.result()
    return actors


async def settle(driver: S3Driver, data: Path, lives: Lifetimes) -> tuple[float, Mapping[str, int]]:
    """Waits until nothing is left over, at most two cycles after the longest life twice (see the design, rule 5)."""
    began = time.monotonic()
    limit = 2 * lives.grace + 3 * INTERVAL + 30
    while True:
        left = await remains(driver, data)
        taken = time.monotonic() - began
        if not left or taken > limit:
            return taken, left
        await asyncio.sleep(2)


async def soak(folder: Path, options: argparse.Namespace) -> bool:
    """The whole of it; says whether every promise held."""
    lives, dice, ledger = scaled(options.scale), random.Random(options.seed), Ledger()  # noqa: S311
    print(f"seed {options.seed}; lives in seconds: {lives}")
    minio = MinioServer(find_minio() or "minio", folder / "minio")
    minio.start()
    fleet = Fleet(folder, minio, settings_of(options.scale), ledger, dice)
    login = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    store = Settings.model_validate(
        {"storage": {"s3": {"endpoint": minio.endpoint, "bucket": BUCKET, **login}}}
    ).storage
    driver = S3Driver(store.s3)
    try:
        await fleet.start()
        await driver.start()
        actors = await work(fleet, ledger, dice, options.minutes * 60)
        for replica in fleet.replicas:
            await asyncio.to_thread(replica.kill)
            await asyncio.to_thread(replica.start)
        print(f"worked for {options.minutes} minutes: {_told(ledger.done)}")
        taken, left = await settle(driver, folder / "minio/data", lives)
        kept = sum([entry.size async for entry in every(driver, keys.DATA)])
        print(f"in the bucket: {kept:,} bytes of layers and configurations")
        print(f"left over {taken:.0f} s later: {_told(left) or 'nothing'}")
        await side_by_side(actors.check, list(ledger.living.values()))
        for (repository, tag), digest in ledger.tags.items():
            await actors.check_tag(repository, tag, digest)
        print(f"pulled at the end: {len(ledger.living)} manifests with their blobs, {len(ledger.tags)} tags")
    finally:
        with suppress(Exception):
            await driver.close()
        await fleet.stop()
        minio.stop()
    for line in ledger.broken:
        print(f"BROKEN: {line}")
    print(f"promises broken: {len(ledger.broken)}")
    return not ledger.broken and not left


def _told(found: Mapping[str, int]) -> str:
    return ", ".join(f"{title}: {count:,}" for title, count in sorted(found.items()))


def main() -> None:
    """Ends with 1 where a promise was broken or something is left over."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--scale", type=float, default=1e-4, help="registry.time_scale of the replicas")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="a folder for logs and data, which stay")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        sys.exit(not asyncio.run(soak(options.keep, options)))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        good = asyncio.run(soak(Path(folder), options))
    sys.exit(not good)


if __name__ == "__main__":
    main()
